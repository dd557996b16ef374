"""Which packets are under way: the bound that keeps the pipeline from queueing, and the account of what gets lost."""

from __future__ import annotations

import msgspec

from engine.clock import NS_PER_MS
from engine.packet import Packet, outline

REPEAT_MS = 1000
"""How long a notice (a packet that carries no frame) waits for its acknowledgement before it is sent again."""
_NOTICES_AT_ONCE = 100


class _Sent(msgspec.Struct):
    packet: Packet
    write_off_at_ns: int


class _Notice(msgspec.Struct):
    packet: Packet
    due_at_ns: int


class InFlight:
    """Packets of one stream that capture has handed over and the last worker has not reported as finished.

    A frame whose worker died is written off: a notice with status "dropped" takes its place. Notices are sent again
    until they are acknowledged; the last worker discards what it has seen before.
    """

    def __init__(self, limit: int, write_off_ms: float, silent_ms: float) -> None:
        """`silent_ms`: after that long a frame counts as lost even if no death was noticed."""
        self._limit = limit
        self._write_off_ns = int(write_off_ms * NS_PER_MS)
        self._silent_ns = int(silent_ms * NS_PER_MS)
        self._frames: dict[int, _Sent] = {}
        self._notices: dict[int, _Notice] = {}

    @property
    def has_room(self) -> bool:
        return len(self._frames) < self._limit

    @property
    def empty(self) -> bool:
        return not self._frames and not self._notices

    def frames(self) -> set[int]:
        """Sequences whose pixels may still be read."""
        return set(self._frames)

    def send(self, packet: Packet, now_ns: int) -> None:
        """A frame is handed over."""
        write_off_at_ns = now_ns + self._silent_ns + self._write_off_ns
        self._frames[packet.sequence] = _Sent(outline(packet, type(packet)), write_off_at_ns)

    def notify(self, packet: Packet, due_at_ns: int) -> None:
        """A packet without a frame is to be handed over, from `due_at_ns` on."""
        self._notices[packet.sequence] = _Notice(packet, due_at_ns)

    def worker_lost(self, now_ns: int) -> None:
        """A worker died: what is under way has `write_off_ms` left to come out of the others."""
        for sent in self._frames.values():
            sent.write_off_at_ns = min(sent.write_off_at_ns, now_ns + self._write_off_ns)

    def prolong(self, by_ns: int) -> None:
        """Everything stood still for that long: frames under way have so much more time."""
        for sent in self._frames.values():
            sent.write_off_at_ns += by_ns

    def due(self, now_ns: int) -> bool:
        """Whether a notice waits to be handed over."""
        self._write_off(now_ns)
        return any(notice.due_at_ns <= now_ns for notice in self._notices.values())

    def take_notices(self, now_ns: int) -> list[Packet]:
        """The notices that are due, oldest first."""
        self._write_off(now_ns)
        due = sorted(sequence for sequence, notice in self._notices.items() if notice.due_at_ns <= now_ns)
        taken = [self._notices[sequence] for sequence in due[:_NOTICES_AT_ONCE]]
        for notice in taken:
            notice.due_at_ns = now_ns + REPEAT_MS * NS_PER_MS
        return [notice.packet for notice in taken]

    def finished(self, before: int) -> None:
        """All packets with a sequence below `before` have left the pipeline."""
        for sequence in [sequence for sequence in self._frames if sequence < before]:
            del self._frames[sequence]
        for sequence in [sequence for sequence in self._notices if sequence < before]:
            del self._notices[sequence]

    def _write_off(self, now_ns: int) -> None:
        for sent in self._frames.values():
            # It stays until the notice is through: who was thought dead may only be slow, and read its pixels yet.
            if sent.write_off_at_ns <= now_ns and not sent.packet.ended:
                sent.packet.end("dropped", "worker_lost")
                self.notify(sent.packet, now_ns)
