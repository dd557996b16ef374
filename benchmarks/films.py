"""What the whole program names in films of sessions (`arnis-train synth films`), hold by hold, and how soon."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.demo import QUIET, Hold, Truth, load_truth, told_in
from benchmarks.figures import Chart, Part, Row, Session, ratio
from benchmarks.running import run_program
from engine.errors import UserError
from stages.classes import load_classes

LASTING_S = 0.3
"""For so long another pose must be named in a hold to count: what is shorter hardly anybody reads."""
ALL = "all twelve"


class Seen(msgspec.Struct, frozen=True):
    """What the program made of one hold."""

    label: str
    named: bool
    """The pose, for most of its frames."""
    told: bool
    """The pose alone, or as one of two, for most of its frames."""
    another: bool
    """Another pose, for LASTING_S."""
    two_others: bool
    """Two other poses of which it were one, for LASTING_S."""
    after_s: float | None
    """From its first frame until the pose is named; None: never."""


def measure(session: Session, folder: Path) -> Part:
    """Every film of the folder, as fast as it goes. Raises UserError where there is none."""
    films = sorted(file for file in folder.glob("*.json") if file.with_suffix(".mp4").is_file())
    if not films:
        raise UserError(f"--films {folder} holds no film with its .json; draw some with `arnis-train synth films`")
    holds: list[Seen] = []
    between: list[int] = []
    for number, film in enumerate(films, 1):
        session.say(f"film {number} of {len(films)}")
        truth = load_truth(film)
        run = run_program(["--source", str(film.with_suffix(".mp4")), *QUIET], session.folder)
        holds += [look_at(run.results, hold, truth.fps) for hold in truth.holds]
        between += told_on_the_way(run.results, truth)
    neutral = load_classes().neutral
    poses = [hold for hold in holds if hold.label != neutral]
    rows = [row(label, [hold for hold in holds if hold.label == label]) for label in load_classes().names]
    return Part(
        name="films",
        title=f"What is named in {len(films)} films of sessions",
        rows=[row for row in [*rows, row(ALL, poses)] if row["holds"]],
        notes=[f"Of {len(between)} frames between holds, {between.count(1)} name a pose that is neither before nor "
               f"after, {between.count(2)} say that it is one of two such."],
        chart=Chart(labels=("pose",), value="named_share"),
    )


def look_at(results: list[dict[str, Any]], hold: Hold, fps: float) -> Seen:
    """What the results of a film say of one of its holds."""
    frames, alone, neutral = told_in(results, hold), (hold.label,), load_classes().neutral
    wrong = [len(told) for told in frames if hold.label not in told and told != (neutral,)]
    return Seen(
        label=hold.label,
        named=frames.count(alone) > len(frames) / 2,
        told=sum(hold.label in told for told in frames) > len(frames) / 2,
        another=wrong.count(1) >= LASTING_S * fps,
        two_others=wrong.count(2) >= LASTING_S * fps,
        after_s=round(frames.index(alone) / fps, 2) if alone in frames else None,
    )


def told_on_the_way(results: list[dict[str, Any]], truth: Truth) -> list[int]:
    """For each frame between two holds, how many poses it tells, 1 or 2, of which none is one of the two; else 0."""
    neutral, out = load_classes().neutral, []
    for before, after in pairwise(truth.holds):
        way = Hold("", before.last_frame + 1, after.first_frame - 1)
        expected = {before.label, after.label, neutral}
        out += [len(told) if expected.isdisjoint(told) else 0 for told in told_in(results, way)]
    return out


def row(pose: str, holds: list[Seen]) -> Row:
    """Holds of one pose, or of all, in numbers."""
    after_s = [hold.after_s for hold in holds if hold.after_s is not None]
    return {
        "pose": pose, "holds": len(holds), "named": sum(hold.named for hold in holds),
        "named_share": ratio(sum(hold.named for hold in holds), len(holds)),
        "or_one_of_two": sum(hold.told for hold in holds), "another": sum(hold.another for hold in holds),
        "two_others": sum(hold.two_others for hold in holds),
        "named_after_p50_s": statistics.median(after_s) if after_s else None,
    }  # fmt: skip
