"""What the keypoints of a table say against themselves: exchanged sides, flipped pictures, sticks that cannot be.

Every rule takes a table and returns bool (N,): True where a row breaks it. Points below half confidence
prove nothing. The limits leave at most 1 % of 1,852 photos of real players aside, in which detectors erred.
"""

from __future__ import annotations

import numpy as np

from stages import skeleton as sk
from stages.detect import DetectSettings
from stages.graph import PRESENT_CONFIDENCE, torso_length
from training.data.table import Table

SURE = 0.5
MIN_BODY_POINTS = 8
LONGEST_STICK = DetectSettings().longest_stick
"""Torsos; the limit of the pipeline, and the 99.5th percentile of real photos (their median is 1.15)."""
USUAL_STICK = (0.8, 1.5)
"""Torsos; a table whose median is not between these has grip and tip somewhere else, or other sticks."""
FARTHEST_GRIP = DetectSettings().grip_within
_FEWEST_PX = 8
"""Fewer pixels are nobody: such coordinates are of another unit, or belong to another width and height."""
_OUTSIDE = 0.1
"""Share of the picture's size; feet cut off by the edge are guessed not farther away."""
_CLEARLY = 0.3
"""Torsos by which one way to see it must be shorter than the other."""
_LIMBS = (
    (sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER, sk.LEFT_ELBOW, sk.RIGHT_ELBOW, _CLEARLY),
    # Crossed forearms that point at the camera come close to this.
    (sk.LEFT_ELBOW, sk.RIGHT_ELBOW, sk.LEFT_WRIST, sk.RIGHT_WRIST, 2 * _CLEARLY),
    (sk.LEFT_HIP, sk.RIGHT_HIP, sk.LEFT_KNEE, sk.RIGHT_KNEE, _CLEARLY),
    (sk.LEFT_KNEE, sk.RIGHT_KNEE, sk.LEFT_ANKLE, sk.RIGHT_ANKLE, _CLEARLY),
)
"""Parents, children, and by how much shorter both limbs must be with the children exchanged."""


def little_body(table: Table) -> np.ndarray:
    """Too few points to tell a pose from."""
    few: np.ndarray = (table.keypoints[:, : sk.BODY_COUNT, 2] >= PRESENT_CONFIDENCE).sum(1) < MIN_BODY_POINTS
    return few


def tiny(table: Table) -> np.ndarray:
    """A body that spans a few pixels of a picture of known size."""
    seen = table.keypoints[..., 2:] >= PRESENT_CONFIDENCE
    points = np.where(seen, table.keypoints[..., :2], np.nan)
    known = ~little_body(table) & (table.sizes > 0).all(1)
    out = np.zeros(len(table), bool)
    out[known] = (np.nanmax(points[known], 1) - np.nanmin(points[known], 1)).max(1) < _FEWEST_PX
    return out


def no_stick(table: Table) -> np.ndarray:
    """Grip or tip is missing."""
    missing: np.ndarray = (table.keypoints[:, [sk.GRIP, sk.TIP], 2] < PRESENT_CONFIDENCE).any(1)
    return missing


def exchanged_sides(table: Table) -> np.ndarray:
    """Left and right of one pair are exchanged and of another are not: no body turns or crosses like that."""
    shoulders, hips = _width(table, sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER), _width(table, sk.LEFT_HIP, sk.RIGHT_HIP)
    ears = _width(table, sk.LEFT_EAR, sk.RIGHT_EAR)
    twisted: np.ndarray = (shoulders * hips < 0) & (np.minimum(np.abs(shoulders), np.abs(hips)) > 0.2)
    # A head turns, but not to look out of the back.
    twisted |= (ears * shoulders < 0) & (np.abs(ears) > 0.15) & (np.abs(shoulders) > 0.4)
    for left, right, left_child, right_child, margin in _LIMBS:
        sure = (table.keypoints[:, [left, right, left_child, right_child], 2] >= SURE).all(1)
        own = _distance(table, left, left_child) + _distance(table, right, right_child)
        crossed = _distance(table, left, right_child) + _distance(table, right, left_child)
        twisted |= sure & (own - crossed > margin)
    return twisted


