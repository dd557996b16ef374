"""Sets a data set, or poses that are only planned, beside the pose statistics: means, spread, stick per view."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages import skeleton as sk
from training.data.readers import read_any
from training.synth import picture
from training.synth.body import pose_body
from training.synth.pose import statistics
from training.synth.skeletons import VIEWS
from training.synth.solve import to_torso_units
from training.synth.write import drawable_classes, labels_of_person

Array = NDArray[np.float64]
END_ON_TORSO = 0.35


@dataclass(frozen=True)
class Row:
    """One class and view: differences in torso units and degrees."""

    label: str
    view: str
    pictures: int
    body_mean: float
    body_worst: float
    worst_point: str
    grip: float
    angle_deg: float
    spread_ratio: float
    length: float
    concentration: float  # mean resultant length of the stick's angle, 1 = all alike
    wanted_concentration: float
    end_on: float  # share of sticks shorter than END_ON_TORSO
    missed: float  # share of pictures without a stick: those that a detector missed, in a table that `see` wrote
    wanted_missed: float  # share that a detector missed in the photographs of the statistics


def read_table(path: Path) -> list[tuple[str, str, Array]]:
    """Label name, view and keypoints (19, 3), NaN where missing, of every row, left-handers mirrored."""
    table = read_any(path)
    points = table.canonical().astype(float)
    points[~points.any(-1)] = np.nan
    return list(zip(table.labels.tolist(), table.canonical_views().tolist(), points, strict=True))


def planned_samples(people: int, per_person: int, seed: int) -> list[tuple[str, str, Array]]:
    """Label, view and keypoints (19, 3) of pictures as a data set would hold them, posed but not drawn."""
    classes = drawable_classes()
    out = []
    for person in range(people):
        rng = np.random.default_rng([seed, person])
        rest = picture.random_rest(rng)
        for k, label in enumerate(labels_of_person(rng, per_person, classes)):
            own = np.random.default_rng([seed, person, k])
            plan = picture.plan_picture(own, rest, label, classes, picture.SIZES[0])
            pixels = plan.camera.project(pose_body(rest, plan.points, plan.wish).keypoints)
            out.append((label, plan.view, np.column_stack([pixels, np.ones(len(pixels))])))
    return out


def compare(samples: list[tuple[str, str, Array]]) -> list[Row]:
    """Differences of the mean of every class and view from the statistics."""
    groups: dict[tuple[str, str], list[Array]] = {}
    for label, view, points in samples:
        if view in VIEWS:
            groups.setdefault((label, view), []).append(to_torso_units(points[:, :2]))
    rows = []
    for (label, view), members in sorted(groups.items()):
        s = statistics()[label][view]
        points = np.array(members)
        error = np.linalg.norm(np.nanmean(points[:, : sk.BODY_COUNT], axis=0) - np.array(s["body_mean"]), axis=1)
        spread = float(np.mean(np.nanstd(points[:, : sk.BODY_COUNT], axis=0)) / np.mean(s["body_std"]))
        grip = angle = length = gathered = end_on = float("nan")
        stick = points[:, sk.TIP] - points[:, sk.GRIP]
        stick = stick[np.isfinite(stick).all(1)]
        missed = 1 - len(stick) / len(points)
        if "grip_mean" in s and len(stick):
            grip = float(np.linalg.norm(np.nanmean(points[:, sk.GRIP], axis=0) - s["grip_mean"]))
            sizes = np.linalg.norm(stick, axis=1, keepdims=True)
            end_on = float(np.mean(sizes < END_ON_TORSO))
            shown = sizes[:, 0] >= END_ON_TORSO  # as a detector does, which misses the others
            if shown.any():
                unit = (stick / sizes)[shown]
                mean_angle = np.degrees(np.arctan2(-unit[:, 1].mean(), unit[:, 0].mean()))
                angle = float((mean_angle - s["stick_angle_deg"] + 180) % 360 - 180)
                gathered = float(np.hypot(*unit.mean(0)))
                length = float(np.median(sizes[shown]) - s["stick_length_quantiles"][2])
        worst = int(error.argmax())
        rows.append(
            Row(
                label,
                view,
                len(points),
                float(error.mean()),
                float(error[worst]),
                sk.KEYPOINT_NAMES[worst],
                grip,
                angle,
                spread,
                length,
                gathered,
                float(s.get("stick_angle_concentration", np.nan)),
                end_on,
                missed,
                1 - float(s["stick_found"]),
            )
        )
    return rows


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


def write_comparison(data: Path) -> Path:
    """Write `comparison.txt` beside the table of a data set and return its path."""
    path = data / "comparison.txt"
    text = format_rows(compare(read_table(data)))
    path.write_text(text + "\n")
    print(text)
    return path


def print_plan_comparison(people: int, per_person: int, seed: int) -> None:
    """Compare pictures that are only planned: as good as a data set for the keypoints, in a fraction of the time."""
    print(format_rows(compare(planned_samples(people, per_person, seed))))
