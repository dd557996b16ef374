"""Frame hop: how long a frame needs from the process that has it to another that can read its pixels.

The clock starts when the frame lies complete in the producer's memory (for the ring, that is the slot: capture decodes
into it) and stops when the consumer has it as an array. The consumer then reads every fourth row, however it came.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zmq

from benchmarks.figures import Chart, Part, Row, Session, percentiles_ms
from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from engine.errors import UserError
from engine.links import make_socket
from engine.packet import Packet, PacketCodec
from engine.ring import FrameRing, RingReader
from engine.stage import FrameOverrun

SIZES = {"720p": (720, 1280), "1080p": (1080, 1920)}
"""Height and width in pixels."""
FPS = 30
WARM_UP_FRAMES = 20
SLOTS = 8
_START_S = 30.0

Ends = dict[str, Any]
"""What the two ends of a way need to find each other; survives being handed to a spawned process."""


class Sender(Protocol):
    """The producer's end: write into `begin()`, then `send()`."""

    def begin(self, number: int) -> np.ndarray: ...

    def send(self, number: int) -> None: ...

    def close(self) -> None: ...


Receiver = Callable[[], tuple[int, np.ndarray]]
"""The consumer's end: when the next frame was sent (ns) and its pixels, uint8 (height, width, 3)."""


def measure(session: Session) -> Part:
    """Every way at every size; the smaller alone in a quick run."""
    frames = 20 if session.quick else 150
    rows: list[Row] = []
    for size, shape in list(SIZES.items())[: 1 if session.quick else None]:
        for way in WAYS:
            session.say(f"{way} at {size}")
            rows.append({"way": way, "size": size, **measure_way(way, shape, frames)})
    return Part(
        name="hop",
        title=f"Frame hop between two processes at {FPS} frames a second",
        rows=rows,
        chart=Chart(("way", "size"), "p50_ms"),
    )


def measure_way(way: str, shape: tuple[int, int], frames: int) -> Row:
    """Percentiles of one way's hop, and processor time of both processes for each frame, in milliseconds."""
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="hop-") as folder:
        sender, ends = WAYS[way][0](shape, Path(folder))
        total = WARM_UP_FRAMES + frames
        consumer = context.Process(target=_consume, args=(way, ends, child, total), daemon=True)
        ours = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a child inherits that; it ends with the bench
        consumer.start()
        signal.signal(signal.SIGINT, ours)
        child.close()
        with closing(sender):
            return _produce(sender, parent, consumer, shape, total)


