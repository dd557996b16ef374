"""How well a stick model finds grip and tip on pictures of unseen people, and how often it sees a stick where none is.

The crop comes from the body detector's keypoints, as when serving, not from the true ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.detect import EVERY_LOOK
from stages.detectors import Runtime, open_model
from stages.detectors.stick import StickHeatmap
from stages.runtime import RUNTIMES, Network, load_network
from stages.sessions import trial_inputs
from stages.skeleton import GRIP, TIP
from stages.stick_crop import stick_crop
from training.stick.clips import (
    HELD_OUT,
    Follower,
    body_detector,
    clip_frames,
    frames_with_person,
    keypoints_finder,
    served_detector,
    step_for,
)
from training.stick.composite import add_stick
from training.stick.data import MIN_VISIBLE_TORSO, Row, is_somebody_else, read_picture, read_rows, visible_length
from training.stick_errors import SWAPPED_FROM_DEG, stick_errors
from training.timing import times_ms

log = logging.getLogger(__name__)

FOUND_WITHIN = 0.15
"""An end counts as found within this share of the stick's length in the picture."""
DRAWN_PER_CLIP = 150
"""Frames of a clip, spread over it, into which a stick is drawn to judge by."""
_TIMED_RUNS = 100
_ALLOWED_FALSE_RATE = 0.02
_LEAST_THRESHOLD, _MOST_THRESHOLD = 0.4, 0.95


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture: float32 (2, 3) grip and tip in pixels with scores, and presence 0..1."""

    points: np.ndarray
    presence: float


Model = Callable[[np.ndarray, np.ndarray], Answer]
"""A stick detector: picture uint8 (H, W, 3) BGR and keypoints (17, 3) in its pixels to its answer."""


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
    """A stick detector that looks at crops behind `(picture, keypoints) -> Answer`; a model folder or its name."""

    def __init__(self, model: str, threads: int = 2) -> None:
        self._detector = StickHeatmap(model, *open_model(model, Runtime("onnxruntime", threads), ["stick"]))

    def __call__(self, image_bgr: np.ndarray, keypoints: np.ndarray) -> Answer:
        """The surest of the looks that the program takes at somebody new; image: uint8 (H, W, 3); keypoints: (17, 3) in
        its pixels."""
        height, width = image_bgr.shape[:2]
        crops = dict.fromkeys(stick_crop(keypoints, width, height, hand) for hand in EVERY_LOOK)
        looks = (self._detector.look(image_bgr, keypoints, crop) for crop in crops)
        surest = max(looks, key=lambda candidate: candidate.score)
        return Answer(surest.points, surest.score)


@dataclass(frozen=True)
class Seen:
    """A row of the table with the keypoints (17, 3) that the body detector finds in its picture."""

    row: Row
    keypoints: np.ndarray


def seen_rows(table: Path, split: str = "", limit: int = 0) -> list[Seen]:
    """Rows of one split, or of all, in which the person is found and the stick is clearly there or absent; of `limit`
    rows spread over them, if it is given."""
    rows = [r for r in read_rows(table) if split in ("", r.split) and r.path.is_file()]
    if limit and len(rows) > limit:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, limit).astype(int)]
    find = keypoints_finder(served_detector())
    seen, lost, strangers = [], 0, 0
    for row in tqdm(rows, f"find people of {split or table}", disable=None):
        image = read_picture(row.path)
        if not _judgeable(row.keypoints, image.shape[1], image.shape[0]):
            continue
        found = find(image, str(row.path))
        if found is None:
            lost += 1
        elif is_somebody_else(found, row.keypoints):
            strangers += 1
        else:
            seen.append(Seen(row, found))
    counts = split or "all", len(seen), lost, strangers
    log.info("%s: %d pictures judged; in %d nobody was found, in %d a bystander", *counts)
    return seen


def outcomes(model: Model, seen: Sequence[Seen]) -> list[Outcome]:
    """Answers of `(picture, keypoints) -> Answer` beside the truth."""
    return [
        judge_answer(s.row, model(read_picture(s.row.path), s.keypoints))
        for s in tqdm(seen, "judge sticks", disable=None)
    ]


def _judgeable(keypoints: np.ndarray, width: int, height: int) -> bool:
    """False for a stick that points at the lens or has an end outside the picture: neither there nor absent."""
    ends = keypoints[[GRIP, TIP], :2]
    if np.isnan(ends).any():
        return bool(np.isnan(ends).all())
    return bool((ends >= 0).all() and (ends < (width, height)).all() and visible_length(keypoints) >= MIN_VISIBLE_TORSO)


def judge_answer(row: Row, answer: Answer) -> Outcome:
    """An answer beside the true ends of its row."""
    truth = row.keypoints[[GRIP, TIP], :2].astype(np.float64)
    if not np.isfinite(truth).all():
        return Outcome(row, answer, False, np.nan, np.nan, np.nan)
    errors = stick_errors(answer.points[None, :, :2], truth[None])
    return Outcome(row, answer, True, float(errors.grip[0]), float(errors.tip[0]), float(errors.angle_deg[0]))


def choose_threshold(outcomes: Sequence[Outcome]) -> float:
    """Least presence, from 0.4 to 0.95, at which at most 2 % of the pictures without a stick count as having one."""
    empty = np.array([o.answer.presence for o in outcomes if not o.visible])
    if not len(empty):
        return _LEAST_THRESHOLD
    allowed = float(np.quantile(empty, 1 - _ALLOWED_FALSE_RATE, method="higher")) + 0.01
    return round(float(np.clip(allowed, _LEAST_THRESHOLD, _MOST_THRESHOLD)), 2)


def summarise(outcomes: Sequence[Outcome], threshold: float) -> dict[str, float]:
    """Figures at a threshold; rates 0..1, errors in stick lengths in the picture or degrees. Where no stick is visible
    there is nothing to tell of sticks."""
    there = [o for o in outcomes if o.visible]
    empty = [o for o in outcomes if not o.visible]
    said_of_none = float(np.mean([o.answer.presence >= threshold for o in empty])) if empty else 0.0
    counts = {
        "pictures_with_stick": len(there), "pictures_without_stick": len(empty), "false_rate": round(said_of_none, 4),
    }  # fmt: skip
    if not there:
        return counts
    grip, tip = np.array([o.grip_error for o in there]), np.array([o.tip_error for o in there])
    angle = np.array([o.angle_error_deg for o in there])
    said = np.array([o.answer.presence >= threshold for o in there])
    near = (grip < FOUND_WITHIN) & (tip < FOUND_WITHIN)
    figures = {
        "found_rate": float((said & near).mean()),
        "grip_found_rate": float((said & (grip < FOUND_WITHIN)).mean()),
        "tip_found_rate": float((said & (tip < FOUND_WITHIN)).mean()),
        "reported_rate": float(said.mean()),
        "found_of_reported": float(near[said].mean()) if said.any() else 0.0,
        "median_grip_error": float(np.median(grip)),
        "median_tip_error": float(np.median(tip)),
        "median_angle_error_deg": float(np.median(angle)),
        "mean_angle_error_deg": float(angle.mean()),
        "tips_off_by_tenth_rate": float((tip > 0.1).mean()),
        "ends_swapped_rate": float((angle > SWAPPED_FROM_DEG).mean()),
    }
    return counts | {name: round(value, 4) for name, value in figures.items()}


def by_view(outcomes: Sequence[Outcome], threshold: float) -> dict[str, dict[str, float]]:
    """`summarise` for each view apart."""
    views = sorted({o.row.view for o in outcomes if o.visible})
    return {v: summarise([o for o in outcomes if o.row.view == v], threshold) for v in views}


def clip_presence(model: Model, clips: Sequence[Path]) -> dict[str, np.ndarray]:
    """Presence in every frame with a person, by clip; -1 where nobody is found."""
    finder = served_detector()
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


def drawn_outcomes(model: Model, clips: Sequence[Path], frames_per_clip: int = DRAWN_PER_CLIP) -> list[Outcome]:
    """Answers to sticks that are drawn into frames of real clips, beside where they were drawn; the clip is the view.

    The hand is where MoveNet Thunder sees it, the crop where the program would look.
    """
    rng = np.random.default_rng(0)
    judged = []
    for clip in clips:
        true, told = Follower(body_detector()), Follower(served_detector())
        for time_s, frame in clip_frames(clip, step_for(clip, frames_per_clip)):
            person = true.look(time_s, frame)
            if person is None or (stick := add_stick(frame, person.keypoints, rng)) is None:
                continue
            seen = told.look(time_s, frame, beside=person)
            keypoints = np.concatenate([person.keypoints, [[*stick.grip, 1], [*stick.tip, 1]]]).astype(np.float32)
            if seen is None or is_somebody_else(seen.keypoints, keypoints):
                continue
            if _judgeable(keypoints, frame.shape[1], frame.shape[0]):
                row = Row(clip, keypoints, "test", clip.stem)
                judged.append(judge_answer(row, model(frame, seen.keypoints)))
    return judged


def milliseconds(networks: Mapping[str, Network]) -> dict[str, dict[str, float]]:
    """Median and least time of one answer in ms; by turns, so that a busy moment hits all alike."""
    ways = {name: partial(network, *trial_inputs(network.inputs)) for name, network in networks.items()}
    return {
        name: {"median_ms": round(float(np.median(values)), 2), "least_ms": round(min(values), 2)}
        for name, values in times_ms(ways, _TIMED_RUNS).items()
    }


def times(file: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of one answer of an ONNX file on each runtime."""
    networks = {f"{backend}_two_threads": load_network(file, backend, threads=2) for backend in RUNTIMES}
    return milliseconds(networks)


def aims(test: Mapping[str, float], clips: Mapping[str, float]) -> dict[str, float]:
    """What matters most of a stick detector's figures. Wanted: found 0.95, tip 0.04, 3 degrees, clean frames 0.98."""
    names = ("found_rate", "median_tip_error", "median_angle_error_deg")
    clean = {"clip_frames_without_false_stick": round(1 - clips["all_clips"], 4)} if clips else {}
    return {name: test[name] for name in names if name in test} | clean
