"""What tests of several folders share."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

sys.path.insert(0, str(Path(__file__).parent))

from program_runs import OUTPUT, make_clip, write_config


class Publisher:
    """Something to subscribe to."""

    def __init__(self, curve: tuple[bytes, bytes | None] | None = None) -> None:
        """`curve`: public and secret key, for those only who know the former."""
        self.socket: zmq.Socket[Any] = zmq.Context.instance().socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        if curve is not None:
            self.socket.curve_publickey, self.socket.curve_secretkey = curve
            self.socket.curve_server = True
        self.url = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"

    def wait_for_subscriptions(self, count: int) -> None:
        while count:
            assert self.socket.poll(10_000)
            count -= self.socket.recv()[:1] == b"\x01"  # else somebody has left

    def send(self, topic: str, payload: bytes) -> None:
        self.socket.send(topic.encode() + b"\0" + payload)


@pytest.fixture
def make_publisher() -> Iterator[Callable[..., Publisher]]:
    """Makes a `Publisher`, which is closed at the end."""
    with ExitStack() as stack:

        def make(curve: tuple[bytes, bytes | None] | None = None) -> Publisher:
            publisher = Publisher(curve)
            stack.callback(publisher.socket.close)
            return publisher

        yield make


@pytest.fixture
def publisher(make_publisher: Callable[..., Publisher]) -> Publisher:
    return make_publisher()


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration without models."""
    return write_config(tmp_path_factory.mktemp("config") / "light.toml", gate=["gate:MotionGate"], output=OUTPUT)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of 160x120 at 10 FPS, in which a square moves."""
    return make_clip(tmp_path_factory.mktemp("clip") / "square.mkv", frames=30)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
