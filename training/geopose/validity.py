"""What keypoints say about themselves: whether a body can look like that, and how far the stick is from the truth.

Bodies are never corrected. Sticks are as `see` wrote them: by default after the program's correction, before it with
`see --correct off`.
"""

from __future__ import annotations

import numpy as np

from engine.errors import UserError
from stages import skeleton as sk
from stages.graph import PRESENT_CONFIDENCE, torso_length
from training.data.anatomy import FARTHEST_GRIP, LONGEST_STICK
from training.data.table import Table
from training.stick_errors import stick_errors

_LONGEST = {
    "upper arms": (((sk.LEFT_SHOULDER, sk.LEFT_ELBOW), (sk.RIGHT_SHOULDER, sk.RIGHT_ELBOW)), 0.9),
    "forearms": (((sk.LEFT_ELBOW, sk.LEFT_WRIST), (sk.RIGHT_ELBOW, sk.RIGHT_WRIST)), 0.8),
    "thighs": (((sk.LEFT_HIP, sk.LEFT_KNEE), (sk.RIGHT_HIP, sk.RIGHT_KNEE)), 1.2),
    "shins": (((sk.LEFT_KNEE, sk.LEFT_ANKLE), (sk.RIGHT_KNEE, sk.RIGHT_ANKLE)), 1.2),
}  # fmt: skip
"""Pairs of bones and their greatest length in torsos (anthropometric ratios and a fifth; a picture only shortens)."""
_SIDE_ON = 0.15
"""Torsos; shoulders or hips nearer to each other than this have no left and right."""


def keypoint_figures(seen: Table, truth: Table | None) -> dict[str, dict[str, float]]:
    """`validity` of what was seen and, where the truth is known, `stick`: its `stick_figures`."""
    return {"validity": validity(seen.keypoints)} | ({"stick": stick_figures(seen, truth)} if truth is not None else {})


def validity(keypoints: np.ndarray) -> dict[str, float]:
    """Share of the poses (N, 19, 3) that pass each check, and all of them; a check that lacks its points is passed."""
    points = np.where((keypoints[..., 2] >= PRESENT_CONFIDENCE)[..., None], keypoints[..., :2], np.nan)
    points = points / np.maximum(torso_length(keypoints), 1e-6)[:, None, None]
    checks = {
        f"{name} not too long": ~np.any([_length(points, *bone) > most for bone in bones], axis=0)
        for name, (bones, most) in _LONGEST.items()
    }
    checks["shoulders and hips turned alike"] = _turned_alike(points)
    checks["stick not too long"] = ~(_length(points, sk.GRIP, sk.TIP) > LONGEST_STICK)
    wrists = np.fmin(_length(points, sk.GRIP, sk.LEFT_WRIST), _length(points, sk.GRIP, sk.RIGHT_WRIST))
    checks["grip at a wrist"] = ~(wrists > FARTHEST_GRIP)
    checks["all"] = np.all(list(checks.values()), axis=0)
    return {name: float(passed.mean()) for name, passed in checks.items()}


def stick_figures(seen: Table, truth: Table) -> dict[str, float]:
    """How far the sticks of `seen` are from those of `truth`, by picture: shares of those that are there, medians of
    tip and grip in true lengths and of the angle in degrees, and the share of ends that are swapped.

    Raises UserError when they have no picture in common."""
    ours, theirs = same_pictures(seen, truth)
    a, b = seen.keypoints[ours][:, [sk.GRIP, sk.TIP]], truth.keypoints[theirs][:, [sk.GRIP, sk.TIP]]
    there, found = (b[..., 2] > 0).all(1), (a[..., 2] > 0).all(1)
    absent = ~b[..., :2].any((1, 2))  # an end outside the picture has a place
    figures = {"sticks": int(there.sum()), "found": float(found[there].mean()) if there.any() else 0.0}
    if absent.any():
        figures["invented"] = float(found[absent].mean())
    both = there & found
    if both.any():
        figures |= _distances(a[both, :, :2].astype(float), b[both, :, :2].astype(float))
    return figures


def same_pictures(seen: Table, truth: Table) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows of both tables that show the same pictures, those without one left out; raises UserError when
    none do."""
    place = {truth.picture_path(i).resolve(): i for i in range(len(truth)) if truth.pictures[i]}
    files = {i: seen.picture_path(i).resolve() for i in range(len(seen)) if seen.pictures[i]}
    pairs = [(i, place[file]) for i, file in files.items() if file in place]
    if not pairs:
        raise UserError("the table of the truth names none of these pictures; give the one that `see` was given")
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    return ours, theirs


def _distances(seen: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of sticks (N, 2, 2), grip and tip."""
    errors = stick_errors(seen, truth)
    return {
        "grip_error_median": float(np.median(errors.grip)), "tip_error_median": float(np.median(errors.tip)),
        "tip_off_by_a_tenth": float((errors.tip > 0.1).mean()),
        "angle_error_median_deg": float(np.median(errors.angle_deg)), "ends_swapped": float(errors.swapped.mean()),
    }  # fmt: skip


def _length(points: np.ndarray, a: int, b: int) -> np.ndarray:
    """(N,), NaN where a point is missing; comparisons with NaN are False."""
    return np.asarray(np.linalg.norm(points[:, a] - points[:, b], axis=1))


def _turned_alike(points: np.ndarray) -> np.ndarray:
    """False where the shoulders face the camera and the hips face away, or the other way round."""
    shoulders = points[:, sk.LEFT_SHOULDER, 0] - points[:, sk.RIGHT_SHOULDER, 0]
    hips = points[:, sk.LEFT_HIP, 0] - points[:, sk.RIGHT_HIP, 0]
    return ~((np.abs(shoulders) > _SIDE_ON) & (np.abs(hips) > _SIDE_ON) & (shoulders * hips < 0))
