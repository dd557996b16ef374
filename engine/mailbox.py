"""What happens to a frame that nobody has asked for yet: the two policies at the pipeline's entry."""

from __future__ import annotations

import threading
from typing import Protocol

from engine.packet import Packet


class Mailbox(Protocol):
    """Holds at most one packet between the thread that reads the source and the one that answers requests."""

    def put(self, packet: Packet) -> Packet | None:
        """Leave a packet; returns the one that found no room, if any."""

    def take(self) -> Packet | None:
        """The waiting packet, which leaves the box."""

    def waiting(self) -> Packet | None:
        """The waiting packet, which stays."""

    def close(self) -> None:
        """Take nothing in any more; a `put` that waits gives its packet back."""


class LatestMailbox:
    """A newer packet replaces the waiting one: age stays below one frame period, whatever the pipeline's speed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packet: Packet | None = None
        self._closed = False

    def put(self, packet: Packet) -> Packet | None:
        with self._lock:
            if self._closed:
                return packet
            replaced, self._packet = self._packet, packet
            return replaced

    def take(self) -> Packet | None:
        with self._lock:
            packet, self._packet = self._packet, None
            return packet

    def waiting(self) -> Packet | None:
        return self._packet

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

    def waiting(self) -> Packet | None:
        return self._packet

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
