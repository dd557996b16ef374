"""Faults that cameras and detectors add, after the split: to keypoints before the graph is built, and to crops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from engine.errors import UserError
from stages.graph import CROP_SIZE_PX, PRESENT_CONFIDENCE, torso_length
from stages.skeleton import (
    GRIP,
    LEFT_ANKLE,
    LEFT_ELBOW,
    LEFT_HIP,
    LEFT_KNEE,
    NODE_COUNT,
    RIGHT_ANKLE,
    RIGHT_HIP,
    RIGHT_KNEE,
    TIP,
)

_LEGS = ((LEFT_HIP, RIGHT_HIP), (LEFT_KNEE, RIGHT_KNEE), (LEFT_ANKLE, RIGHT_ANKLE))


@dataclass(frozen=True)
class KeypointFaults:
    """How much goes wrong; lengths in torsos, angles in degrees, the rest probabilities. What is normally distributed
    is given by its standard deviation, but rotation, stretch and shear of the whole by twice that."""

    rotation_deg: float = 6.0
    stretch: float = 0.08
    """Of width and height, each by itself: the one is also what a small yaw does to a body (23 degrees make it 8 %
    narrower)."""
    shear: float = 0.06
    jitter: float = 0.025
    limb_miss: float = 0.03
    """A limb's keypoint that lands far off."""
    limb_miss_by: float = 0.25
    node_dropout: float = 0.03
    leg_swap: float = 0.04
    """Left and right of the legs changed over: a known fault in side views."""
    stick_missing: float = 0.12
    tip_missing: float = 0.03
    stick_rotation_deg: float = 5.0
    stick_stretch: float = 0.08


def changed_faults(without: Sequence[str], strengths: Sequence[str]) -> dict[str, float]:
    """Values of fields of KeypointFaults: 0 for those `without`, and `strengths` such as `node_dropout:0.1`.

    Raises UserError for a fault that there is not, or a strength that is none.
    """
    told = dict[str, float]()
    for text in strengths:
        name, _, strength = text.partition(":")
        try:
            told[name] = float(strength)
        except ValueError:
            told[name] = -1.0
        if not 0 <= told[name] < math.inf:
            raise UserError(f"strengths={text} makes no sense; write such as node_dropout:0.1")
    told |= dict.fromkeys(without, 0.0)
    known = sorted(field.name for field in fields(KeypointFaults))
    for name in told:
        if name not in known:
            raise UserError(f"there is no keypoint fault {name!r}; there are {', '.join(known)}")
    return told


def augment_keypoints(keypoints: np.ndarray, rng: np.random.Generator, faults: KeypointFaults) -> np.ndarray:
    """Faulty copy of canonical keypoints (B, 19, 3) in any unit."""
    out = np.nan_to_num(keypoints.astype(np.float32))
    unit = np.maximum(torso_length(out), 1e-6)[:, None, None]
    swapped = rng.random(len(out)) < faults.leg_swap
    for left, right in _LEGS:
        out[swapped, left], out[swapped, right] = out[swapped, right], out[swapped, left].copy()
    points, there = out[..., :2], out[..., 2] > 0
    count = len(out)
    centre = (points * there[..., None]).sum(1, keepdims=True) / np.maximum(there.sum(1), 1)[:, None, None]
    points = (points - centre) / unit
    points = points @ _affine(count, rng, faults)
    points = points + rng.normal(0, faults.jitter, points.shape) * rng.uniform(0.3, 1.7, (count, 1, 1))
    missed = rng.random((count, NODE_COUNT, 1)) < faults.limb_miss
    missed[:, :LEFT_ELBOW] = False
    missed[:, GRIP:] = False
    points = points + missed * rng.normal(0, faults.limb_miss_by, points.shape)
    points = _move_stick(points, rng, faults)
    dropped = rng.random((count, NODE_COUNT)) < faults.node_dropout
    dropped[:, GRIP:] = rng.random((count, 1)) < faults.stick_missing
    dropped[:, TIP] |= rng.random(count) < faults.tip_missing
    # What a detector calls 0.9 another calls 0.6: the network must not learn one detector's scale.
    confidence = out[..., 2] ** rng.uniform(0.3, 2.5, (count, 1)) * rng.uniform(0.7, 1.0, (count, NODE_COUNT))
    out[..., :2] = (points * unit + centre) * there[..., None]
    # Who counts as missing stays so: raised, a point in which the detector had no trust would be one to go by.
    present = out[..., 2] >= PRESENT_CONFIDENCE
    out[..., 2] = np.where(present, np.maximum(confidence, PRESENT_CONFIDENCE), out[..., 2]) * (there & ~dropped)
    return out


