"""How well a stick model finds grip and tip on pictures of unseen people, and how often it sees a stick where none is.

The crop comes from the body detector's keypoints, as when serving, not from the true ones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from engine.clock import NS_PER_MS, now_ns
from stages.detectors import Runtime
from stages.runtime import Backend, Network, load_network
from stages.skeleton import GRIP, TIP
from stages.stick_crop import extract_crop, from_crop, stick_crop
from training.stick.clips import HELD_OUT, body_detector, frames_with_person
from training.stick.data import MIN_VISIBLE_TORSO, Row, read_picture, read_table, visible_length

log = logging.getLogger(__name__)

FOUND_WITHIN = 0.15
"""An end counts as found within this share of the stick's length in the picture."""
_ALLOWED_FALSE_RATE = 0.02
_LEAST_THRESHOLD, _MOST_THRESHOLD = 0.4, 0.9


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture: float32 (2, 3) grip and tip in pixels with scores, and presence 0..1."""

    points: np.ndarray
    presence: float


@dataclass(frozen=True)
class Outcome:
    """An answer beside the truth; errors in lengths of the stick in the picture, NaN when there is nothing to find."""

    row: Row
    answer: Answer
    visible: bool
    """True: both ends in the picture and not end-on. False for pictures without a stick; others are not listed."""
    grip_error: float
    tip_error: float
    angle_error_deg: float


class StickModel:
    """A heatmap ONNX file behind `(picture, keypoints) -> Answer`."""

    def __init__(self, file: Path, backend: Backend = "onnxruntime", threads: int = 2) -> None:
        self.network: Network = load_network(file, backend, threads)
        self.size_px = self.network.inputs[0].shape[1]

    def __call__(self, image_bgr: np.ndarray, keypoints: np.ndarray) -> Answer:
        """image: uint8 (H, W, 3); keypoints: (17, 3) in its pixels."""
        crop = stick_crop(keypoints, image_bgr.shape[1], image_bgr.shape[0])
        cut = extract_crop(image_bgr, crop, self.size_px)[None, ..., ::-1]
        points, presence = self.network(np.ascontiguousarray(cut))
        placed = points[0].copy()
        placed[:, :2] = from_crop(points[0, :, :2], crop)
        return Answer(placed, float(presence[0]))


def outcomes_of(model: Any, table: Path, split: str, limit: int = 0) -> list[Outcome]:
    """Answers for the pictures of one split (the first `limit` when it is not 0) in which a person is found."""
    rows = [r for r in read_table(table) if r.split == split and r.path.is_file()]
    if limit and len(rows) > limit:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, limit).astype(int)]
    finder = body_detector()
    outcomes, lost = [], 0
    for row in tqdm(rows, f"judge {split}", disable=None):
        image = read_picture(row.path)
        if not _judgeable(row.keypoints, image.shape[1], image.shape[0]):
            continue
        found = finder.detect(image, None, "", 0.0)
        if found:
            outcomes.append(_outcome(row, model(image, found[0].keypoints)))
        else:
            lost += 1
    log.info("%s: %d pictures judged, in %d no person was found", split, len(outcomes), lost)
    return outcomes


def _judgeable(keypoints: np.ndarray, width: int, height: int) -> bool:
    """False for a stick that points at the lens or has an end outside the picture: neither there nor absent."""
    ends = keypoints[[GRIP, TIP], :2]
    if np.isnan(ends).any():
        return bool(np.isnan(ends).all())
    return bool((ends >= 0).all() and (ends < (width, height)).all() and visible_length(keypoints) >= MIN_VISIBLE_TORSO)


def _outcome(row: Row, answer: Answer) -> Outcome:
    truth = row.keypoints[[GRIP, TIP], :2].astype(np.float64)
    if not np.isfinite(truth).all():
        return Outcome(row, answer, False, np.nan, np.nan, np.nan)
    length = float(np.linalg.norm(truth[1] - truth[0]))
    errors = np.linalg.norm(answer.points[:, :2] - truth, axis=1) / length
    seen, true = answer.points[1, :2] - answer.points[0, :2], truth[1] - truth[0]
    turn = np.degrees(np.arctan2(seen[1], seen[0]) - np.arctan2(true[1], true[0]))
    return Outcome(row, answer, True, float(errors[0]), float(errors[1]), float(abs((turn + 180) % 360 - 180)))


def choose_threshold(outcomes: Sequence[Outcome]) -> float:
    """Least presence, from 0.4 to 0.9, at which at most 2 % of the pictures without a stick count as having one."""
    empty = np.array([o.answer.presence for o in outcomes if not o.visible])
    if not len(empty):
        return _LEAST_THRESHOLD
    allowed = float(np.quantile(empty, 1 - _ALLOWED_FALSE_RATE)) + 0.01
    return round(float(np.clip(allowed, _LEAST_THRESHOLD, _MOST_THRESHOLD)), 2)


def summarise(outcomes: Sequence[Outcome], threshold: float) -> dict[str, float]:
    """Figures at a threshold; rates 0..1, errors in stick lengths in the picture or degrees."""
    there = [o for o in outcomes if o.visible]
    empty = [o for o in outcomes if not o.visible]
    grip, tip = np.array([o.grip_error for o in there]), np.array([o.tip_error for o in there])
    angle = np.array([o.angle_error_deg for o in there])
    said = np.array([o.answer.presence >= threshold for o in there])
    near = (grip < FOUND_WITHIN) & (tip < FOUND_WITHIN)
    figures = {
        "pictures_with_stick": len(there),
        "pictures_without_stick": len(empty),
        "found_rate": float((said & near).mean()),
        "grip_found_rate": float((said & (grip < FOUND_WITHIN)).mean()),
        "tip_found_rate": float((said & (tip < FOUND_WITHIN)).mean()),
        "reported_rate": float(said.mean()),
        "found_of_reported": float(near[said].mean()) if said.any() else 0.0,
        "median_grip_error": float(np.median(grip)),
        "median_tip_error": float(np.median(tip)),
        "median_angle_error_deg": float(np.median(angle)),
        "mean_angle_error_deg": float(angle.mean()),
        "ends_swapped_rate": float((angle > 150).mean()),
        "false_rate": float(np.mean([o.answer.presence >= threshold for o in empty])) if empty else 0.0,
    }
    return {name: round(value, 4) for name, value in figures.items()}


def by_view(outcomes: Sequence[Outcome], threshold: float) -> dict[str, dict[str, float]]:
    """`summarise` for each view apart."""
    views = sorted({o.row.view for o in outcomes if o.visible})
    return {v: summarise([o for o in outcomes if o.row.view == v], threshold) for v in views}


def clip_presence(model: Any, clips: Sequence[Path]) -> dict[str, np.ndarray]:
    """Presence in every frame with a person, by clip; -1 where nobody is found."""
    finder = body_detector()
    answers = {}
    for clip in clips:
        seen = [
            -1.0 if keypoints is None else model(frame, keypoints).presence
            for frame, keypoints in frames_with_person(clip, finder)
        ]
        answers[clip.stem] = np.array(seen)
    return answers


def false_rates(presence: dict[str, np.ndarray], threshold: float) -> dict[str, float]:
    """Share of frames in which a stick is reported: each clip, all, those held out of training and the others."""
    rates = {name: float((p >= threshold).mean()) for name, p in presence.items()}
    groups = {
        "all_clips": list(presence),
        "held_out_clips": [n for n in presence if n in HELD_OUT],
        "seen_clips": [n for n in presence if n not in HELD_OUT],
    }
    for name, members in groups.items():
        if members:
            rates[name] = float((np.concatenate([presence[m] for m in members]) >= threshold).mean())
    return {name: round(rate, 4) for name, rate in rates.items()}


def milliseconds_per_crop(file: Path, backend: Backend, threads: int = 2, runs: int = 200) -> dict[str, float]:
    """Median and least time of one crop in ms, after a warm-up."""
    network = Runtime(backend=backend, threads=threads).load(file)
    size = network.inputs[0].shape[1]
    crop = np.random.default_rng(0).integers(0, 255, (1, size, size, 3), np.uint8)
    times = []
    for _ in range(runs + 20):
        started = now_ns()
        network(crop)
        times.append((now_ns() - started) / NS_PER_MS)
    return {"median_ms": round(float(np.median(times[20:])), 2), "least_ms": round(min(times[20:]), 2)}


def draw(image: np.ndarray, answer: Answer, threshold: float, truth: np.ndarray | None = None) -> np.ndarray:
    """A copy with the answer drawn (green, grey under the threshold) and the true ends as white rings."""
    canvas = image.copy()
    colour = (60, 220, 60) if answer.presence >= threshold else (150, 150, 150)
    grip, tip = (tuple(int(round(float(c))) for c in p[:2]) for p in answer.points)
    cv2.line(canvas, grip, tip, colour, 2, cv2.LINE_AA)
    cv2.circle(canvas, tip, 5, (40, 40, 255), -1, cv2.LINE_AA)
    cv2.circle(canvas, grip, 4, (255, 120, 0), -1, cv2.LINE_AA)
    if truth is not None and np.isfinite(truth).all():
        for point in truth:
            cv2.circle(canvas, tuple(int(round(float(c))) for c in point[:2]), 8, (255, 255, 255), 1, cv2.LINE_AA)
    label = f"{answer.presence:.2f} g{answer.points[0, 2]:.2f} t{answer.points[1, 2]:.2f}"
    cv2.putText(canvas, label, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 255, 255), 2)
    return canvas


def sheet(pictures: Sequence[np.ndarray], columns: int = 6, cell_px: int = 300) -> np.ndarray:
    """Pictures side by side, each fitted into a square cell."""
    cells = []
    for picture in pictures:
        scale = cell_px / max(picture.shape[:2])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cell = np.zeros((cell_px, cell_px, 3), np.uint8)
        cell[: small.shape[0], : small.shape[1]] = small[:cell_px, :cell_px]
        cells.append(cell)
    cells += [np.zeros((cell_px, cell_px, 3), np.uint8)] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def picture_sheet(outcomes: Sequence[Outcome], threshold: float, count: int = 36, seed: int = 0) -> np.ndarray:
    """A random sheet of judged pictures."""
    chosen = np.random.default_rng(seed).permutation(len(outcomes))[:count]
    pictures = []
    for i in chosen:
        row = outcomes[i].row
        image = read_picture(row.path)
        pictures.append(draw(image, outcomes[i].answer, threshold, row.keypoints[[GRIP, TIP], :2]))
    return sheet(pictures)
