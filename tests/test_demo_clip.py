"""The shipped demo clip and its list of holds agree."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from stages.classes import load_classes, models_folder

CLIP = models_folder() / "demo.mp4"
HOLDS = models_folder() / "demo.json"


@pytest.fixture(scope="module")
def text() -> dict[str, object]:
    loaded: dict[str, object] = json.loads(HOLDS.read_text())
    return loaded


def test_the_clip_is_small_enough_to_ship_and_plays_everywhere(text: dict[str, object]) -> None:
    assert Path(CLIP).stat().st_size <= 5_000_000
    with av.open(str(CLIP)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (1280, 720)
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.frames == text["frames"]


def test_every_pose_is_held_once_between_two_neutral_holds(text: dict[str, object]) -> None:
    holds = text["holds"]
    assert isinstance(holds, list)
    labels = [h["label"] for h in holds]
    assert labels[0] == labels[-1] == "neutral"
    assert sorted(labels[1:-1]) == sorted(n for n in load_classes().names if n != "neutral")
    assert all(a["last_frame"] < b["first_frame"] for a, b in zip(holds, holds[1:], strict=False))
