"""ZeroMQ links between processes: by request at the entry, by queue between workers.

Entry: capture binds a ROUTER; the first workers and the last one connect a DEALER each.

    capture -> first  READY                   there is a frame and room for it
    first -> capture  TAKE                    the worker is free
    first -> capture  WAIT                    the same, and kept until there is something: from who has one stream only
    capture -> first  NOTE packet             a frame that was dropped, any number of them
    capture -> first  FRAME packet [pixels]   the newest frame at that moment, or NONE
    last -> capture   DONE                    look at the stream's state: more has left the pipeline

High-water marks bound nothing here (a "queue of 2" takes hundreds of small messages): they are a fence. No socket
lingers: nothing counts as delivered before the last worker has reported it, and the end of a stream is such a packet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import zmq

from engine.clock import NS_PER_MS, now_ns
from engine.frames import OwnedFrames
from engine.packet import Packet, PacketCodec
from engine.ring import MAX_SIDE_PX
from engine.stage import FrameOverrun

_log = logging.getLogger(__name__)
_FENCE = 256
_MOST_BYTES = 3 * MAX_SIDE_PX**2
"""Of one part of a message: the pixels of the largest frame. What is larger ZeroMQ drops without a word."""
_ASK_AGAIN_NS = 1000 * NS_PER_MS  # in case a request was lost; one that still stands is not counted twice
_ANSWERED_WITHIN_NS = 50 * NS_PER_MS
_SEND_SLICE_MS = 50
_MALFORMED = (msgspec.DecodeError, ValueError, IndexError)
_UNSENDABLE = (msgspec.EncodeError, NotImplementedError, OverflowError, TypeError, ValueError)
FIRST, LAST = b"first", b"last"
READY, TAKE, WAIT, DONE = b"READY", b"TAKE", b"WAIT", b"DONE"
NOTE, FRAME, NONE = b"NOTE", b"FRAME", b"NONE"


def make_socket(context: zmq.Context[Any], kind: int) -> zmq.Socket[Any]:
    """A socket with the options that all links share."""
    socket: zmq.Socket[Any] = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, _FENCE)
    socket.setsockopt(zmq.RCVHWM, _FENCE)
    socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)  # a stream that has ended early is knocked at to the end of the run
    return socket


class EntryServer:
    """Capture's end of the entry link."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = make_socket(context, zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted worker comes under the same name
        self.socket.bind(endpoint)
        self._announced: dict[bytes, bool] = {}
        self._waiting: dict[bytes, None] = {}

    def announce(self) -> None:
        """Tell every first worker that does not know yet that there is something to take."""
        for peer, knows in self._announced.items():
            if not knows:
                self._announced[peer] = True
                self._send([peer, READY])

    def requests(self) -> list[bytes]:
        """The first workers that asked since the last call and want an answer now."""
        asked: list[bytes] = []
        while True:
            try:
                peer, kind, *_ = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return asked
            if kind == b"" and peer.startswith(FIRST):  # the probe that a (re)connected DEALER sends
                self._announced[peer] = False
                self._waiting.pop(peer, None)
            elif kind == TAKE:
                self._announced[peer] = False
                asked.append(peer)
            elif kind == WAIT:
                self._announced[peer] = True  # it needs no READY: it asks by itself whenever it is free
                self._waiting[peer] = None

    def next_waiting(self) -> bytes | None:
        """The first worker that has waited longest, which then waits no more."""
        peer = next(iter(self._waiting), None)
        if peer is not None:
            del self._waiting[peer]
        return peer

    def forget(self, worker: str) -> bytes:
        """That worker died: what it waits for would be sent into the void. Its successor, if it asked already, is told
        to ask again. Returns what it is called on this link."""
        peer = _first(worker)
        self._waiting.pop(peer, None)
        if peer in self._announced:
            self._announced[peer] = False
        return peer

    def note(self, peer: bytes, packet: bytes) -> None:
        self._send([peer, NOTE, packet])

    def answer(self, peer: bytes, parts: Sequence[Any] | None) -> None:
        """Answer a request with the parts of a packet, or with nothing."""
        self._send([peer, FRAME, *parts] if parts else [peer, NONE])

    def _send(self, parts: list[Any]) -> None:
        try:
            self.socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            _log.debug("a worker takes no messages")  # what it would have got is sent again or written off


