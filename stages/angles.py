"""What a pose can be measured by: joint angles, heights and widths of the canonical skeleton.

All functions take canonical keypoints (the weapon hand on the right), float (..., 19, 3): x, y in any unit with y down,
and confidence. A quantity whose points are missing is NaN. Angles are degrees, lengths and heights torsos.
"""

from __future__ import annotations

import numpy as np

from stages import skeleton as sk
from stages.graph import PRESENT_CONFIDENCE, torso_length, vector_length

VIEWS = ("front", "left", "right")
"""Towards the camera, or towards the left or right of the canonical picture."""

JOINTS = {
    "left_elbow_deg": (sk.LEFT_SHOULDER, sk.LEFT_ELBOW, sk.LEFT_WRIST),
    "right_elbow_deg": (sk.RIGHT_SHOULDER, sk.RIGHT_ELBOW, sk.RIGHT_WRIST),
    "left_shoulder_deg": (sk.LEFT_ELBOW, sk.LEFT_SHOULDER, sk.LEFT_HIP),
    "right_shoulder_deg": (sk.RIGHT_ELBOW, sk.RIGHT_SHOULDER, sk.RIGHT_HIP),
    "left_hip_deg": (sk.LEFT_SHOULDER, sk.LEFT_HIP, sk.LEFT_KNEE),
    "right_hip_deg": (sk.RIGHT_SHOULDER, sk.RIGHT_HIP, sk.RIGHT_KNEE),
    "left_knee_deg": (sk.LEFT_HIP, sk.LEFT_KNEE, sk.LEFT_ANKLE),
    "right_knee_deg": (sk.RIGHT_HIP, sk.RIGHT_KNEE, sk.RIGHT_ANKLE),
}
"""The angle at the middle one of three nodes; 180 is straight."""

QUANTITIES = (
    *JOINTS,
    "torso_lean_deg", "stick_deg", "wrist_deg", "right_hand_height", "left_hand_height", "tip_height",
    "right_hand_reach", "stance_width",
)  # fmt: skip
"""Everything that `measure` gives."""

_JOINT_NODES = np.array(list(JOINTS.values())).T
"""(3, 8): of each of `JOINTS` one end, the joint, the other end."""
_SIDE_ON = 0.2
_MIN_STICK = 0.3
"""Torsos; a stick that looks shorter than this points at the camera, and its angle in the picture says nothing."""


def measure(keypoints: np.ndarray) -> dict[str, np.ndarray]:
    """All quantities by name, each float64 (...), NaN where a point is missing.

    `stick_deg` is the stick's angle to the horizontal, tip up positive, -90..90; `wrist_deg` that between forearm and
    stick, 0..180; heights are above the middle of the shoulders; `right_hand_reach` is the hand's distance from its
    shoulder; `stance_width` that between the ankles; `torso_lean_deg` the spine's angle to the vertical.
    """
    points, unit = _points(keypoints)
    shoulders = (points[..., sk.LEFT_SHOULDER, :] + points[..., sk.RIGHT_SHOULDER, :]) / 2
    angles = joint_angle_deg(*(points[..., nodes, :] for nodes in _JOINT_NODES))
    values = {name: angles[..., i] for i, name in enumerate(JOINTS)}
    values["torso_lean_deg"] = _lean_deg(points)
    stick = points[..., sk.TIP, :] - points[..., sk.GRIP, :]
    stick = np.where((vector_length(stick) >= _MIN_STICK * unit)[..., None], stick, np.nan)
    values["stick_deg"] = _degrees(-stick[..., 1], np.abs(stick[..., 0]))
    forearm = points[..., sk.RIGHT_WRIST, :] - points[..., sk.RIGHT_ELBOW, :]
    values["wrist_deg"] = angle_between_deg(forearm, stick)
    for name, node in (
        ("right_hand_height", sk.RIGHT_WRIST),
        ("left_hand_height", sk.LEFT_WRIST),
        ("tip_height", sk.TIP),
    ):
        values[name] = (shoulders[..., 1] - points[..., node, 1]) / unit
    values["right_hand_reach"] = _distance(points, sk.RIGHT_WRIST, sk.RIGHT_SHOULDER) / unit
    values["stance_width"] = _distance(points, sk.LEFT_ANKLE, sk.RIGHT_ANKLE) / unit
    return values


def torso_lean_deg(keypoints: np.ndarray) -> np.ndarray:
    """The spine's angle to the vertical of keypoints (..., 17 or more, 3), float64 (...): 0 upright, 180 upside down,
    NaN where a shoulder or a hip is not seen."""
    return _lean_deg(_points(keypoints)[0])


def view_of(keypoints: np.ndarray) -> np.ndarray:
    """Index into `VIEWS`, int (...); -1 where nose, ears or shoulders are missing.

    The nose moves away from the ears and from the middle of the shoulders as somebody turns; together they tell 92 %
    of the photos of a real class apart (head turns and half-turned bodies are the rest).
    """
    points, unit = _points(keypoints)
    nose = points[..., sk.NOSE, 0]
    ears = (points[..., sk.LEFT_EAR, 0] + points[..., sk.RIGHT_EAR, 0]) / 2
    shoulders = (points[..., sk.LEFT_SHOULDER, 0] + points[..., sk.RIGHT_SHOULDER, 0]) / 2
    facing = (2.0 * nose - ears - shoulders) / unit
    view = np.where(facing < -_SIDE_ON, 1, np.where(facing > _SIDE_ON, 2, 0))
    return np.where(np.isnan(facing), -1, view)


def joint_angle_deg(a: np.ndarray, joint: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle at `joint` between the ways to `a` and `b`, 0..180; all (..., 2)."""
    return angle_between_deg(a - joint, b - joint)


def angle_between_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between two directions (..., 2), 0..180; NaN where either has no length."""
    cross = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    dot = (a * b).sum(-1)
    angle = np.degrees(np.arctan2(np.abs(cross), dot))
    return np.where((cross == 0) & (dot == 0), np.nan, angle)


def mirrored_name(quantity: str) -> str:
    """The same quantity of the other side: what a left-hander's `right_elbow_deg` is really called."""
    if quantity.startswith("left_"):
        return "right_" + quantity.removeprefix("left_")
    return "left_" + quantity.removeprefix("right_") if quantity.startswith("right_") else quantity


def _points(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (..., 19, 2), NaN where missing, and the torso (...), NaN where unknown."""
    present = np.nan_to_num(keypoints[..., 2]) >= PRESENT_CONFIDENCE
    points = np.where(present[..., None], keypoints[..., :2], np.nan).astype(np.float64)
    unit = np.asarray(torso_length(keypoints[..., : sk.BODY_COUNT, :]), np.float64)
    return points, np.where(unit > 0, unit, np.nan)


def _lean_deg(points: np.ndarray) -> np.ndarray:
    shoulders = (points[..., sk.LEFT_SHOULDER, :] + points[..., sk.RIGHT_SHOULDER, :]) / 2
    spine = shoulders - (points[..., sk.LEFT_HIP, :] + points[..., sk.RIGHT_HIP, :]) / 2
    return _degrees(np.abs(spine[..., 0]), -spine[..., 1])


def _distance(points: np.ndarray, a: int, b: int) -> np.ndarray:
    return vector_length(points[..., a, :] - points[..., b, :])


def _degrees(up: np.ndarray, along: np.ndarray) -> np.ndarray:
    return np.asarray(np.degrees(np.arctan2(up, along)))
