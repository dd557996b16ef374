"""What the person in the demo clip, or in a film like it, does, and how much of it a run named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from benchmarks.running import free_url
from engine.errors import UserError
from stages.classes import load_classes, models_folder

QUIET = ("--view", "none", "--publish", "off")
GATE_OFF = ("--set", "gate.motion=false")
"""Every frame is detected."""


class Hold(msgspec.Struct, frozen=True):
    """One held pose; frames count from 0, both ends belong to the hold."""

    label: str
    first_frame: int
    last_frame: int


class Truth(msgspec.Struct, frozen=True):
    """What a rendered person does, as the renderer wrote it down."""

    frames: int
    fps: float
    holds: list[Hold]


def load_truth(file: Path | None = None) -> Truth:
    """The file beside a film, else beside the clip. Raises UserError for another kind of file."""
    try:
        return msgspec.json.decode((file or models_folder() / "demo.json").read_bytes(), type=Truth)
    except (OSError, msgspec.MsgspecError) as error:
        mend = "make it with `arnis-train synth films`"
        raise UserError(f"{file} does not tell what a film shows ({error}); {mend}") from None


def load_holds() -> list[Hold]:
    """The twelve held poses of the demo clip, without the neutral ones."""
    neutral = load_classes().neutral
    return [hold for hold in load_truth().holds if hold.label != neutral]


def published() -> list[str]:
    """Arguments that publish as in live use, but on a port that is free, and show no window."""
    return ["--view", "none", "--publish", free_url(), "--set", "publish.frames_url=off"]


def named_share(results: list[dict[str, Any]], hold: Hold) -> float:
    """Share of a hold's frames whose result is the right pose, accepted (`ok` or `held`)."""
    return named_in(results, hold).count(hold.label) / (hold.last_frame - hold.first_frame + 1)


def named_in(results: list[dict[str, Any]], hold: Hold) -> list[str]:
    """The pose that is accepted in each frame of a hold (`ok` or `held`); empty where none is."""
    return [told[0] if len(told) == 1 else "" for told in told_in(results, hold)]


def told_in(results: list[dict[str, Any]], hold: Hold) -> list[tuple[str, ...]]:
    """The pose that is accepted in each frame of a hold, or the two of which it is said to be one; empty where neither
    is."""
    frames = [r for r in results if hold.first_frame <= r["sequence"] <= hold.last_frame and r["status"] != "end"]
    return [_told(r["pose"], r["status"] in ("ok", "held")) for r in frames]


def _told(pose: dict[str, Any] | None, accepted: bool) -> tuple[str, ...]:
    if pose is None or not (accepted or pose["alternative"]):
        return ()
    return (pose["label"],) if accepted else (pose["label"], pose["alternative"])


def named_holds(results: list[dict[str, Any]]) -> int:
    """How many of the holds are named for most of their frames."""
    return sum(named_share(results, hold) > 0.5 for hold in load_holds())
