"""What the program is meant to reach, beside what a run measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from benchmarks.figures import Part, Row, Value, ratio
from benchmarks.overload import BOUND_MS

Look = Callable[[Sequence[Part]], Value]


class Aim(msgspec.Struct, frozen=True):
    """One figure and its bound."""

    text: str
    sense: Literal["at most", "at least"]
    bound: float
    look: Look

    def row(self, measured: float) -> Row:
        met = measured <= self.bound if self.sense == "at most" else measured >= self.bound
        wanted = f"{self.sense} {self.bound:g}"
        return {"aim": self.text, "wanted": wanted, "measured": measured, "met": "yes" if met else "no"}


def of_way(column: str, way: str) -> Look:
    """A column of a row of the part `program`."""
    return lambda parts: _row(parts, "program", way=way).get(column)


def between(column: str, way: str, reference: str) -> Look:
    """A column of one way to run the program, as a share of another way's."""
    return lambda parts: ratio(of_way(column, way)(parts), of_way(column, reference)(parts))


def batch_gain(parts: Sequence[Part]) -> Value:
    """Items a second of the pose classifier at batch 16 as a share of batch 1, on the runtime where it gains most."""
    gains = []
    for runtime in ("onnxruntime", "openvino"):
        of = {"network": "geopose", "runtime": runtime, "precision": "f32", "threads": 1}
        many, one = (_row(parts, "networks", batch=batch, **of).get("items_per_s") for batch in (16, 1))
        gains.append(ratio(many, one) or 0.0)
    return max(gains) or None


AIMS = (
    Aim("30 fps, 720p: capture to published, p50 in ms", "at most", 20, of_way("p50_ms", "30 fps")),
    Aim("the same, p95", "at most", 30, of_way("p95_ms", "30 fps")),
    Aim("the same, p99", "at most", 45, of_way("p99_ms", "30 fps")),
    Aim("our own share: frames that the gate skips, capture to the result being ready, p50 in ms", "at most", 3,
        of_way("skipped_p50_ms", "30 fps")),
    Aim("frames dropped of 1,065 at 30 fps", "at most", 0, of_way("dropped", "30 fps")),
    Aim("holds named of the demo's 12", "at least", 10, of_way("named", "30 fps")),
    Aim("FPS as fast as it goes", "at least", 40, of_way("fps", "fast")),
    Aim("gate off: share of the networks' bare throughput", "at least", 0.95, of_way("of_bare", "fast, gate off")),
    Aim("the same, recording", "at least", 0.85, of_way("of_bare", "fast, gate off, recording")),
    Aim("recording: share of the throughput without", "at least", 0.85,
        between("fps", "fast, gate off, recording", "fast, gate off")),
    Aim("gate on: throughput by that of gate off", "at least", 2, between("fps", "fast", "fast, gate off")),
    Aim("gate on: processor time a frame by that of gate off, 30 fps", "at most", 0.5,
        between("cpu_ms_per_frame", "30 fps", "30 fps, gate off")),
    Aim("frame hop between processes at 1080p, p50 in ms", "at most", 0.25,
        lambda parts: _row(parts, "hop", way="our ring", size="1080p").get("p50_ms")),
    Aim("source twice as fast as the pipeline: age p99 in ms", "at most", BOUND_MS,
        lambda parts: _row(parts, "overload", policy="latest").get("age_p99_ms")),
    Aim("the same: growth of memory in MB", "at most", 5,
        lambda parts: _row(parts, "overload", policy="latest").get("memory_growth_mb")),
    Aim("eight 10-fps streams: the slowest's share of the mean", "at least", 0.9,
        of_way("slowest_stream", "8 x 10 fps")),
    Aim("classifier: items a second at batch 16 by those at batch 1", "at least", 4, batch_gain),
    Aim("from the command to the first result in s", "at most", 3, of_way("first_result_s", "30 fps")),
    Aim("memory with one 720p stream in MB", "at most", 600, of_way("memory_mb", "30 fps")),
)  # fmt: skip


def compare_with_aims(parts: Sequence[Part]) -> Part | None:
    """A row for each aim of which something was measured; None when there is none."""
    found = ((aim, aim.look(parts)) for aim in AIMS)
    rows = [aim.row(value) for aim, value in found if isinstance(value, int | float)]
    return Part(name="aims", title="Aims", rows=rows) if rows else None


def _row(parts: Sequence[Part], part: str, **values: Value) -> Row:
    """The first row of a part that has these values; empty when there is none."""
    rows = (row for p in parts if p.name == part for row in p.rows)
    return next((row for row in rows if all(row.get(key) == value for key, value in values.items())), {})
