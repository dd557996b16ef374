"""What happens to a frame that nobody has asked for yet: the two policies at the pipeline's entry."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from engine.clock import NS_PER_S
from engine.packet import Packet

_CALM_NS = NS_PER_S


class Mailbox(Protocol):
    """Holds packets between the thread that reads the source and the one that answers requests."""

    def put(self, packet: Packet) -> Packet | None:
        """Leave a packet; returns the one that found no room, if any."""

    def take(self) -> Packet | None:
        """The packet that has waited longest, which leaves the box."""

    def waiting(self) -> tuple[Packet, ...]:
        """What waits, oldest first; it stays."""

    def close(self) -> None:
        """Take nothing in any more; a `put` that waits gives its packet back."""


class LatestMailbox:
    """A newer packet replaces the waiting one: age stays below one frame period, whatever the pipeline's speed.

    A single hiccup (the machine was busy elsewhere for some 50 ms) costs no frame: when nothing has been replaced for
    a second, one packet may wait behind another, and the pipeline catches up. A pipeline that is too slow replaces
    all the time, so that this never adds to its age.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packets: deque[Packet] = deque()
        self._crowded_at_ns: int | None = None
        """When a packet last came while another waited, on the packets' own clock."""
        self._closed = False

    def put(self, packet: Packet) -> Packet | None:
        with self._lock:
            if self._closed:
                return packet
            replaced = None
            if self._packets:
                since, self._crowded_at_ns = self._crowded_at_ns, packet.captured_at_ns
                calm = since is None or packet.captured_at_ns - since >= _CALM_NS
                if len(self._packets) > 1 or not calm:
                    replaced = self._packets.popleft()
            self._packets.append(packet)
            return replaced

    def take(self) -> Packet | None:
        with self._lock:
            return self._packets.popleft() if self._packets else None

    def waiting(self) -> tuple[Packet, ...]:
        with self._lock:
            return tuple(self._packets)

    def close(self) -> None:
        with self._lock:
            self._closed = True


class EveryMailbox:
    """`put` waits until the box is empty: nothing is lost, and the source is read as fast as the pipeline works."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._packet: Packet | None = None
        self._closed = False

    def put(self, packet: Packet) -> Packet | None:
        with self._changed:
            self._changed.wait_for(lambda: self._packet is None or self._closed)
            if self._closed:
                return packet
            self._packet = packet
            return None

    def take(self) -> Packet | None:
        with self._changed:
            packet, self._packet = self._packet, None
            self._changed.notify_all()
            return packet

    def waiting(self) -> tuple[Packet, ...]:
        packet = self._packet
        return () if packet is None else (packet,)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
