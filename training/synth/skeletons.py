"""One 3D skeleton per class and one camera yaw per class and view, fitted to the pose statistics of the three views."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from engine.errors import UserError
from stages import skeleton as sk
from stages.angles import VIEWS
from training.synth import solve
from training.synth.camera import orbit
from training.synth.rotations import Array

log = logging.getLogger(__name__)

NOMINAL_YAW_DEG = {"front": 0.0, "left": 90.0, "right": -90.0}
# How the photographs behind the statistics were taken on average: found by the fit, see `fit_all`.
NOMINAL_DISTANCE_M = 2.8
NOMINAL_HEIGHT_M = 1.4
STICK_M = 0.615  # grip to tip of the average stick
HERE = Path(__file__).parent
STATISTICS = HERE / "pose_statistics.json"
"""Aggregates of real poses: no photograph and no single pose can be told from them."""
_FREE = 3 * sk.NODE_COUNT
"""Coordinates of a skeleton, before the yaw of each view among what is fitted."""

# Keypoints of the average body in metres, origin at the hip bone, x left, y back, z up (arms down, feet level).
_STANDING = np.array(
    [
        [0, -0.14, 0.62], [0.03, -0.119, 0.651], [-0.03, -0.119, 0.651], [0.074, -0.037, 0.632],
        [-0.074, -0.037, 0.632], [0.154, -0.011, 0.448], [-0.154, -0.011, 0.448], [0.19, -0.02, 0.18],
        [-0.19, -0.02, 0.18], [0.18, -0.14, -0.02], [-0.18, -0.14, -0.02], [0.088, -0.012, -0.032],
        [-0.088, -0.012, -0.032], [0.1, -0.05, -0.40], [-0.1, -0.05, -0.40], [0.1, 0.0, -0.776],
        [-0.1, 0.0, -0.776], [-0.18, -0.2, -0.06], [-0.18, -0.75, 0.1],
    ]
)  # fmt: skip

LENGTH_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Which `stick_length_quantiles` the statistics hold."""


@cache
def statistics() -> dict[str, dict[str, dict[str, Any]]]:
    """Class -> view -> mean, spread and modes of the keypoints in torso units (see the file's `units`); read once."""
    data: dict[str, dict[str, dict[str, Any]]] = json.loads(STATISTICS.read_text())["classes"]
    return data


def average_lengths() -> solve.Lengths:
    """Lengths of the average body, with a standing ankle and hip height."""
    pairs = solve.measure(_STANDING)
    fixed = {
        (sk.LEFT_SHOULDER, sk.LEFT_ELBOW): 0.259, (sk.RIGHT_SHOULDER, sk.RIGHT_ELBOW): 0.259,
        (sk.LEFT_ELBOW, sk.LEFT_WRIST): 0.232, (sk.RIGHT_ELBOW, sk.RIGHT_WRIST): 0.232,
        (sk.LEFT_HIP, sk.LEFT_KNEE): 0.376, (sk.RIGHT_HIP, sk.RIGHT_KNEE): 0.376,
        (sk.LEFT_KNEE, sk.LEFT_ANKLE): 0.373, (sk.RIGHT_KNEE, sk.RIGHT_ANKLE): 0.373,
        (sk.RIGHT_WRIST, sk.GRIP): 0.075, (sk.RIGHT_ELBOW, sk.GRIP): 0.298, (sk.GRIP, sk.TIP): STICK_M,
    }  # fmt: skip
    for k, (i, j, _) in enumerate(solve.RIGID_PAIRS):
        pairs[k] = fixed.get((i, j), pairs[k])
    return solve.Lengths(pairs, solve.ANKLE_HEIGHT_M, 0.83)


