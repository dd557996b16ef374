"""Where to look in a frame: a network sees a person sharpest in the square around them."""

from __future__ import annotations

import numpy as np

from stages.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER

Square = tuple[float, float, float]
"""Centre x, y and side in pixels of the frame."""

SURE = 0.2
"""Score from which a keypoint helps to place the square; MoveNet's own tracking uses the same."""

TORSO = [LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP]


def whole_frame(width: int, height: int) -> Square:
    """The square that holds the whole frame (a letterbox)."""
    return width / 2, height / 2, float(max(width, height))


def square_around(keypoints: np.ndarray, width: int, height: int) -> Square:
    """Square around a person, from their torso and limbs; the whole frame when no shoulder or no hip is sure.

    `keypoints` (17 or more, 3) in pixels, the body's first. The factors 1.9 (torso) and 1.2 (all limbs) are those of
    MoveNet's published tracking (tensorflow.org/hub/tutorials/movenet); like there, the square leaves the frame by as
    much as the person does.
    """
    sure = keypoints[:, 2] > SURE
    hips, shoulders = sure[[LEFT_HIP, RIGHT_HIP]], sure[[LEFT_SHOULDER, RIGHT_SHOULDER]]
    if not hips.any() or not shoulders.any():
        return whole_frame(width, height)
    xy = keypoints[:, :2]
    centre = xy[[LEFT_HIP, RIGHT_HIP]][hips].mean(axis=0)
    torso = np.abs(xy[TORSO][sure[TORSO]] - centre).max()
    body = np.abs(xy[sure] - centre).max()
    half = max(1.9 * torso, 1.2 * body)
    if half > max(width, height) / 2:
        return whole_frame(width, height)
    return float(centre[0]), float(centre[1]), float(2 * half)


def parts_of_frame(width: int, height: int) -> list[Square]:
    """Middle, start and end of a long frame as squares of its short side; none of a nearly square one."""
    short, long = min(width, height), max(width, height)
    if long < 1.3 * short:
        return []
    places = (long / 2, short / 2, long - short / 2)
    return [(at, height / 2, float(short)) if width > height else (width / 2, at, float(short)) for at in places]
