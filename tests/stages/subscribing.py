"""What publishes, and any ZeroMQ program that listens to it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import zmq
import zmq.auth

from engine.clock import now_ns
from engine.stage import Context
from stages.packets import ArnisPacket


def packet(sequence: int = 0, **changes: Any) -> ArnisPacket:
    made = ArnisPacket(stream="0", sequence=sequence, pts=sequence / 30, captured_at_ns=now_ns(), status="no_person")
    return msgspec.structs.replace(made, **changes)


def context(restarts: int = 0, resumes: bool | None = None) -> Context:
    return Context(streams=["0"], frames=None, restarts=restarts,  # type: ignore[arg-type]
                   resumes=restarts > 0 if resumes is None else resumes,
                   request_stop=lambda: None, health=lambda: {"fps_out": 30.0})  # fmt: skip


class Subscriber:
    """What any ZeroMQ program does to listen."""

    def __init__(self, url: str, *topics: str, **options: Any) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        for name, value in options.items():
            setattr(self._socket, name, value)
        self._socket.connect(url)
        for topic in topics:
            self._socket.subscribe(topic)

    def receive(self, timeout_s: float = 5.0, serve: Any = lambda: None, only: str = "") -> tuple[str, bytes]:
        """One message, `only` of a topic that begins so: health may come at any time. `serve` lets the publishing side
        work meanwhile. Raises TimeoutError."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            serve()
            if self._socket.poll(20):
                message = self._socket.recv()
                assert isinstance(message, bytes)
                topic, _, payload = message.partition(b"\0")
                if topic.decode().startswith(only):
                    return topic.decode(), payload
        raise TimeoutError("no message")

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()


def idle(stage: Any) -> Any:
    return lambda: stage.idle(now_ns())
