"""What the whole program names in films of sessions (`arnis-train synth films`), hold by hold, and how soon."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.demo import QUIET, Hold, Truth, load_truth, named_in
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
    another: bool
    """Another pose, for LASTING_S."""
    after_s: float | None
    """From its first frame until the pose is named; None: never."""


def measure(session: Session, folder: Path) -> Part:
    """Every film of the folder, as fast as it goes. Raises UserError where there is none."""
    films = sorted(file for file in folder.glob("*.json") if file.with_suffix(".mp4").is_file())
    if not films:
        raise UserError(f"--films {folder} holds no film with its .json; draw some with `arnis-train synth films`")
    holds: list[Seen] = []
    between: list[bool] = []
    for number, film in enumerate(films, 1):
        session.say(f"film {number} of {len(films)}")
        truth = load_truth(film)
        run = run_program(["--source", str(film.with_suffix(".mp4")), *QUIET], session.folder)
        holds += [look_at(run.results, hold, truth.fps) for hold in truth.holds]
        between += named_on_the_way(run.results, truth)
    neutral = load_classes().neutral
    poses = [hold for hold in holds if hold.label != neutral]
    rows = [row(label, [hold for hold in holds if hold.label == label]) for label in load_classes().names]
    return Part(
        name="films",
        title=f"What is named in {len(films)} films of sessions",
        rows=[row for row in [*rows, row(ALL, poses)] if row["holds"]],
        notes=[f"Of {len(between)} frames between holds, {sum(between)} name a pose that is neither before nor after."],
        chart=Chart(labels=("pose",), value="named_share"),
    )


def look_at(results: list[dict[str, Any]], hold: Hold, fps: float) -> Seen:
    """What the results of a film say of one of its holds."""
    named, neutral = named_in(results, hold), load_classes().neutral
    others = sum(label not in ("", hold.label, neutral) for label in named)
    after_s = round(named.index(hold.label) / fps, 2) if hold.label in named else None
    return Seen(hold.label, named.count(hold.label) > len(named) / 2, others >= LASTING_S * fps, after_s)


def named_on_the_way(results: list[dict[str, Any]], truth: Truth) -> list[bool]:
    """For each frame between two holds, whether it names a pose that is neither of the two."""
    neutral, out = load_classes().neutral, []
    for before, after in pairwise(truth.holds):
        way = Hold("", before.last_frame + 1, after.first_frame - 1)
        out += [label not in ("", before.label, after.label, neutral) for label in named_in(results, way)]
    return out


def row(pose: str, holds: list[Seen]) -> Row:
    """Holds of one pose, or of all, in numbers."""
    after_s = [hold.after_s for hold in holds if hold.after_s is not None]
    return {
        "pose": pose, "holds": len(holds), "named": sum(hold.named for hold in holds),
        "named_share": ratio(sum(hold.named for hold in holds), len(holds)),
        "another": sum(hold.another for hold in holds),
        "named_after_p50_s": statistics.median(after_s) if after_s else None,
    }  # fmt: skip
