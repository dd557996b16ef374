"""Restores the order of a stream whose packets took different ways."""

from __future__ import annotations

from engine.packet import Packet


class ReorderBuffer:
    """Gives each sequence of one stream exactly once, in order.

    A packet waits for its predecessors until its deadline; then they are given up, which `pop` says by their numbers.
    What comes after its turn is a duplicate or too late, and is discarded.
    """

    def __init__(self, first: int) -> None:
        self._expected = first
        self._waiting: dict[int, tuple[int, Packet]] = {}

    def push(self, packet: Packet, deadline_ns: int) -> bool:
        """Returns False when the packet's turn is over or an equal one already waits."""
        if packet.sequence < self._expected or packet.sequence in self._waiting:
            return False
        self._waiting[packet.sequence] = (deadline_ns, packet)
        return True

    def pop(self, now_ns: int) -> list[Packet | int]:
        """What may go on now, in order; a number stands for a packet that was given up."""
        released: list[Packet | int] = []
        while self._waiting:
            if self._expected in self._waiting:
                released.append(self._waiting.pop(self._expected)[1])
            elif min(deadline for deadline, _ in self._waiting.values()) <= now_ns:
                released.append(self._expected)
            else:
                break
            self._expected += 1
        return released
