"""The comparison as people read it: Markdown, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.geopose.ablation import Outcome
from training.geopose.measure import interval_text, person_interval

_HEAD = ("variant", "top-1 (95 %)", "against the first", "top-2", "macro-F1", "kappa", "ECE", "accepted",
         "of those right", "training, s a fold", "ms a sample")  # fmt: skip
_ROW_PX, _LEFT_PX, _PLOT_PX = 26, 420, 560
_INK, _GREY, _BLUE = (40, 40, 40), (200, 200, 200), (180, 110, 30)


def write_comparison(outcomes: Sequence[Outcome], people: np.ndarray, groups: str, run: Path) -> str:
    """Write ablation.md, .json and .png into `run`; returns the Markdown."""
    rows = [_row(outcome, outcomes[0], people) for outcome in outcomes]
    text = (
        f"{_table(rows)}\n\nFolds are split by {groups}. An interval of the difference that holds 0 proves nothing.\n"
    )
    run.mkdir(parents=True, exist_ok=True)
    (run / "ablation.md").write_text(text)
    (run / "ablation.json").write_text(json.dumps({"groups": groups, "variants": rows}, indent=1))
    cv2.imwrite(str(run / "ablation.png"), draw(rows))
    return text


def _row(outcome: Outcome, base: Outcome, people: np.ndarray) -> dict[str, Any]:
    names = ("top1", "top1_interval_by_person", "top2", "macro_f1", "kappa", "ece", "coverage", "accepted_accuracy",
             "train_seconds_per_fold", "infer_ms_per_sample", "over_folds", "poses")  # fmt: skip
    figures = {name: outcome.figures[name] for name in names if name in outcome.figures}
    gain = float(outcome.right.mean() - base.right.mean())
    interval = person_interval(outcome.right.astype(float) - base.right, people, draws=1000)
    return {"variant": outcome.variant, **figures, "difference": gain, "difference_interval": interval}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + " --- |" * len(_HEAD)]
    for row in rows:
        against = f"{row['difference']:+.3f} ({interval_text(row['difference_interval'], '+.3f')})"
        top1 = f"{row['top1']:.3f} ({interval_text(row['top1_interval_by_person'])})"
        cells = [row["variant"], top1, "" if row is rows[0] else against]
        cells += [f"{row[n]:.3f}" for n in ("top2", "macro_f1", "kappa", "ece", "coverage")]
        cells.append(f"{row['accepted_accuracy']:.3f}" if row["coverage"] else "–")
        seconds = row["train_seconds_per_fold"]
        cells += ["" if seconds is None else f"{seconds:.0f}", f"{row['infer_ms_per_sample']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """uint8 BGR: a dot for each variant's top-1 and a line for its interval, over the range that all need."""
    # Without an interval the line is as long as the dot.
    lines = [row["top1_interval_by_person"] or (row["top1"], row["top1"]) for row in rows]
    lows, highs = zip(*lines, strict=True)
    least, most = np.floor(min(lows) * 20) / 20, np.ceil(max(highs) * 20) / 20
    height = _ROW_PX * (len(rows) + 2)
    picture = np.full((height, _LEFT_PX + _PLOT_PX + 40, 3), 255, np.uint8)

    def across(value: float) -> int:
        return int(_LEFT_PX + (value - least) / max(most - least, 1e-6) * _PLOT_PX)

    for value in np.arange(least, most + 1e-6, 0.05):
        cv2.line(picture, (across(value), _ROW_PX), (across(value), height - _ROW_PX), _GREY, 1)
        _write(picture, f"{value:.2f}", (across(value) - 14, height - 8))
    for number, row in enumerate(rows, 1):
        y = number * _ROW_PX + _ROW_PX // 2
        _write(picture, row["variant"][-58:], (8, y + 4))
        low, high = lines[number - 1]
        cv2.line(picture, (across(low), y), (across(high), y), _BLUE, 2, cv2.LINE_AA)
        cv2.circle(picture, (across(row["top1"]), y), 5, _BLUE, -1, cv2.LINE_AA)
    _write(picture, "top-1, 95 % interval", (8, 16))
    return picture


def _write(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
