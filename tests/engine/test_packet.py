"""What may travel in a packet, and what is said of the rest where it is sent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engine.packet import Packet, PacketCodec


class Measured(Packet, kw_only=True):
    values: npt.NDArray[np.float32] | None = None
    name: str = ""


def measured(values: np.ndarray) -> Measured:
    return Measured(stream="0", sequence=0, pts=0.0, captured_at_ns=0, values=values)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float64", ">f4"])
def test_an_array_of_numbers_arrives_as_it_was(dtype: str) -> None:
    codec, sent = PacketCodec(Measured), np.arange(6).reshape(2, 3).astype(dtype)
    came = codec.decode(codec.encode(measured(sent)))
    assert isinstance(came, Measured) and came.values is not None
    assert came.values.dtype == sent.dtype
    np.testing.assert_array_equal(came.values, sent)


def test_what_is_left_of_a_packet_that_cannot_be_read_says_which_frame_it_was_and_how_it_ended() -> None:
    codec = PacketCodec(Measured)
    packet = measured(np.zeros(1))
    packet.picture, packet.name = "a.jpg", 5  # type: ignore[assignment]
    left = codec.decode_bare(codec.encode(packet))
    assert (left.picture, left.status, left.reason) == ("a.jpg", "dropped", "malformed")
    packet.end("end")
    assert codec.decode_bare(codec.encode(packet)).status == "end"


@pytest.mark.parametrize("values", [np.array([None]), np.array(["a"]), np.zeros(65 * 1024 * 1024, np.uint8)])
def test_what_nobody_would_decode_is_refused_where_it_is_sent(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not allowed in a packet; it may hold numbers"):
        PacketCodec(Measured).encode(measured(values))