def _produce(sender: Sender, control: Connection, consumer: BaseProcess, shape: tuple[int, int], total: int) -> Row:
    pictures = np.random.default_rng(0).integers(0, 255, (4, *shape, 3), np.uint8)
    _wait_for(control, consumer)
    control.recv()
    cpu_ns, begun = time.process_time_ns(), now_ns()
    for number in range(total):
        np.copyto(sender.begin(number), pictures[number % len(pictures)])
        time.sleep(max(0.0, (begun + number * NS_PER_S // FPS - now_ns()) / NS_PER_S))
        sender.send(number)
    cpu_ns = time.process_time_ns() - cpu_ns
    _wait_for(control, consumer)
    taken_ns, consumer_cpu_ns = control.recv()
    consumer.join()
    cpu_ms = (cpu_ns + consumer_cpu_ns) / total / NS_PER_MS
    return {**percentiles_ms(taken_ns[WARM_UP_FRAMES:]), "cpu_ms_per_frame": round(cpu_ms, 2)}


def _wait_for(control: Connection, consumer: BaseProcess) -> None:
    if not control.poll(_START_S):
        consumer.kill()
        raise UserError(f"the receiving process gave no answer in {_START_S:.0f} s; is the machine very busy?")


def _consume(way: str, ends: Ends, control: Connection, total: int) -> None:
    """The consumer's process."""
    receive: Receiver = WAYS[way][1](ends)
    control.send("ready")
    taken_ns, cpu_ns = [], time.process_time_ns()
    for _ in range(total):
        try:
            sent_ns, pixels = receive()
        except FrameOverrun:  # the benchmark was stopped, and its ring is gone
            return
        taken_ns.append(now_ns() - sent_ns)
        pixels[::4].sum()
    control.send((taken_ns, time.process_time_ns() - cpu_ns))


class _RingSender:
    """Our own way: a slot of shared memory, and a packet with a reference to it."""

    def __init__(self, shape: tuple[int, int], endpoint: str) -> None:
        self._shape = shape
        self._ring = FrameRing.create("0", SLOTS, shape[0] * shape[1] * 3)
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = make_socket(self._context, zmq.PUSH)
        self._socket.bind(endpoint)
        self._codec = PacketCodec(Packet)

    def begin(self, number: int) -> np.ndarray:
        return self._ring.begin(*self._shape, busy=())

    def send(self, number: int) -> None:
        sent_ns = now_ns()
        frame = self._ring.commit(number)
        packet = Packet(stream="0", sequence=number, pts=number / FPS, captured_at_ns=sent_ns, frame=frame)
        self._socket.send(self._codec.encode(packet))

    def close(self) -> None:
        self._ring.close(unlink=True)
        self._context.destroy(linger=0)


def _ring_receiver(ends: Ends) -> Receiver:
    socket, codec, frames = _pull(ends["endpoint"]), PacketCodec(Packet), RingReader(SLOTS)

    def receive() -> tuple[int, np.ndarray]:
        packet = codec.decode(socket.recv())
        assert packet.frame is not None
        with frames.read(packet.frame) as pixels:
            return packet.captured_at_ns, pixels.copy() if ends["copy"] else pixels

    return receive


class _FrameSender:
    """The frame itself is sent, from one of some buffers in turn: who sends may still read the last one."""

    def __init__(
        self, shape: tuple[int, int], buffers: int, send: Callable[[np.ndarray], None], close: Callable[[], None]
    ) -> None:
        self._buffers = [np.zeros((*shape, 3), np.uint8) for _ in range(buffers)]
        self._send, self.close = send, close

    def begin(self, number: int) -> np.ndarray:
        return self._buffers[number % len(self._buffers)]

    def send(self, number: int) -> None:
        self._send(self.begin(number))


def _head(pixels: np.ndarray) -> bytes:
    return np.array([now_ns(), *pixels.shape[:2]], np.int64).tobytes()


def _frame(head: bytes | memoryview, body: bytes | memoryview) -> tuple[int, np.ndarray]:
    sent_ns, height, width = np.frombuffer(head, np.int64).tolist()
    return sent_ns, np.frombuffer(body, np.uint8).reshape(height, width, 3)


def _pull(endpoint: str) -> zmq.Socket[Any]:
    socket = make_socket(zmq.Context.instance(), zmq.PULL)
    socket.connect(endpoint)
    return socket


def _ipc(folder: Path) -> str:
    return f"ipc://{folder / 'hop'}" if zmq.has("ipc") else _tcp()


def _tcp() -> str:
    with closing(zmq.Context().socket(zmq.PUSH)) as held:
        return f"tcp://127.0.0.1:{held.bind_to_random_port('tcp://127.0.0.1')}"


def _ring(shape: tuple[int, int], folder: Path, copy: bool = False) -> tuple[Sender, Ends]:
    endpoint = _ipc(folder)
    return _RingSender(shape, endpoint), {"endpoint": endpoint, "copy": copy}


def _message(shape: tuple[int, int], endpoint: str) -> tuple[Sender, Ends]:
    """A ZeroMQ message, not copied on its way into the library."""
    context: zmq.Context[Any] = zmq.Context()
    socket = make_socket(context, zmq.PUSH)
    socket.bind(endpoint)

    def send(pixels: np.ndarray) -> None:
        socket.send_multipart([_head(pixels), pixels.data], copy=False)

    return _FrameSender(shape, SLOTS, send, partial(context.destroy, linger=0)), {"endpoint": endpoint}


def _message_receiver(ends: Ends) -> Receiver:
    socket = _pull(ends["endpoint"])

    def receive() -> tuple[int, np.ndarray]:
        head, body = socket.recv_multipart(copy=False)
        return _frame(head.buffer, body.buffer)

    return receive


def _pipe(shape: tuple[int, int], folder: Path) -> tuple[Sender, Ends]:
    receiving, sending = multiprocessing.get_context("spawn").Pipe(duplex=False)

    def send(pixels: np.ndarray) -> None:
        sending.send_bytes(_head(pixels))
        sending.send_bytes(pixels.reshape(-1).data)

    return _FrameSender(shape, 1, send, sending.close), {"end": receiving}


def _pipe_receiver(ends: Ends) -> Receiver:
    return lambda: _frame(ends["end"].recv_bytes(), ends["end"].recv_bytes())


def _queue(shape: tuple[int, int], folder: Path) -> tuple[Sender, Ends]:
    queue: Any = multiprocessing.get_context("spawn").Queue(SLOTS)
    return _FrameSender(shape, SLOTS, lambda pixels: queue.put((now_ns(), pixels)), queue.close), {"queue": queue}


def _queue_receiver(ends: Ends) -> Receiver:
    return ends["queue"].get  # type: ignore[no-any-return]


WAYS: dict[str, tuple[Callable[[tuple[int, int], Path], tuple[Sender, Ends]], Callable[[Ends], Receiver]]] = {
    "our ring": (_ring, _ring_receiver),
    "our ring, copied out": (partial(_ring, copy=True), _ring_receiver),
    "ZeroMQ ipc": (lambda shape, folder: _message(shape, _ipc(folder)), _message_receiver),
    "ZeroMQ tcp": (lambda shape, folder: _message(shape, _tcp()), _message_receiver),
    "multiprocessing.Pipe": (_pipe, _pipe_receiver),
    "multiprocessing.Queue": (_queue, _queue_receiver),
}
"""Both ends of each way: the sender is made of a frame's (height, width) and a folder, the receiver of `Ends`."""
