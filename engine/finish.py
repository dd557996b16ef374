"""The pipeline's exit: every sequence of every stream leaves it exactly once and in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from engine.config import EngineSettings
from engine.meter import Meter
from engine.packet import FrameRef, Packet
from engine.profile import Profile
from engine.reorder import ReorderBuffer
from engine.state import RunState

_log = logging.getLogger(__name__)


class Finisher:
    """Put around the last worker's stages: `arrange` before them, `finish` after them."""

    def __init__(
        self, streams: Sequence[str], packet_type: type[Packet], state: RunState, meter: Meter, settings: EngineSettings
    ) -> None:
        self._packet_type = packet_type
        self._state = state
        self._meter = meter
        self._profile: Profile | None = None
        if settings.profile:
            fresh = not any(state.stream(name).finished for name in streams)
            self._profile = Profile(Path(settings.profile), streams, meter.entry_stages, fresh)
        self._buffers = {name: ReorderBuffer(state.stream(name).finished) for name in streams}
        self._refused: list[FrameRef] = []
        self._live_wait_ns = int(settings.reorder_ms * NS_PER_MS)
        # Files may lose nothing: a missing packet was lost with its worker, and capture will say so. The wait is a
        # backstop for the case that it does not.
        self._file_wait_ns = int((2 * settings.silent_s + settings.write_off_ms / 1000) * NS_PER_S)

    def arrange(self, packets: Sequence[Packet]) -> list[Packet]:
        """What may go through the stages now, in order; call it without packets when nothing arrives."""
        now = now_ns()
        for packet in packets:
            buffer = self._buffers.get(packet.stream)
            if buffer is None:
                _log.warning("a packet of the unknown stream %r was ignored", packet.stream)
                continue
            wait = self._file_wait_ns if packet.expires_at_ns is None else self._live_wait_ns
            if not buffer.push(packet, now + wait) and packet.frame is not None:
                self._refused.append(packet.frame)
        return [
            self._given_up(name, item) if isinstance(item, int) else item
            for name, buffer in self._buffers.items()
            for item in buffer.pop(now)
        ]

    def take_refused(self) -> list[FrameRef]:
        """Frames that came after their turn, since the last call: no stage will see them."""
        refused, self._refused = self._refused, []
        return refused

    def finish(self, packet: Packet) -> None:
        """The packet has gone through the last stage."""
        self._meter.count(packet)
        if self._profile is not None:
            self._profile.add(packet, now_ns())
        self._state.stream(packet.stream).finished = packet.sequence + 1

    def _given_up(self, stream: str, sequence: int) -> Packet:
        packet = self._packet_type(
            stream=stream, sequence=sequence, pts=self._state.stream(stream).last_pts, captured_at_ns=now_ns()
        )
        packet.end("dropped", "late")
        return packet
