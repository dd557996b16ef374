"""What the supervisor and its workers say to one another, and the line between them.

A pipe for each worker, MessagePack in it. The worker's end is read by a thread, which also watches the parent: a worker
never outlives its supervisor.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import msgspec

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError

_GRANT_TIMEOUT_S = 10.0
_GRACE_S = 2.0
_LARGE_FRAME_BYTES = 200_000_000


class NeedRing(msgspec.Struct, tag=True, frozen=True):
    """Capture: please make room for frames of that size; answered by GrantRing."""

    frame_bytes: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The worker can take frames (capture: can give them)."""

    described: dict[str, dict[str, str]] = {}


class Closing(msgspec.Struct, tag=True, frozen=True):
    """The worker has done its work and closes its stages, which may take long and gives no beats."""


class Described(msgspec.Struct, tag=True, frozen=True):
    """What the stages say of themselves once they are closed."""

    described: dict[str, dict[str, str]]


class Beat(msgspec.Struct, tag=True, frozen=True):
    """The main loop turns."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker ends because of that; `by_user`: a sentence for the user, and no restart would help."""

    sentence: str
    by_user: bool

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """What a worker that ends by it says."""
        by_user = isinstance(error, UserError)
        return cls(str(error) if by_user else f"{type(error).__name__}: {error}", by_user=by_user)


class StopRequested(msgspec.Struct, tag=True, frozen=True):
    """A stage asks for the end of the program."""


class StreamEnded(msgspec.Struct, tag=True, frozen=True):
    """Capture: the end of the stream has been acknowledged."""


class Begin(msgspec.Struct, tag=True, frozen=True):
    """To capture: everybody is ready, let frames flow."""


class GrantRing(msgspec.Struct, tag=True, frozen=True):
    """To capture: the ring to write into."""

    name: str


class WorkerLost(msgspec.Struct, tag=True, frozen=True):
    """To capture: a worker died, perhaps with frames."""

    worker: str


class Stop(msgspec.Struct, tag=True, frozen=True):
    """Finish what was begun, close and end."""


class HealthRecord(msgspec.Struct, tag=True, frozen=True):
    """The newest health record."""

    record: dict[str, Any]


ToSupervisor = NeedRing | Ready | Closing | Described | Beat | Failed | StopRequested | StreamEnded
ToWorker = Begin | GrantRing | WorkerLost | Stop | HealthRecord

_encoder = msgspec.msgpack.Encoder()
_to_supervisor = msgspec.msgpack.Decoder(ToSupervisor)
_to_worker = msgspec.msgpack.Decoder(ToWorker)


def send(connection: Connection, message: ToSupervisor | ToWorker) -> bool:
    """False when the other side is gone."""
    try:
        connection.send_bytes(_encoder.encode(message))
    except OSError:
        return False
    return True


def receive(connection: Connection) -> ToSupervisor | None:
    """Supervisor: the next message if there is one; none comes from a worker that has closed its end."""
    message: ToSupervisor | None = None
    with contextlib.suppress(EOFError, OSError):
        if connection.poll():
            message = _to_supervisor.decode(connection.recv_bytes())
    return message


class SupervisorLine:
    """A worker's line to its supervisor."""

    def __init__(self, connection: Connection, heartbeat_s: float, last_will: Callable[[], None]) -> None:
        """`last_will` is called when the supervisor has died and the worker has not ended by itself in time."""
        self._connection = connection
        self._heartbeat_ns = int(heartbeat_s * NS_PER_S)
        self._beat_at_ns = 0
        self._last_will = last_will
        self._messages: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self._grants: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._orphaned = threading.Event()
        threading.Thread(target=self._listen, name="supervisor-line", daemon=True).start()

    @property
    def orphaned(self) -> bool:
        """Whether the supervisor is gone."""
        return self._orphaned.is_set()

    def send(self, message: ToSupervisor) -> None:
        with self._sending:
            send(self._connection, message)

    def beat(self) -> None:
        """Say that the main loop turns, if it is time; for that loop alone."""
        now = now_ns()
        if now >= self._beat_at_ns:
            self._beat_at_ns = now + self._heartbeat_ns
            self.send(Beat())

    def poll(self) -> ToWorker | None:
        """The next message if there is one."""
        with contextlib.suppress(queue.Empty):
            return self._messages.get_nowait()
        return None

    def ask_for_ring(self, frame_bytes: int) -> str:
        """Name of a new ring for frames of that size; callable from any thread. Raises UserError where frames are so
        large that it takes too long, TimeoutError where that has another cause."""
        self.send(NeedRing(frame_bytes))
        try:
            return self._grants.get(timeout=_GRANT_TIMEOUT_S)
        except queue.Empty:
            if frame_bytes < _LARGE_FRAME_BYTES:
                raise TimeoutError("the supervisor made no room for frames") from None
            raise UserError(
                f"frames of {frame_bytes / 1e6:.0f} MB are too large: no shared memory was made for them within "
                f"{_GRANT_TIMEOUT_S:.0f} s; make the pictures smaller, or engine.slots"
            ) from None

    def _listen(self) -> None:
        parent = multiprocessing.parent_process()
        watched: list[Any] = [self._connection] + ([parent.sentinel] if parent else [])
        try:
            while self._connection in wait(watched):
                message = _to_worker.decode(self._connection.recv_bytes())
                if isinstance(message, GrantRing):
                    self._grants.put(message.name)
                else:
                    self._messages.put(message)
        except (EOFError, OSError):
            pass  # the supervisor's end of the pipe is closed: it has gone
        self._orphaned.set()
        self._messages.put(Stop())
        threading.Event().wait(_GRACE_S)
        self._last_will()
        os._exit(1)
