"""What travels: a small typed message that starts as a reference to a frame and gains what each stage adds.

MessagePack by `msgspec`; a NumPy array of numbers travels as dtype, shape and bytes, and arrives read-only. Nothing is
ever pickled.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin

import msgspec
import numpy as np

Ending = Literal["dropped", "source_lost", "end"]
"""How a packet ends early: it was not processed, see `reason`; there is no picture; it is the stream's last."""

MAX_ARRAY_BYTES = 64 * 1024 * 1024
_NUMBERS = re.compile(r"[<>|][biuf]\d+")
"""Dtypes that travel: truth values, integers and floats."""


class FrameRef(msgspec.Struct, frozen=True):
    """Where a frame's pixels lie: slot of a shared-memory ring, valid while the slot's generation is unchanged.

    Pixels are uint8 BGR of shape (height, width, 3).
    """

    segment: str
    slot: int
    generation: int
    width: int
    height: int


class Span(msgspec.Struct, frozen=True, array_like=True):
    """One stage's share of a packet's time."""

    stage: str
    entered_ns: int
    left_ns: int


class Packet(msgspec.Struct, kw_only=True):
    """One frame of one stream on its way through the pipeline; applications subclass it with what their stages add.

    What they add has a default: the engine makes packets without it. It is of types that msgspec decodes, in
    msgspec Structs if need be, and NumPy arrays; a value of another type than its field says costs the packet.
    """

    stream: str
    sequence: int
    pts: float
    """Presentation time in seconds from the start of the stream."""
    captured_at_ns: int
    """By `engine.clock.now_ns`."""
    picture: str | None = None
    """Name of the file that it shows, of a source that has one for each."""
    frame: FrameRef | None = None
    status: str = "ok"
    """`ok`, an `Ending`, or what an application's stages find."""
    reason: str | None = None
    expires_at_ns: int | None = None
    """Live streams: from then on the packet is too old to be worth working on; None: it may take its time."""
    spans: list[Span] = []

    @property
    def ended(self) -> bool:
        """Whether no stage has work left to do on it: it only has to be reported."""
        return self.status in get_args(Ending)

    def end(self, status: Ending, reason: str | None = None) -> None:
        """Finish early; the packet still travels to the end of the pipeline, so that every frame is accounted for."""
        self.status = status
        self.reason = reason
        self.frame = None


def outline(packet: Packet, kind: type[Packet]) -> Packet:
    """A new packet of a kind that says only which frame it stands for."""
    return kind(
        stream=packet.stream, sequence=packet.sequence, pts=packet.pts, captured_at_ns=packet.captured_at_ns,
        picture=packet.picture,
    )  # fmt: skip


def encode_array(value: object) -> Any:
    """msgspec `enc_hook`: array -> (dtype, shape, bytes); ValueError when it would not be decoded."""
    if isinstance(value, np.ndarray):
        _check_array(value.dtype.str, value.nbytes)
        array = np.ascontiguousarray(value)
        return (array.dtype.str, array.shape, array.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"cannot send the type {type(value).__name__}")


def decode_array(kind: type, value: Any) -> Any:
    """msgspec `dec_hook`: (dtype, shape, bytes) -> read-only array; ValueError when malformed or oversized."""
    if (get_origin(kind) or kind) is not np.ndarray:
        raise NotImplementedError(f"cannot receive a {kind.__name__}")
    dtype, shape, data = value
    _check_array(dtype, len(data))
    return np.frombuffer(data, dtype).reshape(shape)


def _check_array(dtype: str, size_bytes: int) -> None:
    if not _NUMBERS.fullmatch(dtype) or size_bytes > MAX_ARRAY_BYTES:
        raise ValueError(
            f"an array of dtype {dtype!r} and {size_bytes} bytes is not allowed in a packet; it may hold numbers, at "
            f"most {MAX_ARRAY_BYTES} bytes of them"
        )


class PacketCodec:
    """Encodes and decodes packets of one concrete type."""

    def __init__(self, kind: type[Packet]) -> None:
        self._kind = kind
        self._encoder = msgspec.msgpack.Encoder(enc_hook=encode_array)
        self._decoder = msgspec.msgpack.Decoder(kind, dec_hook=decode_array)
        self._engine_decoder = msgspec.msgpack.Decoder(Packet)

    def encode(self, packet: Packet) -> bytes:
        return self._encoder.encode(packet)

    def decode(self, data: bytes) -> Packet:
        """Raises msgspec.ValidationError or ValueError when the bytes are no such packet."""
        return self._decoder.decode(data)

    def decode_bare(self, data: bytes) -> Packet:
        """Of a packet to which a stage gave what its type does not allow, what the engine itself put into it. Raises as
        `decode` does."""
        return self.bare(self._engine_decoder.decode(data))

    def bare(self, packet: Packet) -> Packet:
        """The packet without what stages gave it, dropped as malformed unless it has ended in another way."""
        bare = outline(packet, self._kind)
        if packet.ended:
            bare.status, bare.reason = packet.status, packet.reason
        else:
            bare.end("dropped", "malformed")
        return bare
