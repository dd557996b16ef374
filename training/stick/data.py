"""Pictures of a table and of real clips to crops for the cache, and cached crops to augmented batches.

The cache keeps a wider crop than the network sees, so that shift, zoom and turn happen when a batch is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from engine.errors import UserError
from stages.packets import Hand
from stages.skeleton import BODY_COUNT, GRIP, LEFT_WRIST, NODE_COUNT, RIGHT_WRIST, TIP
from stages.stick_crop import Crop, extract_crop, stick_crop
from training.ahead import made_ahead
from training.data.readers import read_any
from training.stick.augment import Warp, augment_pixels, hide_points, noisy_body, random_warp
from training.stick.composite import DrawnStick, add_distractors, add_stick, torso_px
from training.stick.network import SIZE_PX

CACHE_PX = 512
CACHE_MARGIN = 1.5
"""Side of a cached crop in sides of the crop that the detector gets."""
MIN_VISIBLE_TORSO = 0.15
"""A stick counts as visible from this projected length (in torso lengths); shorter ones point at the lens."""

_STRANGE_TORSOS = 0.4
"""Torso lengths. Of 2,173 renders, a fifth with bystanders, 3 % lie above it and 95 % below the half of it."""
_REPEAT_EMPTY = 3  # renders without a stick are few, and without a counterweight every render seems to hold one
_REPEAT_HARD = 2

_WHOLE_SHARE = 0.5
"""Of the pictures, that are seen as a whole; the others as the closer look at one hand sees them."""
_OTHER_HAND_SHARE = 0.2
"""Of the closer looks at somebody with a stick, that are at the hand without."""


Find = Callable[[np.ndarray, str], np.ndarray | None]
"""Picture, uint8 (H, W, 3) BGR, and its name, to the keypoints (17, 3) of whom a body detector finds in it."""


@dataclass(frozen=True)
class Row:
    """One picture of a table; keypoints float32 (19, 3) in its pixels, absent ones NaN, NaN, 0."""

    path: Path
    keypoints: np.ndarray
    split: str
    view: str


@dataclass
class Samples:
    """Cached crops: uint8 (N, CACHE_PX, CACHE_PX, 3) BGR; in their pixels the true keypoints, float32 (N, 19, 3), and
    the body (N, 17, 3) as a detector finds it."""

    images: np.ndarray
    keypoints: np.ndarray
    bodies: np.ndarray
    drawable: bool
    """True for real frames, into which sticks are drawn anew each time."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Batch:
    """images: uint8 (B, SIZE_PX, SIZE_PX, 3) RGB; bodies: float32 (B, 17, 3) x, y in 0..1 of the crop and confidence;
    targets: float32 (B, 7) grip x, y, tip x, y in 0..1 of the crop, weight of grip, weight of tip, presence (1, 0 or
    -1: not counted)."""

    images: np.ndarray
    bodies: np.ndarray
    targets: np.ndarray


def read_rows(path: Path) -> list[Row]:
    """Rows of a table in any form that `training.data.readers` reads. Raises UserError when it is none."""
    table = read_any(path)
    keypoints = table.keypoints.copy()
    # A point without a place is absent; one outside the picture has a place and confidence 0.
    keypoints[~keypoints.any(-1), :2] = np.nan
    return [
        Row(table.picture_path(i), keypoints[i], str(table.splits[i]), str(table.views[i]))
        for i in range(len(table))
        if table.pictures[i]
    ]


def read_picture(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) BGR. Raises UserError when the file is no picture."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise UserError(f"picture {path} cannot be read; make it again with `arnis-train synth`")
    return picture


def visible_length(keypoints: np.ndarray) -> float:
    """Projected grip-to-tip length in torso lengths; 0 without both ends."""
    torso = torso_px(keypoints)
    if torso <= 0 or not np.isfinite(keypoints[[GRIP, TIP], :2]).all():
        return 0.0
    return float(np.linalg.norm(keypoints[GRIP, :2] - keypoints[TIP, :2])) / torso


def widen(crop: Crop) -> Crop:
    """The crop that is cached for a detector's crop."""
    return crop[0], crop[1], crop[2] * CACHE_MARGIN


def is_somebody_else(keypoints: np.ndarray, truth: np.ndarray) -> bool:
    """Whether a body detector looked at another than the labelled person: half of what it found (17, 3) is more than
    `_STRANGE_TORSOS` from its place in the truth (19, 3). Without a torso in the truth nothing tells, so False."""
    gaps = np.linalg.norm(keypoints[:BODY_COUNT, :2] - truth[:BODY_COUNT, :2], axis=1)
    known, torso = np.isfinite(gaps), torso_px(truth)
    return bool(torso > 0 and known.any() and np.median(gaps[known]) > _STRANGE_TORSOS * torso)


