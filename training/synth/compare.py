"""Sets a data set, or poses that are only planned, beside the pose statistics: means, spread, stick per view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stages import skeleton as sk
from training.data.readers import read_any
from training.synth.plan import planned_person
from training.synth.rotations import Array
from training.synth.skeletons import VIEWS, statistics
from training.synth.solve import to_torso_units

END_ON_TORSO = 0.35


@dataclass(frozen=True)
class Row:
    """One class and view: differences in torso units and degrees, NaN where no stick tells them."""

    label: str
    view: str
    pictures: int
    body_mean: float
    body_worst: float
    worst_point: str
    spread_ratio: float
    missed: float
    """Share of pictures without a stick: those that a detector missed, in a table that `see` wrote."""
    wanted_missed: float
    """Share that a detector missed in the photographs of the statistics."""
    wanted_concentration: float
    concentration: float = np.nan
    """Mean resultant length of the stick's angle; 1: all alike."""
    grip: float = np.nan
    angle_deg: float = np.nan
    length: float = np.nan
    end_on: float = np.nan
    """Share of sticks shorter than END_ON_TORSO."""


def read_table(path: Path) -> list[tuple[str, str, Array]]:
    """Label name, view and keypoints (19, 3), NaN where missing, of every row, left-handers mirrored."""
    table = read_any(path)
    points = table.canonical().astype(float)
    points[~points.any(-1)] = np.nan
    return list(zip(table.labels.tolist(), table.canonical_views().tolist(), points, strict=True))


def planned_samples(people: int, per_person: int, seed: int) -> list[tuple[str, str, Array]]:
    """Label, view and keypoints (19, 3) of pictures as a data set would hold them, posed but not drawn."""
    return [sample for person in range(people) for sample in planned_person(per_person, seed, 1.0, person)]


def compare(samples: list[tuple[str, str, Array]]) -> list[Row]:
    """Differences of the mean of every class and view that the statistics know."""
    groups: dict[tuple[str, str], list[Array]] = {}
    for label, view, points in samples:
        if view in VIEWS and label in statistics():
            groups.setdefault((label, view), []).append(to_torso_units(points[:, :2]))
    return [_row(label, view, np.array(members)) for (label, view), members in sorted(groups.items())]


def _row(label: str, view: str, points: Array) -> Row:
    """Of points (N, 19, 2) in torso units."""
    s = statistics()[label][view]
    body = points[:, : sk.BODY_COUNT]
    error = np.linalg.norm(np.nanmean(body, axis=0) - np.array(s["body_mean"]), axis=1)
    worst = int(error.argmax())
    stick = points[:, sk.TIP] - points[:, sk.GRIP]
    stick = stick[np.isfinite(stick).all(1)]
    row = Row(
        label=label, view=view, pictures=len(points),
        body_mean=float(error.mean()), body_worst=float(error[worst]), worst_point=sk.KEYPOINT_NAMES[worst],
        spread_ratio=float(np.mean(np.nanstd(body, axis=0)) / np.mean(s["body_std"])),
        wanted_concentration=float(s.get("stick_angle_concentration", np.nan)),
        missed=1 - len(stick) / len(points), wanted_missed=1 - float(s["stick_found"]),
    )  # fmt: skip
    if "grip_mean" not in s or not len(stick):
        return row
    sizes = np.linalg.norm(stick, axis=1)
    grip = float(np.linalg.norm(np.nanmean(points[:, sk.GRIP], axis=0) - s["grip_mean"]))
    row = replace(row, grip=grip, end_on=float(np.mean(sizes < END_ON_TORSO)))
    shown = sizes >= END_ON_TORSO  # as a detector does, which misses the others
    if not shown.any():
        return row
    unit = stick[shown] / sizes[shown, None]
    mean_angle = np.degrees(np.arctan2(-unit[:, 1].mean(), unit[:, 0].mean()))
    return replace(
        row, angle_deg=float((mean_angle - s["stick_angle_deg"] + 180) % 360 - 180),
        concentration=float(np.hypot(*unit.mean(0))),
        length=float(np.median(sizes[shown]) - s["stick_length_quantiles"][2]),
    )  # fmt: skip


def format_rows(rows: list[Row]) -> str:
    """A plain table."""
    head = f"{'class':22} {'view':6} {'n':>5} {'body':>6} {'worst':>6} {'at':15} "
    head += f"{'grip':>6} {'angle':>7} {'length':>7} {'spread':>7} "
    head += f"{'gathered':>8} {'wanted':>6} {'end-on':>6} {'missed':>6} {'wanted':>6}"
    lines = [head]
    for r in rows:
        lines.append(
            f"{r.label:22} {r.view:6} {r.pictures:5d} {r.body_mean:6.3f} {r.body_worst:6.3f} {r.worst_point:15} "
            f"{r.grip:6.3f} {r.angle_deg:7.1f} {r.length:7.2f} {r.spread_ratio:7.2f} "
            f"{r.concentration:8.2f} {r.wanted_concentration:6.2f} {r.end_on:6.2f} "
            f"{r.missed:6.2f} {r.wanted_missed:6.2f}"
        )
    return "\n".join(lines)
