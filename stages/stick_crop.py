"""The square around a person in which the stick is looked for: the same function when training and when serving.

Coordinates are continuous: pixel i covers [i, i + 1). A crop is (centre x, centre y, side) in pixels of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from stages.packets import Hand
from stages.skeleton import (
    LEFT_ELBOW,
    LEFT_HIP,
    LEFT_SHOULDER,
    LEFT_WRIST,
    RIGHT_ELBOW,
    RIGHT_HIP,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)

Crop = tuple[float, float, float]

STICK_REACH = 1.55
"""Torso lengths kept round each hand: a stick measures 0.84 to 1.46 in photos, and keypoints are noisy."""

RELIABLE = 0.2
"""Confidence from which a keypoint helps to place the crop. This and what follows are what the shipped stick network
was trained with; the graph, which the classifier was trained with, has rulers of its own."""
_SHOULDER_TO_TORSO = 1.2  # shoulders are about 0.75 torso apart: the ruler when the torso leans towards the camera
_FOREARM = 0.55  # torso lengths from elbow to hand, when the wrist itself was not found
_HAND_BEYOND_WRIST = 0.3  # of the forearm
_MIN_SIDE_PX = 32.0


def stick_crop(keypoints: np.ndarray, width: int, height: int, hand: Hand | None = None) -> Crop:
    """Square that holds the torso and a stick of 1.5 torso lengths in either hand, as far as the picture reaches; or,
    smaller and so seen closer, what a stick in one `hand` reaches.

    keypoints: float32 (17, 3) x, y in pixels and confidence, COCO order; missing ones have confidence 0 (NaN allowed).
    Without a reliable torso the square is drawn round all reliable keypoints, without any it is the whole picture.
    """
    points = np.asarray(keypoints, np.float64)[:, :2]
    with np.errstate(invalid="ignore"):
        reliable = np.isfinite(points).all(1) & (np.nan_to_num(np.asarray(keypoints)[:, 2]) >= RELIABLE)
    torso_px = torso_length_px(points, reliable)
    if torso_px > 0:
        low, high = _reach_box(points, reliable, torso_px, hand)
    elif reliable.sum() >= 2:
        low, high = points[reliable].min(0), points[reliable].max(0)
        margin = 0.4 * float((high - low).max())
        low, high = low - margin, high + margin
    else:
        low, high = np.zeros(2), np.array([width, height], np.float64)
    # Nothing can be seen beyond the picture's border, so no resolution is spent on it.
    seen_low, seen_high = np.maximum(low, 0.0), np.minimum(high, [width, height])
    if (seen_high - seen_low).min() > 0:
        low, high = seen_low, seen_high
    centre = (low + high) / 2
    return float(centre[0]), float(centre[1]), max(float((high - low).max()), _MIN_SIDE_PX)


def torso_length_px(points: np.ndarray, reliable: np.ndarray) -> float:
    """Mid-shoulder to mid-hip, never less than 1.2 shoulder widths; 0 when shoulders or hips are missing.

    points: (17, 2) pixels; reliable: bool (17,).
    """
    shoulders = [i for i in (LEFT_SHOULDER, RIGHT_SHOULDER) if reliable[i]]
    hips = [i for i in (LEFT_HIP, RIGHT_HIP) if reliable[i]]
    if not shoulders or not hips:
        return 0.0
    length = float(np.linalg.norm(points[shoulders].mean(0) - points[hips].mean(0)))
    if len(shoulders) == 2:
        across = float(np.linalg.norm(points[LEFT_SHOULDER] - points[RIGHT_SHOULDER]))
        length = max(length, _SHOULDER_TO_TORSO * across)
    return length


_ARMS: dict[Hand, tuple[int, int, int]] = {
    "left": (LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST),
    "right": (RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST),
}


def _reach_box(
    points: np.ndarray, reliable: np.ndarray, torso_px: float, hand: Hand | None
) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box round what a stick in one hand can reach, if that arm is known; else of the box round the
    torso and round what sticks in both can."""
    if hand is not None and (reach := _reach(points, reliable, torso_px, hand)) is not None:
        return reach[0], reach[1]
    torso = [i for i in (LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP) if reliable[i]]
    reaches = [reach for each in _ARMS if (reach := _reach(points, reliable, torso_px, each)) is not None]
    every = np.concatenate([points[torso], *reaches])
    return every.min(0), every.max(0)


