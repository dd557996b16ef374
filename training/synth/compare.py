"""Sets a data set beside the pose statistics: mean points, grip, stick angle and length per class and view."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from stages import skeleton as sk
from training.synth.pose import statistics
from training.synth.skeletons import VIEWS
from training.synth.solve import to_torso_units

Array = NDArray[np.float64]
LENGTH_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


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


def read_table(path: Path) -> list[tuple[str, str, Array]]:
    """Label name, view and keypoints (19, 3) of every row, left-handers mirrored to right-handers."""
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder of a data set")
    out = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            cells = [row[f"kp{k}_{a}"] for k in range(sk.NODE_COUNT) for a in ("x", "y", "conf")]
            points = np.array([float(c) if c else np.nan for c in cells]).reshape(sk.NODE_COUNT, 3)
            view = row["view"]
            if row["grip_hand"] == "left":
                points = points[sk.MIRROR]
                points[:, 0] = -points[:, 0]
                view = {"left": "right", "right": "left"}.get(view, view)
            out.append((row["label_name"], view, points))
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
        error = np.linalg.norm(points[:, : sk.BODY_COUNT].mean(0) - np.array(s["body_mean"]), axis=1)
        spread = float(np.mean(points[:, : sk.BODY_COUNT].std(0)) / np.mean(s["body_std"]))
        grip = angle = length = float("nan")
        stick = points[:, sk.TIP] - points[:, sk.GRIP]
        stick = stick[np.isfinite(stick).all(1)]
        if "grip_mean" in s and len(stick):
            grip = float(np.linalg.norm(np.nanmean(points[:, sk.GRIP], axis=0) - s["grip_mean"]))
            unit = stick / np.linalg.norm(stick, axis=1, keepdims=True)
            mean_angle = np.degrees(np.arctan2(-unit[:, 1].mean(), unit[:, 0].mean()))
            angle = float((mean_angle - s["stick_angle_deg"] + 180) % 360 - 180)
            length = float(np.median(np.linalg.norm(stick, axis=1)) - s["stick_length_quantiles"][2])
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
            )
        )
    return rows


def format_rows(rows: list[Row]) -> str:
    """A plain table."""
    head = f"{'class':22} {'view':6} {'n':>5} {'body':>6} {'worst':>6} {'at':15} "
    head += f"{'grip':>6} {'angle':>7} {'length':>7} {'spread':>7}"
    lines = [head]
    for r in rows:
        lines.append(
            f"{r.label:22} {r.view:6} {r.pictures:5d} {r.body_mean:6.3f} {r.body_worst:6.3f} {r.worst_point:15} "
            f"{r.grip:6.3f} {r.angle_deg:7.1f} {r.length:7.2f} {r.spread_ratio:7.2f}"
        )
    return "\n".join(lines)


def write_comparison(data: Path) -> Path:
    """Write `comparison.txt` beside the table of a data set and return its path."""
    path = data / "comparison.txt"
    text = format_rows(compare(read_table(data / "table.csv")))
    path.write_text(text + "\n")
    print(text)
    return path