def wanted_mean(known: dict[str, Any]) -> tuple[Array, Array]:
    """Mean points (19, 2) of one class and view, and how far to trust each (19,), 1 / torso units."""
    points = np.zeros((sk.NODE_COUNT, 2))
    weight = np.zeros(sk.NODE_COUNT)
    points[: sk.BODY_COUNT] = known["body_mean"]
    weight[: sk.BODY_COUNT] = 1 / 0.03
    if "grip_mean" in known:
        points[sk.GRIP] = known["grip_mean"]
        weight[sk.GRIP] = 1 / 0.05
        a = np.radians(known["stick_angle_deg"])
        points[sk.TIP] = points[sk.GRIP] + known["stick_length_quantiles"][2] * np.array([np.cos(a), -np.sin(a)])
        trust = known["stick_angle_concentration"]
        weight[sk.TIP] = trust**2 / 0.08 if trust > 0.6 else 0.0
    return points, weight


def fit_class(views: dict[str, dict[str, Any]]) -> tuple[Array, dict[str, float], float]:
    """Skeleton (19, 3) in metres on the floor z = 0, camera yaw per view in degrees, and the cost left."""
    prior = _STANDING + np.array([0, 0, 0.866])
    problem = solve.Problem(average_lengths(), prior, np.full(sk.NODE_COUNT, 0.8))
    problem.prior_sigma[[sk.LEFT_HIP, sk.RIGHT_HIP]] = [0.1, 0.1]
    means = {v: wanted_mean(views[v]) for v in VIEWS}
    if "grip_mean" not in views["left"]:
        problem.prior_sigma[sk.TIP] = 0.2
    problem.wanted = [means[v][0] for v in VIEWS]
    problem.weight = [means[v][1] for v in VIEWS]

    def unpack(p: Array) -> Array:
        yaws = p[_FREE:]
        problem.cameras = [orbit(yaw, NOMINAL_DISTANCE_M, NOMINAL_HEIGHT_M) for yaw in yaws]
        return np.asarray(p[:_FREE].reshape(sk.NODE_COUNT, 3))

    def fun(p: Array) -> Array:
        x = unpack(p)
        yaw = (p[_FREE:] - np.array([NOMINAL_YAW_DEG[v] for v in VIEWS])) / np.array([4.0, 20.0, 20.0])
        return np.concatenate([solve.residuals(problem, x), yaw])

    best: tuple[float, Array] | None = None
    for side in (-1.0, 1.0):  # either foot may lead: start from both
        start = prior.copy()
        for joints, sign in (((sk.LEFT_KNEE, sk.LEFT_ANKLE), side), ((sk.RIGHT_KNEE, sk.RIGHT_ANKLE), -side)):
            start[joints[0], 1] += 0.08 * sign - 0.05
            start[joints[1], 1] += 0.2 * sign
        p0 = np.concatenate([start.ravel(), [NOMINAL_YAW_DEG[v] for v in VIEWS]])
        found = least_squares(fun, p0, x_scale=np.r_[np.full(_FREE, 0.05), np.full(3, 5.0)], max_nfev=80)
        if best is None or found.cost < best[0]:
            best = (float(found.cost), found.x)
    assert best is not None
    p = best[1]
    x = unpack(p)
    return x, dict(zip(VIEWS, (float(y) for y in p[_FREE:]), strict=True)), best[0]


def fit_all() -> dict[str, dict[str, Any]]:
    """All classes with the nominal cameras; takes about a minute."""
    out: dict[str, dict[str, Any]] = {}
    for name, views in statistics().items():
        points, yaws, cost = fit_class(views)
        out[name] = {"points_m": np.round(points, 4).tolist(), "yaw_deg": yaws, "cost": round(cost, 2)}
    return out


@cache
def class_skeletons() -> dict[str, tuple[Array, dict[str, float]]]:
    """Class -> skeleton (19, 3) in metres and the camera yaw of each view in degrees; read once."""
    data = json.loads((HERE / "class_skeletons.json").read_text())
    return {name: (np.array(entry["points_m"]), entry["yaw_deg"]) for name, entry in data.items()}


def write_skeletons(file: Path) -> None:
    """Fit again and write JSON such as the shipped class_skeletons.json, which is read from beside this module.

    Raises UserError where `file` can't be.
    """
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"--out {file}: give the name of a file in a folder that exists")
    file.write_text(json.dumps(fit_all(), indent=1) + "\n", encoding="utf-8")
    log.info("wrote %s; pictures are drawn by it once it replaces %s", file, HERE / "class_skeletons.json")
