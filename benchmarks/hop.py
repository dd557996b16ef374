"""Frame hop: how long a frame needs from the process that has it to another that can read its pixels.

The clock starts when the frame lies complete in the producer's memory (for the ring, that is the slot: capture decodes
into it) and stops when the consumer has it as an array. The consumer then reads every fourth row, however it came.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import time
from contextlib import closing
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


class Receiver(Protocol):
    """The consumer's end."""

    def receive(self) -> tuple[int, np.ndarray]:
        """When it was sent (ns) and the pixels, uint8 (height, width, 3)."""


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
    receiver: Receiver = WAYS[way][1](ends)
    control.send("ready")
    taken_ns, cpu_ns = [], time.process_time_ns()
    for _ in range(total):
        sent_ns, pixels = receiver.receive()
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


class _RingReceiver:
    def __init__(self, ends: Ends) -> None:
        self._socket = _pull(ends["endpoint"])
        self._codec = PacketCodec(Packet)
        self._frames = RingReader(SLOTS)
        self._copy = bool(ends["copy"])

    def receive(self) -> tuple[int, np.ndarray]:
        packet = self._codec.decode(self._socket.recv())
        assert packet.frame is not None
        with self._frames.read(packet.frame) as pixels:
            return packet.captured_at_ns, pixels.copy() if self._copy else pixels


class _MessageSender:
    """The frame itself in a ZeroMQ message, not copied on its way into the library."""

    def __init__(self, shape: tuple[int, int], endpoint: str) -> None:
        # The library may still send one while the next is written.
        self._buffers = np.zeros((SLOTS, *shape, 3), np.uint8)
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = make_socket(self._context, zmq.PUSH)
        self._socket.bind(endpoint)

    def begin(self, number: int) -> np.ndarray:
        return np.asarray(self._buffers[number % SLOTS])

    def send(self, number: int) -> None:
        head = np.array([now_ns(), *self._buffers.shape[1:3]], np.int64)
        self._socket.send_multipart([head.tobytes(), self._buffers[number % SLOTS].data], copy=False)

    def close(self) -> None:
        self._context.destroy(linger=0)


class _MessageReceiver:
    def __init__(self, ends: Ends) -> None:
        self._socket = _pull(ends["endpoint"])

    def receive(self) -> tuple[int, np.ndarray]:
        head, body = self._socket.recv_multipart(copy=False)
        sent_ns, height, width = np.frombuffer(head.buffer, np.int64).tolist()
        return sent_ns, np.frombuffer(body.buffer, np.uint8).reshape(height, width, 3)


class _PipeSender:
    """`multiprocessing.Pipe`, bytes."""

    def __init__(self, shape: tuple[int, int], end: Connection) -> None:
        self._buffer = np.zeros((*shape, 3), np.uint8)
        self._end = end

    def begin(self, number: int) -> np.ndarray:
        return self._buffer

    def send(self, number: int) -> None:
        self._end.send_bytes(np.array([now_ns(), *self._buffer.shape[:2]], np.int64).tobytes())
        self._end.send_bytes(self._buffer.reshape(-1).data)

    def close(self) -> None:
        self._end.close()


class _PipeReceiver:
    def __init__(self, ends: Ends) -> None:
        self._end: Connection = ends["end"]

    def receive(self) -> tuple[int, np.ndarray]:
        sent_ns, height, width = np.frombuffer(self._end.recv_bytes(), np.int64).tolist()
        return sent_ns, np.frombuffer(self._end.recv_bytes(), np.uint8).reshape(height, width, 3)


class _QueueSender:
    """`multiprocessing.Queue`, arrays."""

    def __init__(self, shape: tuple[int, int], queue: Any) -> None:
        self._buffers = np.zeros((SLOTS, *shape, 3), np.uint8)  # a thread of the queue still reads the last one
        self._queue = queue

    def begin(self, number: int) -> np.ndarray:
        return np.asarray(self._buffers[number % SLOTS])

    def send(self, number: int) -> None:
        self._queue.put((now_ns(), self._buffers[number % SLOTS]))

    def close(self) -> None:
        self._queue.close()


class _QueueReceiver:
    def __init__(self, ends: Ends) -> None:
        self._queue = ends["queue"]

    def receive(self) -> tuple[int, np.ndarray]:
        sent_ns, pixels = self._queue.get()
        return sent_ns, pixels


def _pull(endpoint: str) -> zmq.Socket[Any]:
    socket = make_socket(zmq.Context.instance(), zmq.PULL)
    socket.connect(endpoint)
    return socket


def _ipc(folder: Path) -> str:
    return f"ipc://{folder / 'hop'}" if zmq.has("ipc") else _tcp()


def _tcp() -> str:
    with closing(zmq.Context().socket(zmq.PUSH)) as held:
        return f"tcp://127.0.0.1:{held.bind_to_random_port('tcp://127.0.0.1')}"


def _ring(shape: tuple[int, int], folder: Path) -> tuple[Sender, Ends]:
    endpoint = _ipc(folder)
    return _RingSender(shape, endpoint), {"endpoint": endpoint, "copy": False}


def _ring_copy(shape: tuple[int, int], folder: Path) -> tuple[Sender, Ends]:
    sender, ends = _ring(shape, folder)
    return sender, {**ends, "copy": True}


def _zmq_ipc(shape: tuple[int, int], folder: Path) -> tuple[Sender, Ends]:
    endpoint = _ipc(folder)
    return _MessageSender(shape, endpoint), {"endpoint": endpoint}


def _zmq_tcp(shape: tuple[int, int], folder: Path) -> tuple[Sender, Ends]:
    endpoint = _tcp()
    return _MessageSender(shape, endpoint), {"endpoint": endpoint}


def _pipe(shape: tuple[int, int], folder: Path) -> tuple[Sender, Ends]:
    receiving, sending = multiprocessing.get_context("spawn").Pipe(duplex=False)
    return _PipeSender(shape, sending), {"end": receiving}


def _queue(shape: tuple[int, int], folder: Path) -> tuple[Sender, Ends]:
    queue = multiprocessing.get_context("spawn").Queue(SLOTS)
    return _QueueSender(shape, queue), {"queue": queue}


WAYS: dict[str, tuple[Any, Any]] = {
    "our ring": (_ring, _RingReceiver),
    "our ring, copied out": (_ring_copy, _RingReceiver),
    "ZeroMQ ipc": (_zmq_ipc, _MessageReceiver),
    "ZeroMQ tcp": (_zmq_tcp, _MessageReceiver),
    "multiprocessing.Pipe": (_pipe, _PipeReceiver),
    "multiprocessing.Queue": (_queue, _QueueReceiver),
}
"""Both ends of each way: the sender is made of a frame's (height, width) and a folder, the receiver of `Ends`."""