def flipped(table: Table) -> np.ndarray:
    """Faces the camera with the left side on the left: a flipped picture whose points kept their names. A back looks
    the same where detectors saw a face on it; labelled by hand, that is hidden, which is no more than SURE."""
    eyes, shoulders = _width(table, sk.LEFT_EYE, sk.RIGHT_EYE), _width(table, sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER)
    face = table.keypoints[:, sk.NOSE, 2] > SURE
    return face & (eyes < -0.06) & (shoulders < -0.4)


def wrong_hand(table: Table) -> np.ndarray:
    """The grip is clearly at the other wrist than the one the table names."""
    seen = (table.keypoints[:, [sk.GRIP, sk.LEFT_WRIST, sk.RIGHT_WRIST], 2] >= SURE).all(1)
    left, right = _distance(table, sk.GRIP, sk.LEFT_WRIST), _distance(table, sk.GRIP, sk.RIGHT_WRIST)
    farther = np.where(table.true_hands == "left", left - right, right - left)
    return seen & (table.true_hands != "") & (farther > _CLEARLY)


def stick_lengths(table: Table) -> np.ndarray:
    """float (N,): grip to tip in torsos, NaN without them."""
    length = _distance(table, sk.GRIP, sk.TIP)
    return np.where(no_stick(table), np.nan, length)


def long_stick(table: Table) -> np.ndarray:
    """Longer than a stick can be; foreshortening only makes it shorter."""
    return np.nan_to_num(stick_lengths(table)) > LONGEST_STICK


def stick_ends(table: Table) -> np.ndarray:
    """The grip is in no hand, or the tip is nearer to a hand than the grip: grip and tip are exchanged."""
    hands = (sk.LEFT_WRIST, sk.RIGHT_WRIST)
    seen = (table.keypoints[:, hands, 2] >= SURE).any(1) & ~no_stick(table)
    known = [np.where(table.keypoints[:, hand, 2] >= PRESENT_CONFIDENCE, 0, np.inf) for hand in hands]
    nearest = [
        np.min([_distance(table, end, hand) + far for hand, far in zip(hands, known, strict=True)], axis=0)
        for end in (sk.GRIP, sk.TIP)
    ]
    return seen & ((nearest[0] > FARTHEST_GRIP) | (nearest[1] + _CLEARLY < nearest[0]))


def outside(table: Table) -> np.ndarray:
    """A point lies far outside the picture: other pixels than the picture's, or a wrong width or height."""
    size = table.sizes[:, None].astype(np.float32)
    place = table.keypoints[..., :2]
    far = ((place < -_OUTSIDE * size) | (place > (1 + _OUTSIDE) * size)).any(-1)
    out: np.ndarray = (far & (table.keypoints[..., 2] >= PRESENT_CONFIDENCE)).any(1) & (table.sizes > 0).all(1)
    return out


def _width(table: Table, left: int, right: int) -> np.ndarray:
    """float (N,): how far a left point is to the right of its right one, in torsos; 0 where one is unsure."""
    sure = (table.keypoints[:, [left, right], 2] >= SURE).all(1)
    unit = torso_length(table.keypoints)
    width = table.keypoints[:, left, 0] - table.keypoints[:, right, 0]
    return np.where(sure & (unit > 0), width / np.maximum(unit, 1e-6), 0)


def _distance(table: Table, a: int, b: int) -> np.ndarray:
    """float (N,): between two points in torsos; 0 where nothing tells the torso."""
    unit = torso_length(table.keypoints)
    length = np.linalg.norm(table.keypoints[:, a, :2] - table.keypoints[:, b, :2], axis=1)
    return np.where(unit > 0, length / np.maximum(unit, 1e-6), 0)