def _affine(count: int, rng: np.random.Generator, faults: KeypointFaults) -> np.ndarray:
    """float (count, 2, 2): rotation, stretch and shear, to be multiplied from the right."""
    angle = np.deg2rad(rng.normal(0, faults.rotation_deg / 2, count))
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([cosine, sine], -1), np.stack([-sine, cosine], -1)], -2)
    stretch = np.exp(rng.normal(0, faults.stretch / 2, (count, 2)))
    shear = rng.normal(0, faults.shear / 2, count)
    change = np.zeros((count, 2, 2))
    change[:, 0, 0], change[:, 1, 1], change[:, 1, 0] = stretch[:, 0], stretch[:, 1], shear
    return np.asarray(rotation @ change, np.float32)


def _move_stick(points: np.ndarray, rng: np.random.Generator, faults: KeypointFaults) -> np.ndarray:
    """Turns the shaft about the grip and changes its length."""
    count = len(points)
    shaft = points[:, TIP] - points[:, GRIP]
    angle = np.deg2rad(rng.normal(0, faults.stick_rotation_deg, count))
    cosine, sine = np.cos(angle), np.sin(angle)
    turned = np.stack([cosine * shaft[:, 0] - sine * shaft[:, 1], sine * shaft[:, 0] + cosine * shaft[:, 1]], -1)
    points[:, TIP] = points[:, GRIP] + turned * np.exp(rng.normal(0, faults.stick_stretch, (count, 1)))
    return points


def augment_crop(crop: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (128, 128, 3) shifted, turned, scaled, recoloured, blurred or made noisy; and (2, 2), to multiply what is
    measured in it with from the left."""
    half = CROP_SIZE_PX / 2
    matrix = cv2.getRotationMatrix2D((half, half), rng.normal(0, 6), float(np.exp(rng.normal(0, 0.1))))
    matrix[:, 2] += rng.normal(0, 5, 2)
    out = cv2.warpAffine(crop, matrix, (CROP_SIZE_PX, CROP_SIZE_PX), borderMode=cv2.BORDER_REFLECT)
    if rng.random() < 0.3:
        small = int(rng.uniform(0.3, 0.9) * CROP_SIZE_PX)
        out = cv2.resize(cv2.resize(out, (small, small), interpolation=cv2.INTER_AREA), (CROP_SIZE_PX, CROP_SIZE_PX))
    if rng.random() < 0.2:
        # A moving hand smears along its path.
        kernel = cv2.getRotationMatrix2D((3, 3), rng.uniform(0, 180), 1)
        line = np.zeros((7, 7), np.float32)
        line[3] = 1 / 7
        out = cv2.filter2D(out, -1, cv2.warpAffine(line, kernel, (7, 7)))
    picture = out.astype(np.float32)
    grey = picture.mean(2, keepdims=True)
    picture = grey + (picture - grey) * rng.uniform(0.2, 1.4)
    picture = picture * np.exp(rng.normal(0, 0.12, 3)) * np.exp(rng.normal(0, 0.2)) + rng.normal(0, 10)
    if rng.random() < 0.5:
        picture += rng.normal(0, rng.uniform(1, 10), picture.shape)
    if rng.random() < 0.15:
        y, x = rng.integers(0, CROP_SIZE_PX - 32, 2)
        picture[y : y + 32, x : x + 32] = rng.uniform(0, 255, 3)
    return np.clip(picture, 0, 255).astype(np.uint8), matrix[:, :2]
