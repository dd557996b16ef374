"""What several tests of stages share is imported by its name."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reading import make_video
from subscribing import context

from stages.publish import Publish
from stages.publisher import PublishSettings


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "clip.mp4", [0, 40, 100, 110, 300, 340, 380, 420, 460, 500])


@pytest.fixture
def url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def publish(url: str) -> Iterator[Publish]:
    stage = Publish(PublishSettings(url=url))
    stage.open(context())
    yield stage
    stage.close()
