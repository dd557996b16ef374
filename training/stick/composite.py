"""Sticks drawn into crops of real frames, with the hand put back over them, and lines that only look like sticks.

A crop of a real frame holds a person without a stick; drawing happens anew each time a crop is loaded, so a few hundred
frames give any number of pictures. All points are pixels of the crop, continuous (pixel i covers [i, i + 1)).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stages.skeleton import (
    BODY_COUNT,
    BODY_EDGES,
    LEFT_ELBOW,
    LEFT_HIP,
    LEFT_SHOULDER,
    LEFT_WRIST,
    NOSE,
    RIGHT_ELBOW,
    RIGHT_HIP,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)
from stages.stick_crop import RELIABLE, torso_length_px

_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class DrawnStick:
    """Where a stick was drawn: (2,) float64 each."""

    grip: np.ndarray
    tip: np.ndarray


def torso_px(keypoints: np.ndarray) -> float:
    """Torso length of (17 or more, 3) keypoints, 0 when unknown."""
    reliable = np.isfinite(keypoints[:, :2]).all(1) & (keypoints[:, 2] >= RELIABLE)
    return torso_length_px(keypoints[:, :2].astype(np.float64), reliable)


def add_stick(image: np.ndarray, keypoints: np.ndarray, rng: np.random.Generator) -> DrawnStick | None:
    """Draw a stick into a random hand of a person, in place; None when no hand is known well enough.

    image: uint8 (H, W, 3); keypoints: (>= 17, 3) x, y, confidence.
    """
    torso = torso_px(keypoints)
    arms = [
        (elbow, wrist)
        for elbow, wrist in ((LEFT_ELBOW, LEFT_WRIST), (RIGHT_ELBOW, RIGHT_WRIST))
        if min(keypoints[elbow, 2], keypoints[wrist, 2]) > 0.35
    ]
    if torso < 12 or not arms:
        return None
    elbow, wrist = arms[rng.integers(len(arms))]
    forearm = (keypoints[wrist, :2] - keypoints[elbow, :2]).astype(np.float64)
    grip = keypoints[wrist, :2] + rng.uniform(0.2, 0.38) * forearm + rng.normal(0, 0.02 * torso, 2)
    # Half of the angles are uniform, half near the forearm's, where real sticks are found more often.
    angle = rng.uniform(-np.pi, np.pi)
    if rng.random() < 0.5:
        angle = np.arctan2(forearm[1], forearm[0]) + rng.normal(0, 0.8)
    depth = rng.uniform(-0.96, 0.96) if rng.random() < 0.7 else rng.uniform(-0.4, 0.4)
    length = torso * rng.uniform(1.0, 1.35) * np.sqrt(1 - depth**2)
    tip = grip + length * np.array([np.cos(angle), np.sin(angle)])
    before = image.copy()
    width = max(1.6, torso * rng.uniform(0.03, 0.06))
    draw_rod(image, grip, tip, width, stick_colour(rng), rng, depth=depth, blur_deg=_motion(rng))
    reach = max(float(np.linalg.norm(forearm)), 0.35 * torso)
    _put_hand_back(image, before, grip, forearm, reach, rng)
    return DrawnStick(grip, tip)


def stick_colour(rng: np.random.Generator) -> np.ndarray:
    """BGR 0..255: mostly light rattan, some burnt or dark wood, some padded or painted."""
    kind = rng.random()
    if kind < 0.6:
        rgb = np.array([0.74, 0.58, 0.36]) * rng.uniform(0.5, 1.3) + rng.normal(0, 0.05, 3)
    elif kind < 0.82:
        rgb = np.array([0.35, 0.22, 0.12]) * rng.uniform(0.3, 1.5)
    else:
        rgb = rng.uniform(0, 1, 3)
    return np.asarray(np.clip(rgb[::-1], 0.03, 1.0) * 255)


def draw_rod(
    image: np.ndarray,
    grip: np.ndarray,
    tip: np.ndarray,
    width_px: float,
    colour: np.ndarray,
    rng: np.random.Generator,
    depth: float = 0.0,
    blur_deg: float = 0.0,
) -> None:
    """Draw a shaded round rod from a little behind `grip` to `tip`, in place.

    depth: -1..1, how much of the rod points at the camera (thicker tip); blur_deg: swing during the exposure.
    """
    along = tip - grip
    butt = grip - along * rng.uniform(0.1, 0.2)
    ends = [butt, tip]
    low = np.floor(np.min(ends, 0) - width_px - 4).astype(int)
    high = np.ceil(np.max(ends, 0) + width_px + 4).astype(int)
    if blur_deg:
        swing = int(np.ceil(np.radians(blur_deg) * np.linalg.norm(along)))
        low, high = low - swing, high + swing
    low, high = np.maximum(low, 0), np.minimum(high, [image.shape[1], image.shape[0]])
    if (high - low).min() < 2:
        return
    steps = 1 if blur_deg == 0 else 7
    alpha = np.zeros((high[1] - low[1], high[0] - low[0]), np.float32)
    for turn in np.linspace(-0.5, 0.5, steps) * np.radians(blur_deg):
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        alpha += _rod_mask(alpha.shape, [grip + rotation @ (p - grip) - low for p in ends], width_px, depth) / steps
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.3, 0.9))[..., None]
    patch = image[low[1] : high[1], low[0] : high[0]]
    paint = _shade(alpha.shape[:2], grip - low, along, width_px, colour, rng)
    light = np.clip(patch.mean() / 110.0, 0.55, 1.25)
    patch[:] = np.clip(patch * (1 - alpha) + np.clip(paint * light, 0, 255) * alpha, 0, 255).astype(np.uint8)


def _rod_mask(shape: tuple[int, ...], ends: list[np.ndarray], width_px: float, depth: float) -> np.ndarray:
    """float32 coverage 0..1 of a rod between two points, tapered by perspective."""
    direction = (ends[1] - ends[0]) / max(float(np.linalg.norm(ends[1] - ends[0])), 1e-6)
    across = np.array([-direction[1], direction[0]])
    near, far = width_px / 2 * (1 - 0.15 * depth), width_px / 2 * (1 + 0.15 * depth)
    outline = [ends[0] + across * near, ends[0] - across * near, ends[1] - across * far, ends[1] + across * far]
    mask = np.zeros(shape[:2], np.uint8)
    # Drawing addresses pixel centres by integers, hence the half.
    scaled = np.round((np.array(outline) - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillConvexPoly(mask, scaled, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return mask.astype(np.float32) / 255


def _shade(
    shape: tuple[int, ...],
    grip: np.ndarray,
    along: np.ndarray,
    width_px: float,
    colour: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """float32 (h, w, 3): round shading across the rod, knots or stripes along it."""
    length = max(float(np.linalg.norm(along)), 1e-6)
    u, v = along / length, np.array([-along[1], along[0]]) / length
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    xs, ys = xs + 0.5 - grip[0], ys + 0.5 - grip[1]
    across = (xs * v[0] + ys * v[1]) / (width_px / 2)
    lengthwise = (xs * u[0] + ys * u[1]) / length
    shade = np.clip(1.15 - rng.uniform(0.2, 0.6) * np.abs(across - rng.uniform(-0.7, 0.7)), 0.3, 1.3)
    if rng.random() < 0.5:
        shade = shade * (1 - 0.3 * (np.mod(lengthwise * rng.uniform(2, 9) + rng.random(), 1) < 0.15))
    shade = shade * (1 + rng.uniform(-0.3, 0.3) * lengthwise)
    return np.asarray(shade[..., None] * colour.astype(np.float32))


def _motion(rng: np.random.Generator) -> float:
    return float(rng.uniform(1, 9)) if rng.random() < 0.2 else 0.0


def _put_hand_back(
    image: np.ndarray, before: np.ndarray, grip: np.ndarray, forearm: np.ndarray, reach: float, rng: np.random.Generator
) -> None:
    """Paste the hand over the stick, as an ellipse along the forearm."""
    mask = np.zeros(image.shape[:2], np.uint8)
    centre = tuple(int(round(c * 16)) for c in grip - 0.06 * forearm)
    axes = (int(reach * rng.uniform(0.17, 0.26) * 16), int(reach * rng.uniform(0.11, 0.19) * 16))
    angle = float(np.degrees(np.arctan2(forearm[1], forearm[0])))
    cv2.ellipse(mask, centre, axes, angle, 0, 360, 255, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    alpha = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 1.3))[..., None].astype(np.float32) / 255
    image[:] = (image * (1 - alpha) + before * alpha).astype(np.uint8)


def add_distractors(
    image: np.ndarray, keypoints: np.ndarray, stick: DrawnStick | None, rng: np.random.Generator
) -> None:
    """Poles, railings and loose rods behind the person, in place; they end in no hand, so they are not a held stick."""
    kept = _person_mask(image.shape[:2], keypoints, stick)
    before = image.copy()
    size = max(image.shape[:2])
    torso = torso_px(keypoints) or size / 6
    for _ in range(int(rng.integers(1, 4))):
        start = rng.uniform(0, size, 2)
        upright = np.pi / 2 * rng.integers(4) + rng.normal(0, 0.05)
        angle = upright if rng.random() < 0.4 else rng.uniform(-np.pi, np.pi)
        length = size * 1.5 if rng.random() < 0.5 else torso * rng.uniform(0.4, 1.6)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        width = torso * rng.uniform(0.02, 0.12)
        colour = stick_colour(rng) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
        for offset in range(int(rng.integers(1, 5)) if rng.random() < 0.15 else 1):
            shift = offset * torso * 0.3 * np.array([-np.sin(angle), np.cos(angle)])
            draw_rod(image, start + shift, end + shift, max(width, 1.2), colour, rng)
    image[:] = (image * (1 - kept) + before * kept).astype(np.uint8)


def _person_mask(shape: tuple[int, ...], keypoints: np.ndarray, stick: DrawnStick | None) -> np.ndarray:
    """float32 (h, w, 1): 1 on a rough outline of the person (thick limbs, filled torso) and on the stick."""
    mask = np.zeros(shape[:2], np.uint8)
    torso = torso_px(keypoints)
    if torso <= 0:
        return mask[..., None].astype(np.float32)
    seen = keypoints[:BODY_COUNT, 2] > 0.2
    points = np.nan_to_num(keypoints[:BODY_COUNT, :2]).round().astype(int)
    for a, b in BODY_EDGES:
        if seen[a] and seen[b]:
            cv2.line(mask, points[a].tolist(), points[b].tolist(), 255, max(2, int(0.3 * torso)))
    corners = [LEFT_SHOULDER, RIGHT_SHOULDER, RIGHT_HIP, LEFT_HIP]
    if seen[corners].all():
        cv2.fillConvexPoly(mask, cv2.convexHull(points[corners].astype(np.int32)), 255)
    if seen[NOSE]:
        cv2.circle(mask, points[NOSE].tolist(), int(0.35 * torso), 255, -1)
    for elbow, wrist in ((LEFT_ELBOW, LEFT_WRIST), (RIGHT_ELBOW, RIGHT_WRIST)):
        if seen[elbow] and seen[wrist]:
            hand = points[wrist] + 0.3 * (points[wrist] - points[elbow])
            cv2.circle(mask, hand.round().astype(int).tolist(), int(0.22 * torso), 255, -1)
    if stick is not None:
        butt = stick.grip - 0.2 * (stick.tip - stick.grip)
        start, end = (p.round().astype(int).tolist() for p in (butt, stick.tip))
        cv2.line(mask, start, end, 255, max(3, int(0.14 * torso)))
    return (cv2.GaussianBlur(mask, (0, 0), 1.0).astype(np.float32) / 255)[..., None]