def _reach(points: np.ndarray, reliable: np.ndarray, torso_px: float, hand: Hand) -> np.ndarray | None:
    """Corners (2, 2) of what a stick in one hand can reach; None when nothing is known of the arm."""
    shoulder, elbow, wrist = _ARMS[hand]
    if reliable[wrist]:
        centre, reach = points[wrist], STICK_REACH
        if reliable[elbow]:
            centre = centre + _HAND_BEYOND_WRIST * (centre - points[elbow])
    elif reliable[elbow]:
        centre, reach = points[elbow], STICK_REACH + _FOREARM
    elif reliable[shoulder]:
        centre, reach = points[shoulder], STICK_REACH + _FOREARM
    else:
        return None
    return np.stack([centre - reach * torso_px, centre + reach * torso_px])


def extract_crop(image_bgr: np.ndarray, crop: Crop, size_px: int) -> np.ndarray:
    """Cut a crop out of uint8 (H, W, 3) and scale it to uint8 (size_px, size_px, 3), same channel order.

    Beyond the picture it is black. A large crop is shrunk by area, for a thin stick would alias away otherwise.
    """
    centre_x, centre_y, side_px = crop
    left, top = centre_x - side_px / 2, centre_y - side_px / 2
    shrink = int(np.clip(round(side_px / size_px), 1, 4))
    height, width = image_bgr.shape[:2]
    # What the crop touches, one shrunk pixel more on each side; a whole factor is the case for which area is fast.
    x0, y0 = (max(0, int(np.floor(low)) - shrink) for low in (left, top))
    across, down = (
        max(0, min(end, int(np.ceil(low + side_px)) + shrink) - start) // shrink
        for low, start, end in ((left, x0, width), (top, y0, height))
    )
    if not across or not down:
        return np.zeros((size_px, size_px, 3), np.uint8)
    part = image_bgr[y0 : y0 + down * shrink, x0 : x0 + across * shrink]
    if shrink > 1:
        part = cv2.resize(part, (across, down), interpolation=cv2.INTER_AREA)
    scale = size_px * shrink / side_px
    # Pixel indices are centres, coordinates are edges: hence the halves.
    shift = [(0.5 - (low - start) / shrink) * scale - 0.5 for low, start in ((left, x0), (top, y0))]
    matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    return cv2.warpAffine(part, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def rgb_crop(image_bgr: np.ndarray, crop: Crop, size_px: int) -> np.ndarray:
    """As `extract_crop`, but RGB, as networks want it."""
    # A copy with reversed strides would take longer.
    return np.asarray(cv2.cvtColor(extract_crop(image_bgr, crop, size_px), cv2.COLOR_BGR2RGB))


def stick_inputs(image_bgr: np.ndarray, keypoints: np.ndarray, crop: Crop, size_px: int) -> list[np.ndarray]:
    """What a stick network is given of a picture: `image`, uint8 (1, size_px, size_px, 3) RGB, and `body`, float32
    (1, 17, 3), the keypoints (17, 3) as x, y in 0..1 of the crop and confidence."""
    cut = rgb_crop(image_bgr, crop, size_px)
    body = np.column_stack([to_crop(keypoints[:, :2], crop), keypoints[:, 2]])
    return [cut[None], known_points(body)[None]]


def known_points(points: np.ndarray) -> np.ndarray:
    """float32 (N, 3) in which a point without a place or with confidence 0 is 0, 0, 0."""
    known = np.isfinite(points).all(1) & (points[:, 2] > 0)
    return np.where(known[:, None], points, 0.0).astype(np.float32)


def to_crop(points: np.ndarray, crop: Crop) -> np.ndarray:
    """Pixels of the picture (..., 2) to 0..1 of the crop."""
    corner = np.array([crop[0] - crop[2] / 2, crop[1] - crop[2] / 2])
    return np.asarray((points - corner) / crop[2])


def from_crop(points: np.ndarray, crop: Crop) -> np.ndarray:
    """0..1 of the crop (..., 2) to pixels of the picture."""
    corner = np.array([crop[0] - crop[2] / 2, crop[1] - crop[2] / 2])
    return np.asarray(points * crop[2] + corner)