def cache_sample(
    image_bgr: np.ndarray, keypoints: np.ndarray, body: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cached crop, and in its pixels keypoints (19, 3) and body, of a picture, keypoints (17 or 19, 3) and body."""
    full = np.full((NODE_COUNT, 3), np.nan, np.float32)
    full[:, 2] = 0
    full[: len(keypoints)] = keypoints
    crop = widen(stick_crop(full[:BODY_COUNT], image_bgr.shape[1], image_bgr.shape[0]))
    corner = np.array([crop[0] - crop[2] / 2, crop[1] - crop[2] / 2])
    moved = body.copy()
    for points in (full, moved):
        points[:, :2] = (points[:, :2] - corner) * (CACHE_PX / crop[2])
    return extract_crop(image_bgr, crop, CACHE_PX), full, moved


class Sample(NamedTuple):
    """One entry of a Batch."""

    image: np.ndarray
    body: np.ndarray
    target: np.ndarray


def make_sample(samples: Samples, index: int, rng: np.random.Generator, augment: bool, hands: bool = False) -> Sample:
    """One training picture with its body and target; with `hands`, the crop of every second holds what one hand
    reaches."""
    image, keypoints, body = np.array(samples.images[index]), samples.keypoints[index].copy(), samples.bodies[index]
    stick = None
    if samples.drawable and rng.random() < 0.55:
        stick = add_stick(image, keypoints, rng)
        if stick is not None:
            keypoints[GRIP], keypoints[TIP] = (*stick.grip, 1.0), (*stick.tip, 1.0)
    elif np.isfinite(keypoints[[GRIP, TIP], :2]).all():
        stick = DrawnStick(keypoints[GRIP, :2].astype(np.float64), keypoints[TIP, :2].astype(np.float64))
    if augment and rng.random() < 0.35:
        add_distractors(image, keypoints, stick, rng)
    hand = _hand_to_look_at(keypoints, rng) if hands else None
    warp = Warp.plain(CACHE_PX, CACHE_PX / CACHE_MARGIN)
    if augment:
        body = noisy_body(body, torso_px(keypoints) or CACHE_PX / 6, rng)
        warp = random_warp(body, CACHE_PX, rng, hand)
        body = hide_points(body, rng)
    elif hand is not None:
        x, y, side_px = stick_crop(body, CACHE_PX, CACHE_PX, hand)
        warp = Warp((x, y), side_px)
    crop = warp.apply(image, SIZE_PX)
    if augment:
        crop = augment_pixels(crop, rng)
    return Sample(crop[..., ::-1], warp.body(body), target_of(keypoints, warp))


def _hand_to_look_at(keypoints: np.ndarray, rng: np.random.Generator) -> Hand | None:
    """None for a look at both, as serving begins with; of keypoints (19, 3)."""
    if rng.random() < _WHOLE_SHARE:
        return None
    gaps = np.linalg.norm(keypoints[[LEFT_WRIST, RIGHT_WRIST], :2] - keypoints[GRIP, :2], axis=1)
    if np.isnan(gaps).any():
        return "left" if rng.random() < 0.5 else "right"
    return "left" if (gaps[0] < gaps[1]) != (rng.random() < _OTHER_HAND_SHARE) else "right"


def target_of(keypoints: np.ndarray, warp: Warp) -> np.ndarray:
    """float32 (7,), see Batch, of keypoints (19, 3) in cached pixels after a warp."""
    target = np.zeros(7, np.float32)
    if not np.isfinite(keypoints[GRIP, :2]).all():
        target[4:6] = 1.0  # nothing to be found is learned with full weight
        return target
    ends = warp.points(keypoints[[GRIP, TIP], :2])
    inside = ((ends > 0.005) & (ends < 0.995)).all(1)
    target[:4] = np.nan_to_num(ends, nan=-1.0).ravel()
    target[4:6] = inside
    target[6] = 1.0 if inside.all() and visible_length(keypoints) >= MIN_VISIBLE_TORSO else -1.0
    return target


class Loader:
    """Batches of one epoch after another; the order and every random choice follow from seed, epoch and index."""

    def __init__(
        self,
        shards: list[Samples],
        batch: int,
        seed: int,
        clip_share: float,
        hard: Sequence[np.ndarray] = (),
    ) -> None:
        """`hard`: bool (N,) of each shard, which of its pictures are drawn `_REPEAT_HARD` times as often; or empty."""
        self._shards, self._batch, self._seed = shards, batch, seed
        pictures = [
            (s, i)
            for s, shard in enumerate(shards)
            if not shard.drawable
            for i in range(len(shard))
            for _ in range(
                (1 if np.isfinite(shard.keypoints[i, GRIP, 0]) else _REPEAT_EMPTY)
                * (_REPEAT_HARD if len(hard) and hard[s][i] else 1)
            )
        ]
        frames = [(s, i) for s, shard in enumerate(shards) for i in range(len(shard)) if shard.drawable]
        self._pictures, self._frames, self._clip_share = pictures, frames, clip_share

    def epoch(self, epoch: int, count: int) -> Iterator[Batch]:
        """`count` samples in batches."""
        rng = np.random.default_rng((self._seed, epoch))
        clips = count if not self._pictures else (round(count * self._clip_share) if self._frames else 0)
        chosen = _draw(self._frames, clips, rng) + _draw(self._pictures, count - clips, rng)
        order = rng.permutation(len(chosen))
        jobs = [order[i : i + self._batch] for i in range(0, len(order) - self._batch + 1, self._batch)]

        def prepare(job: np.ndarray) -> Batch:
            made = [
                make_sample(self._shards[s], i, np.random.default_rng((self._seed, epoch, int(k))), True, True)
                for k, (s, i) in ((k, chosen[k]) for k in job)
            ]
            return Batch(*(np.stack(parts) for parts in zip(*made, strict=True)))

        yield from made_ahead(prepare(job) for job in jobs)


def _draw(pool: list[tuple[int, int]], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`count` entries: each equally often, the rest at random."""
    if not pool:
        return []
    rounds, rest = divmod(count, len(pool))
    return pool * rounds + [pool[i] for i in rng.permutation(len(pool))[:rest]]