class Parcel:
    """Packets to message parts and back; with transport `copy` the pixels are the second part."""

    def __init__(self, codec: PacketCodec, frames: OwnedFrames | None) -> None:
        self._codec = codec
        self._frames = frames
        self._said = ""

    def pack(self, packet: Packet) -> list[Any]:
        pixels: list[Any] = []
        if self._frames is not None and packet.frame is not None:
            try:
                pixels = [self._frames.pixels(packet.frame)]
            except FrameOverrun:
                packet.end("dropped", "overrun")
        try:
            return [self._codec.encode(packet), *pixels]
        except _UNSENDABLE as error:
            self._say(f"what a stage gave cannot be sent, and its packet is dropped: {error}")
            return [self._codec.encode(self._codec.bare(packet))]

    def unpack(self, parts: Sequence[bytes]) -> Packet | None:
        """Dropped, with a line in the log, when the message is malformed; None when it is no packet at all."""
        try:
            packet = self._codec.decode(parts[0])
            if len(parts) > 1 and self._frames is not None and packet.frame is not None:
                self._frames.put(packet.frame, parts[1])
            return packet
        except _MALFORMED as error:
            self._say(f"what came is not of the packet's type and is dropped: {error}")
        try:
            return self._codec.decode_bare(parts[0])
        except _MALFORMED:
            return None

    def _say(self, mistake: str) -> None:
        """Once in a row: who makes a mistake makes it with every frame."""
        if mistake != self._said:
            _log.error(mistake)
        self._said = mistake


class TakeInlet:
    """A first worker's end of the entry links: asks the stream that has waited longest.

    With one stream there is nothing to choose, so a free worker lets its request stand: a frame that comes is on its
    way at once, two messages earlier.
    """

    def __init__(self, context: zmq.Context[Any], endpoints: dict[str, str], peer: str, parcel: Parcel) -> None:
        self._parcel = parcel
        self._poller = zmq.Poller()
        self._sockets: dict[Any, str] = {}
        self._ready: dict[Any, None] = {}
        self._asked: dict[Any, int] = {}
        for stream, endpoint in endpoints.items():
            socket = _dealer(context, endpoint, _first(peer))
            self._sockets[socket] = stream
            self._poller.register(socket, zmq.POLLIN)

    def receive(self, timeout_ms: float, max_batch: int, max_wait_ms: float) -> list[Packet]:
        """Packets that came within the timeout; asks for at most `max_batch` frames, one of each stream."""
        packets: list[Packet] = []
        until = now_ns() + int(timeout_ms * NS_PER_MS)
        max_batch = min(max_batch, len(self._sockets))
        # What has come already goes first: to ask before would keep the worker one frame behind from then on.
        for socket, _ in self._poller.poll(0):
            self._drain(socket, packets)
        if packets and max_batch == 1:
            return packets
        while True:
            self._ask(max_batch)
            for socket, _ in self._poller.poll(0 if packets and not self._asked else _left_ms(until)):
                self._drain(socket, packets)
            if packets and (not self._asked or max_batch == 1) or now_ns() >= until:
                return packets

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()

    def _ask(self, limit: int) -> None:
        now = now_ns()
        self._asked = {socket: at for socket, at in self._asked.items() if now - at < _ASK_AGAIN_NS}
        stands = len(self._sockets) == limit == 1
        # Of several streams, one that does not answer at once must not keep the others waiting.
        asked = [at for at in self._asked.values() if stands or now - at < _ANSWERED_WITHIN_NS]
        for socket in list(self._sockets if stands else self._ready)[: max(0, limit - len(asked))]:
            self._ready.pop(socket, None)
            try:
                socket.send(WAIT if stands else TAKE, zmq.NOBLOCK)
            except zmq.Again:
                continue  # that capture is down; asked again in the next turn, or when it says READY
            self._asked[socket] = now

    def _drain(self, socket: Any, packets: list[Packet]) -> None:
        while True:
            try:
                kind, *parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if kind == READY:
                self._ready[socket] = None
                if len(self._sockets) == 1:  # said to who does not wait there: our request died with that capture
                    self._asked.pop(socket, None)
                continue
            if kind in (FRAME, NONE):
                self._asked.pop(socket, None)
            if kind in (FRAME, NOTE) and (packet := self._parcel.unpack(parts)) is not None:
                packets.append(packet)


