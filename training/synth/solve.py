"""Finds 19 points in space that look right in a picture and keep the lengths of a given body: damped Gauss-Newton."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stages import skeleton as sk
from training.synth.camera import Camera
from training.synth.rotations import Array

HEAD = (sk.NOSE, sk.LEFT_EYE, sk.RIGHT_EYE, sk.LEFT_EAR, sk.RIGHT_EAR)
# Pairs of points whose distance the body fixes, with the standard deviation in metres that the fit may leave.
RIGID_PAIRS: tuple[tuple[int, int, float], ...] = (
    *((i, j, 0.004) for k, i in enumerate(HEAD) for j in HEAD[k + 1 :]),
    (sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER, 0.012),
    (sk.LEFT_HIP, sk.RIGHT_HIP, 0.006),
    (sk.LEFT_SHOULDER, sk.LEFT_HIP, 0.03),
    (sk.RIGHT_SHOULDER, sk.RIGHT_HIP, 0.03),
    (sk.LEFT_SHOULDER, sk.RIGHT_HIP, 0.03),
    (sk.RIGHT_SHOULDER, sk.LEFT_HIP, 0.03),
    (sk.LEFT_SHOULDER, sk.LEFT_ELBOW, 0.008),
    (sk.RIGHT_SHOULDER, sk.RIGHT_ELBOW, 0.008),
    (sk.LEFT_ELBOW, sk.LEFT_WRIST, 0.008),
    (sk.RIGHT_ELBOW, sk.RIGHT_WRIST, 0.008),
    (sk.LEFT_HIP, sk.LEFT_KNEE, 0.008),
    (sk.RIGHT_HIP, sk.RIGHT_KNEE, 0.008),
    (sk.LEFT_KNEE, sk.LEFT_ANKLE, 0.008),
    (sk.RIGHT_KNEE, sk.RIGHT_ANKLE, 0.008),
    *((s, h, 0.03) for s in (sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER) for h in (sk.LEFT_EAR, sk.RIGHT_EAR, sk.NOSE)),
    (sk.RIGHT_WRIST, sk.GRIP, 0.008),
    (sk.RIGHT_ELBOW, sk.GRIP, 0.018),
    (sk.GRIP, sk.TIP, 0.004),
)
ANKLE_HEIGHT_M = 0.09
FLOOR_SIGMA_M = 0.03


@dataclass(frozen=True)
class Lengths:
    """Distances in metres for `RIGID_PAIRS`, the standing height of the ankles and of the hips."""

    pairs: Array
    ankle_m: float
    hip_m: float

    def reach_m(self) -> float:
        """Shoulder to wrist of the straight left arm."""
        return sum(
            float(d)
            for (i, j, _), d in zip(RIGID_PAIRS, self.pairs, strict=True)
            if (i, j) in ((sk.LEFT_SHOULDER, sk.LEFT_ELBOW), (sk.LEFT_ELBOW, sk.LEFT_WRIST))
        )


@dataclass
class Problem:
    """What the points should fit: any number of pictures in torso units, and a prior in space."""

    lengths: Lengths
    prior: Array  # (19, 3) metres
    prior_sigma: Array  # (19,) metres
    cameras: list[Camera] = field(default_factory=list)
    wanted: list[Array] = field(default_factory=list)  # (19, 2) torso units, origin mid-hip
    weight: list[Array] = field(default_factory=list)  # (19,) 1 / torso units, 0 = not seen


def torso_frame(pixels: Array) -> tuple[Array, float]:
    """Mid-hip (2,) and torso length of keypoints in pixels."""
    hip = (pixels[sk.LEFT_HIP] + pixels[sk.RIGHT_HIP]) / 2
    shoulder = (pixels[sk.LEFT_SHOULDER] + pixels[sk.RIGHT_SHOULDER]) / 2
    return hip, max(float(np.linalg.norm(shoulder - hip)), 1e-6)


def to_torso_units(pixels: Array) -> Array:
    """Keypoints (19, 2) in pixels to torso units with the origin at mid-hip."""
    hip, torso = torso_frame(pixels)
    return (pixels - hip) / torso


def measure(points: Array) -> Array:
    """Distances of RIGID_PAIRS in a skeleton (19, 3)."""
    i, j = _PAIR_I, _PAIR_J
    return np.asarray(np.linalg.norm(points[i] - points[j], axis=1))


_PAIR_I = np.array([p[0] for p in RIGID_PAIRS])
_PAIR_J = np.array([p[1] for p in RIGID_PAIRS])
_PAIR_W = 1.0 / np.array([p[2] for p in RIGID_PAIRS])
_ANKLES = np.array([sk.LEFT_ANKLE, sk.RIGHT_ANKLE])


def _rows(problem: Problem, x: Array) -> tuple[Array, Array]:
    """Residuals (m,) and Jacobian (m, 57) of all terms; the torso frame counts as constant in a step."""
    n = sk.NODE_COUNT
    residuals: list[Array] = []
    jacobians: list[Array] = []
    for camera, wanted, weight in zip(problem.cameras, problem.wanted, problem.weight, strict=True):
        pixels = camera.project(x)
        hip, torso = torso_frame(pixels)
        residuals.append((((pixels - hip) / torso - wanted) * weight[:, None]).ravel())
        block = np.zeros((n, 2, n, 3))
        d = camera.jacobian(x) * (weight / torso)[:, None, None]
        block[np.arange(n), :, np.arange(n)] = d
        mid = (d[[sk.LEFT_HIP]] + d[[sk.RIGHT_HIP]])[0] / 2 / max(weight[sk.LEFT_HIP], 1e-9)
        for h in (sk.LEFT_HIP, sk.RIGHT_HIP):
            block[:, :, h] -= 0.5 * weight[:, None, None] * mid[None]
        jacobians.append(block.reshape(2 * n, 3 * n))
    diff = x[_PAIR_I] - x[_PAIR_J]
    dist = np.maximum(np.linalg.norm(diff, axis=1), 1e-9)
    residuals.append((dist - problem.lengths.pairs) * _PAIR_W)
    unit = diff / dist[:, None] * _PAIR_W[:, None]
    block = np.zeros((len(dist), n, 3))
    rows = np.arange(len(dist))
    block[rows, _PAIR_I] = unit
    block[rows, _PAIR_J] = -unit
    jacobians.append(block.reshape(len(dist), -1))
    w = np.repeat(1 / problem.prior_sigma, 3)
    residuals.append((x - problem.prior).ravel() * w)
    jacobians.append(np.diag(w))
    residuals.append((x[_ANKLES, 2] - problem.lengths.ankle_m) / FLOOR_SIGMA_M)
    floor = np.zeros((2, n, 3))
    floor[[0, 1], _ANKLES, 2] = 1 / FLOOR_SIGMA_M
    jacobians.append(floor.reshape(2, -1))
    return np.concatenate(residuals), np.concatenate(jacobians)


def residuals(problem: Problem, x: Array) -> Array:
    """All weighted residuals of a skeleton."""
    return _rows(problem, x)[0]


def solve(problem: Problem, start: Array, steps: int = 12) -> Array:
    """Levenberg-Marquardt from `start` (19, 3); returns the points in metres."""
    x = start.astype(np.float64).copy()
    damping = 1e-2
    r, j = _rows(problem, x)
    cost = float(r @ r)
    for _ in range(steps):
        normal = j.T @ j
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -(j.T @ r)).reshape(x.shape)
        size = float(np.abs(step).max())
        if size > 0.3:
            step *= 0.3 / size
        r2, j2 = _rows(problem, x + step)
        cost2 = float(r2 @ r2)
        if cost2 < cost:
            x, r, j, damping = x + step, r2, j2, damping * 0.3
            if cost - cost2 < 1e-3 * cost:
                break
            cost = cost2
        else:
            damping *= 8
    return x
