"""`arnis-train detector --agree CLIPS`: how far a body detector agrees with MoveNet Thunder on real clips.

The fused model becomes the default only when 95 % of the keypoints that Thunder sees lie within 5 % of the body's
height of Thunder's; here that share is measured, as served: each detector follows the person in its own way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.cards import load_card
from stages.detect import choose_person, make_body_detector
from stages.detectors import BodyCandidate, BodyDetector, Runtime, box_around
from stages.skeleton import BODY_COUNT, KEYPOINT_NAMES
from training.stick.clips import REFERENCE, Follower, body_detector, clip_frames, step_for
from training.stick.composite import torso_px

log = logging.getLogger(__name__)

WITHIN = 0.05
"""Of the body's height: what still counts as the same place."""
NEEDED = 0.95
"""Share of the visible keypoints that must agree."""
VISIBLE = 0.3
"""Score from which a keypoint of the reference counts as visible."""
BODY_HEIGHT_TORSOS = 3.4
"""Shoulders are at 0.82 and hips at 0.53 of the body's height (Drillis and Contini 1966), however it bends."""


def keypoint_distances(reference: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """float (17,) distances in body heights; NaN where the reference is not visible, infinite where `other` is missing.

    reference, other: (17 or more, 3) x, y and score in the same pixels; `other` is None when nobody was found.
    """
    height_px = torso_px(reference) * BODY_HEIGHT_TORSOS
    distances = np.full(BODY_COUNT, np.nan)
    if height_px <= 0:
        return distances
    visible = np.isfinite(reference[:BODY_COUNT, 0]) & (reference[:BODY_COUNT, 2] >= VISIBLE)
    distances[visible] = np.inf
    if other is not None:
        there = visible & np.isfinite(other[:BODY_COUNT, 0])
        gaps = np.linalg.norm(reference[:BODY_COUNT, :2] - other[:BODY_COUNT, :2], axis=1) / height_px
        distances[there] = gaps[there]
    return distances


def as_truth(keypoints: np.ndarray) -> np.ndarray:
    """True keypoints (19, 3) of a render as a reference: what is hidden by the body itself is known too."""
    there = np.isfinite(keypoints[:, 0]) & (keypoints[:, 2] > 0)
    marked: np.ndarray = np.where(there[:, None], keypoints, np.array([np.nan, np.nan, 0.0]))
    return marked


def at_person(detector: BodyDetector, image: np.ndarray, keypoints: np.ndarray) -> BodyCandidate | None:
    """The person at these keypoints (17, 3), as the detector sees whom it follows."""
    person = BodyCandidate(keypoints, 1.0, box_around(keypoints, image.shape[1], image.shape[0]))
    return choose_person(detector.detect(image, person, "", 0.0), person)


def figures(distances: np.ndarray) -> dict[str, float]:
    """What distances (frames, 17) of `keypoint_distances` amount to: counts, rates 0..1, body heights."""
    counted = np.isfinite(distances) | np.isinf(distances)
    visible = distances[counted]
    frames = counted.any(1)
    placed = visible[np.isfinite(visible)]
    values = {
        "frames": int(frames.sum()),
        "nobody_found_rate": float((~np.isfinite(distances[frames])).all(1).mean()) if frames.any() else 0.0,
        "keypoints": len(visible),
        "missing_rate": float(np.isinf(visible).mean()) if len(visible) else 0.0,
        "agreeing_rate": float((visible <= WITHIN).mean()) if len(visible) else 0.0,
    }
    if len(placed):
        values["median_distance"] = float(np.median(placed))
        values["p95_distance"] = float(np.quantile(placed, 0.95))
    return {name: round(value, 4) for name, value in values.items()}


def worst_keypoint(distances: np.ndarray) -> tuple[str, float]:
    """Name of the keypoint that agrees least and the share in which it does, of distances (frames, 17)."""
    seen = ~np.isnan(distances)
    share = np.where(seen.any(0), (distances <= WITHIN).sum(0) / np.maximum(seen.sum(0), 1), 1.0)
    worst = int(share.argmin())
    return KEYPOINT_NAMES[worst], float(share[worst])


def open_body(model: str, runtime: Runtime) -> BodyDetector:
    """A body or fused detector of a shipped model's name, a model folder or a `.task` file; raises UserError."""
    fused = Path(model).suffix != ".task" and load_card(model)[0].task == "fused"
    return make_body_detector(model, runtime, fused)


def clip_distances(clip: Path, reference: BodyDetector, other: BodyDetector, frames: int = 0) -> np.ndarray:
    """Distances (frames, 17) on a clip, on about `frames` of its frames (0: all)."""
    step = step_for(clip, frames) if frames else 1
    theirs, ours = Follower(reference), Follower(other)
    rows = [np.empty((0, BODY_COUNT))]
    for time_s, frame in clip_frames(clip, step):
        wanted = theirs.look(time_s, frame)
        found = ours.look(time_s, frame, beside=wanted)
        if wanted is not None:
            rows.append(keypoint_distances(wanted.keypoints, None if found is None else found.keypoints)[None])
    return np.concatenate(rows)


def measure(model: str, clips: Sequence[Path], frames: int = 0, threads: int = 1) -> dict[str, np.ndarray]:
    """Distances of a body detector's keypoints to Thunder's, by clip."""
    reference = body_detector(threads)
    runtime = Runtime(backend="onnxruntime", threads=threads)
    distances = {}
    for clip in clips:  # opened anew: nothing is carried over from the clip before
        distances[clip.stem] = clip_distances(clip, reference, open_body(model, runtime), frames)
        log.info("%s: %s", clip.stem, figures(distances[clip.stem]))
    return distances


def report(model: str, distances: Mapping[str, np.ndarray], file: Path | None = None) -> str:
    """The table for the terminal; also written to `file` as JSON."""
    everything = np.concatenate(list(distances.values()))
    rows = {name: figures(values) for name, values in {**distances, "all": everything}.items()}
    lines = [f"{model} against {REFERENCE}: keypoints within {WITHIN:.0%} of the body's height"]
    lines.append(f"{'clip':<24}  frames  nobody  keypoints  missing  agreeing  median")
    for name, row in rows.items():
        rates = f"{row['nobody_found_rate']:6.3f}  {row['keypoints']:9.0f}  {row['missing_rate']:7.3f}"
        lines.append(
            f"{name:<24}  {row['frames']:6.0f}  {rates}  {row['agreeing_rate']:8.3f}  "
            f"{row.get('median_distance', float('nan')):6.4f}"
        )
    keypoint, share = worst_keypoint(everything)
    reached = rows["all"]["agreeing_rate"] >= NEEDED
    lines.append(f"least agreement: {keypoint} ({share:.3f}); {NEEDED:.0%} {'is' if reached else 'is not'} reached")
    if file is not None:
        summary = {"model": model, "reference": REFERENCE, "clips": rows, "reached": reached, "worst": keypoint}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(summary, indent=1) + "\n")
    return "\n".join(lines)
