"""What the person in the demo clip does, and how much of it a run named."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.running import free_url
from stages.classes import load_classes, models_folder

QUIET = ("--view", "none", "--publish", "off")
GATE_OFF = ("--set", "gate.motion=false")
"""Every frame is detected."""


class Hold(msgspec.Struct, frozen=True):
    """One pose of the demo clip; frames count from 0, both ends belong to the hold."""

    label: str
    first_frame: int
    last_frame: int


class DemoTruth(msgspec.Struct, frozen=True):
    """What the person in the demo clip does, as the clip's renderer wrote it down."""

    frames: int
    fps: float
    holds: list[Hold]


def load_truth() -> DemoTruth:
    """The file beside the clip."""
    return msgspec.json.decode((models_folder() / "demo.json").read_bytes(), type=DemoTruth)


def load_holds() -> list[Hold]:
    """The twelve held poses of the demo clip, without the neutral ones."""
    neutral = load_classes().neutral
    return [hold for hold in load_truth().holds if hold.label != neutral]


def published() -> list[str]:
    """Arguments that publish as in live use, but on a port that is free, and show no window."""
    return ["--view", "none", "--publish", free_url(), "--set", "publish.frames_url=off"]


def named_share(results: list[dict[str, Any]], hold: Hold) -> float:
    """Share of a hold's frames whose result is the right pose, accepted (`ok` or `held`)."""
    frames = [r for r in results if hold.first_frame <= r["sequence"] <= hold.last_frame and r["status"] != "end"]
    right = [r for r in frames if r["status"] in ("ok", "held") and r["pose"]["label"] == hold.label]
    return len(right) / (hold.last_frame - hold.first_frame + 1)


def named_holds(results: list[dict[str, Any]]) -> int:
    """How many of the holds are named for most of their frames."""
    return sum(named_share(results, hold) > 0.5 for hold in load_holds())