class PullInlet:
    """A later worker's queue."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, parcel: Parcel) -> None:
        self._parcel = parcel
        self._socket = make_socket(context, zmq.PULL)
        self._socket.bind(endpoint)

    def receive(self, timeout_ms: float, max_batch: int, max_wait_ms: float) -> list[Packet]:
        """What waits, at most `max_batch`; once there is one, waits at most `max_wait_ms` for more."""
        packets: list[Packet] = []
        until = now_ns() + int(timeout_ms * NS_PER_MS)
        while len(packets) < max_batch and self._socket.poll(_left_ms(until)):
            packet = self._parcel.unpack(self._socket.recv_multipart())
            if packet is None:
                continue
            if not packets:
                until = now_ns() + int(max_wait_ms * NS_PER_MS)
            packets.append(packet)
        return packets

    def close(self) -> None:
        self._socket.close()


class PushOutlet:
    """Passes packets on to the next worker's replicas in turn."""

    def __init__(self, context: zmq.Context[Any], endpoints: Sequence[str], parcel: Parcel) -> None:
        self._parcel = parcel
        self._socket = make_socket(context, zmq.PUSH)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # only to replicas that are there
        for endpoint in endpoints:
            self._socket.connect(endpoint)

    def send(self, packet: Packet, keep_waiting: Callable[[], bool]) -> None:
        """Wait for a worker to take it, until `keep_waiting()`, asked every 50 ms, says no."""
        parts = self._parcel.pack(packet)
        while True:
            if self._socket.poll(_SEND_SLICE_MS, zmq.POLLOUT):
                with suppress(zmq.Again):  # who could take it a moment ago may be gone
                    self._socket.send_multipart(parts, zmq.NOBLOCK)
                    return
            elif not keep_waiting():
                return

    def close(self) -> None:
        self._socket.close()


class DoneOutlet:
    """The last worker's end of the entry links."""

    def __init__(self, context: zmq.Context[Any], endpoints: dict[str, str], peer: str) -> None:
        self._sockets = {
            stream: _dealer(context, endpoint, LAST + b"/" + peer.encode()) for stream, endpoint in endpoints.items()
        }

    def done(self, stream: str) -> None:
        """Say that the stream's state has changed; the state itself lies in shared memory, so nothing hangs on it."""
        try:
            self._sockets[stream].send(DONE, zmq.NOBLOCK)
        except zmq.Again:
            _log.debug("capture of stream %s is away", stream)

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()


def _left_ms(until_ns: int) -> int:
    """Rounded up: a poll of 0 ms would spin, or not wait at all."""
    return max(0, -((now_ns() - until_ns) // NS_PER_MS))


def _first(worker: str) -> bytes:
    """What a first worker is called on the entry links."""
    return FIRST + b"/" + worker.encode()


def _dealer(context: zmq.Context[Any], endpoint: str, identity: bytes) -> zmq.Socket[Any]:
    socket = make_socket(context, zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    # An empty message on every connect tells a new capture that we are here; IMMEDIATE makes a reconnect count as one.
    socket.setsockopt(zmq.PROBE_ROUTER, 1)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.connect(endpoint)
    return socket
