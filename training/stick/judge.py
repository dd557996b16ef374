"""All figures of a new stick detector for its card, and the presence from which its stick counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from training.stick import evaluate
from training.stick.clips import HELD_OUT
from training.stick.evaluate import Model, Seen
from training.stick.sheet import picture_sheet


def judge(
    model: Model, file: Path, val: Sequence[Seen], test: Sequence[Seen], clips: Sequence[Path], sheet: Path,
    limit: int = 0, threshold: float | None = None,
) -> tuple[float, dict[str, Any]]:  # fmt: skip
    """Threshold (chosen on the val people, unless it is given) and figures, on the test people and the clips; a sheet
    of test pictures is written to `sheet`. `file` is the ONNX file behind `model`, for its times."""
    metrics = dict[str, Any]()
    if threshold is None:
        threshold = evaluate.choose_threshold(evaluate.outcomes(model, val)) if val else 0.5
    if outcomes := evaluate.outcomes(model, test):
        metrics["test"] = evaluate.summarise(outcomes, threshold)
        metrics["test_by_view"] = evaluate.by_view(outcomes, threshold)
        cv2.imwrite(str(sheet), picture_sheet(outcomes, threshold))
    if clips:
        presence = evaluate.clip_presence(model, clips)
        metrics["false_rate_on_clips_without_stick"] = evaluate.false_rates(presence, threshold)
        metrics |= drawn_figures(model, [clip for clip in clips if clip.stem in HELD_OUT], threshold, limit)
    metrics["aims"] = evaluate.aims(metrics.get("test", {}), metrics.get("false_rate_on_clips_without_stick", {}))
    return threshold, metrics | evaluate.times(file)


def drawn_figures(model: Model, clips: Sequence[Path], threshold: float, limit: int) -> dict[str, Any]:
    """Figures of sticks drawn into real clips, of all and by clip; none where no hand is seen."""
    outcomes = evaluate.drawn_outcomes(model, clips, limit or evaluate.DRAWN_PER_CLIP)
    if not outcomes:
        return {}
    by_clip = evaluate.by_view(outcomes, threshold)
    return {"drawn_into_clips": evaluate.summarise(outcomes, threshold), "drawn_by_clip": by_clip}
