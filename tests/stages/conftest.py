"""What several tests of stages share is imported by its name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reading import make_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "clip.mp4", [0, 40, 100, 110, 300, 340, 380, 420, 460, 500])
