"""Draws poses from the statistics: a skeleton in space for one body, seen from one camera, of one class or neutral."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages import skeleton as sk
from training.synth import solve
from training.synth.body import Wish
from training.synth.camera import Camera, orbit
from training.synth.rig import Rest
from training.synth.rotations import about, unit
from training.synth.skeletons import load_skeletons, load_statistics

Array = NDArray[np.float64]

NEUTRAL = "neutral"
BETWEEN = "between"
# Direction of the palm of the weapon hand in the performer's frame (x left, y back, z up).
PALMS: dict[str, tuple[float, float, float]] = {
    "left_temple_block": (0, 0, 1), "right_temple_block": (0, 0, -1), "left_eye_thrust": (0, 0, -1),
    "right_eye_thrust": (0, 0, 1), "left_chest_thrust": (-0.8, 0, -0.6), "right_chest_thrust": (0, 0, 1),
    "left_elbow_block": (-0.3, 0, 0.7), "right_elbow_block": (0, 0, -1), "left_knee_block": (0, 0, -1),
    "right_knee_block": (0, 0, 1),
}  # fmt: skip
MODE_LIMIT = 2.2
NEUTRAL_KINDS = {
    "statistics": 0.26,
    "ready": 0.16,
    "salute": 0.1,
    "idle": 0.15,
    "walk": 0.1,
    "between": 0.15,
    "wrong": 0.08,
}


@dataclass(frozen=True)
class Scene:
    """A pose to draw: points in metres, the camera, and what the picture is called."""

    points: Array  # (19, 3), grip and tip NaN without a stick
    camera: Camera
    view: str
    wish: Wish


@cache
def statistics() -> dict[str, dict[str, dict[str, Any]]]:
    """The statistics file, read once."""
    return load_statistics()


@cache
def skeletons() -> dict[str, tuple[Array, dict[str, float]]]:
    """The class skeletons, read once."""
    return load_skeletons()


def sample_2d(rng: np.random.Generator, name: str, view: str, spread: float = 1.0) -> tuple[Array, Array]:
    """Points (19, 2) in torso units and their weights (19,), drawn from one class and view; weight 0 = not drawn."""
    s = statistics()[name][view]
    mean, std = np.array(s["body_mean"]), np.array(s["body_std"])
    offset = np.zeros_like(mean)
    explained = np.zeros_like(mean)
    for mode in s["body_modes"]:
        z = float(np.clip(rng.normal(), -MODE_LIMIT, MODE_LIMIT)) * spread
        direction = np.array(mode["direction"]) * mode["std"]
        offset += z * direction
        explained += direction**2
    rest = np.sqrt(np.clip(std**2 - explained, 0, None))
    offset += rng.normal(size=mean.shape) * rest * 0.5 * spread
    points, weight = np.zeros((sk.NODE_COUNT, 2)), np.zeros(sk.NODE_COUNT)
    points[: sk.BODY_COUNT] = mean + offset
    weight[: sk.BODY_COUNT] = 1 / 0.035
    if "grip_mean" in s:
        grip = np.array(s["grip_mean"]) + 0.85 * offset[sk.RIGHT_WRIST]
        own = np.clip(np.array(s["grip_std"]) ** 2 - (0.85 * std[sk.RIGHT_WRIST]) ** 2, 0.0, None) ** 0.5
        points[sk.GRIP] = grip + rng.normal(size=2) * np.minimum(own, 0.1) * spread
        weight[sk.GRIP] = 1 / 0.04
        trust = s["stick_angle_concentration"]
        drawn = rng.random() < s["stick_found"] * (1.0 if trust > 0.6 else 0.5)
        if drawn:
            sigma = np.sqrt(-2 * np.log(max(trust, 0.05))) * spread
            a = np.radians(s["stick_angle_deg"]) + rng.normal() * sigma
            length = np.interp(rng.random(), (0.05, 0.25, 0.5, 0.75, 0.95), s["stick_length_quantiles"])
            points[sk.TIP] = points[sk.GRIP] + length * np.array([np.cos(a), -np.sin(a)])
            weight[sk.TIP] = 1 / 0.06
    return points, weight


def scaled_skeleton(name: str, rest: Rest) -> Array:
    """The class skeleton with the bone lengths of one body."""
    base = skeletons()[name][0]
    start = base * (rest.lengths.hip_m / 0.83)
    return solve.solve(solve.Problem(rest.lengths, start, np.full(sk.NODE_COUNT, 0.06)), start)


def fit_sample(
    rng: np.random.Generator, name: str, view: str, rest: Rest, camera: Camera, spread: float = 1.0
) -> Array:
    """A skeleton (19, 3) of one class that looks like a draw from the statistics of `view` in `camera`."""
    prior = scaled_skeleton(name, rest)
    wanted, weight = sample_2d(rng, name, view, spread)
    sigma = np.full(sk.NODE_COUNT, 0.12)
    sigma[[sk.LEFT_HIP, sk.RIGHT_HIP]] = 0.06
    sigma[[sk.GRIP, sk.TIP]] = (0.14, 0.3)
    if weight[sk.TIP] == 0:
        stick = prior[sk.TIP] - prior[sk.GRIP]
        stick = about(rng.normal(size=3), rng.normal(0, 11)) @ stick
        prior = prior.copy()
        prior[sk.TIP] = prior[sk.GRIP] + stick
        sigma[sk.TIP] = 0.15
    problem = solve.Problem(rest.lengths, prior, sigma, [camera], [wanted], [weight])
    return solve.solve(problem, prior, steps=14)


def turned(points: Array, yaw_deg: float) -> Array:
    """The performer turned about the vertical axis through the origin."""
    return points @ about(np.array([0, 0, 1.0]), yaw_deg).T


def view_camera(name: str, view: str, distance_m: float, height_m: float, fov_deg: float, yaw_offset_deg: float,
                size: tuple[int, int]) -> Camera:  # fmt: skip
    """The camera of one class and view at the yaw that the class skeleton was fitted with."""
    return orbit(skeletons()[name][1][view] + yaw_offset_deg, distance_m, height_m, fov_deg=fov_deg, size=size)


def blend(a: Array, b: Array, t: float, rest: Rest) -> Array:
    """A skeleton between two others: points interpolated, bone lengths restored, stick turned along the arc."""
    mid = (1 - t) * a + t * b
    u, v = unit(a[sk.TIP] - a[sk.GRIP]), unit(b[sk.TIP] - b[sk.GRIP])
    angle = float(np.arccos(np.clip(u @ v, -1, 1)))
    d = u if angle < 1e-3 else (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / max(float(np.sin(angle)), 1e-3)
    mid[sk.TIP] = mid[sk.GRIP] + rest.stick_m * unit(d)
    sigma = np.full(sk.NODE_COUNT, 0.05)
    return solve.solve(solve.Problem(rest.lengths, mid, sigma), mid)


def _reach(rest: Rest, base: Array, targets: dict[int, Array], stick: Array) -> Array:
    """`base` with some points pulled to targets and the stick along a direction."""
    goal = base.copy()
    sigma = np.full(sk.NODE_COUNT, 0.08)
    sigma[[sk.LEFT_ELBOW, sk.RIGHT_ELBOW]] = 0.3
    for node, place in targets.items():
        goal[node], sigma[node] = place, 0.02
    if sk.RIGHT_WRIST in targets:
        ahead = unit(goal[sk.RIGHT_WRIST] - goal[sk.RIGHT_ELBOW])
        goal[sk.GRIP] = goal[sk.RIGHT_WRIST] + 0.06 * ahead
        sigma[sk.GRIP] = 0.08
    goal[sk.TIP] = goal[sk.GRIP] + rest.stick_m * unit(stick)
    sigma[sk.TIP] = 0.12
    return solve.solve(solve.Problem(rest.lengths, goal, sigma), goal, steps=20)


def standing(rng: np.random.Generator, rest: Rest) -> Array:
    """A relaxed stance, feet about level, both hands low: the start of every neutral pose."""
    base = scaled_skeleton(NEUTRAL, rest)
    h = rest.lengths.hip_m
    wide, turn = rng.uniform(0.06, 0.2), rng.normal(0, 0.06)
    hand_z = h * rng.uniform(0.95, 1.15)
    targets = {
        sk.LEFT_ANKLE: np.array([wide, turn, rest.lengths.ankle_m]),
        sk.RIGHT_ANKLE: np.array([-wide, -turn, rest.lengths.ankle_m]),
        sk.LEFT_KNEE: np.array([wide * 0.9, turn - 0.06, h * 0.52]),
        sk.RIGHT_KNEE: np.array([-wide * 0.9, -turn - 0.06, h * 0.52]),
        sk.LEFT_WRIST: np.array([rng.uniform(0.05, 0.32), rng.uniform(-0.3, -0.02), hand_z]),
        sk.RIGHT_WRIST: np.array([rng.uniform(-0.32, -0.1), rng.uniform(-0.25, 0.0), h * rng.uniform(0.92, 1.1)]),
    }
    down = np.array([rng.normal(0, 0.3), rng.uniform(-0.8, 0.1), -1.0])
    return _reach(rest, base, targets, down)


def neutral_pose(rng: np.random.Generator, kind: str, rest: Rest, classes: tuple[str, ...]) -> Array:
    """A skeleton that is none of the twelve poses."""
    base = standing(rng, rest)
    h = rest.lengths.hip_m
    shoulder = float(base[[sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER], 2].mean())
    n = rng.normal
    if kind == "ready":  # both hands low in front, stick across or forward
        z = h * rng.uniform(1.05, 1.3)
        right = np.array([rng.uniform(-0.22, 0.0), rng.uniform(-0.32, -0.18), z])
        left = np.array([rng.uniform(0.02, 0.2), rng.uniform(-0.34, -0.18), z + n(0, 0.04)])
        stick = np.array([rng.uniform(0.2, 1.2), rng.uniform(-0.7, 0.1), rng.uniform(-0.6, 0.7)])
        return _reach(rest, base, {sk.RIGHT_WRIST: right, sk.LEFT_WRIST: left}, stick)
    if kind == "salute":  # stick upright before the chest or the face
        right = np.array([rng.uniform(-0.15, 0.05), rng.uniform(-0.32, -0.2), shoulder - rng.uniform(0.05, 0.3)])
        stick = np.array([n(0, 0.2), n(0, 0.15), 1.0])
        left = np.array([rng.uniform(0.0, 0.15), rng.uniform(-0.3, -0.15), shoulder - rng.uniform(0.1, 0.3)])
        targets = {sk.RIGHT_WRIST: right}
        if rng.random() < 0.6:
            targets[sk.LEFT_WRIST] = left
        return _reach(rest, base, targets, stick)
    if kind == "walk":
        step = rng.uniform(0.15, 0.33) * rng.choice([-1, 1])
        targets = {
            sk.LEFT_ANKLE: np.array([0.08, step, rest.lengths.ankle_m + (0.05 if step > 0 else 0)]),
            sk.RIGHT_ANKLE: np.array([-0.08, -step, rest.lengths.ankle_m + (0.05 if step < 0 else 0)]),
            sk.LEFT_WRIST: np.array([0.26, -0.05 - step * 0.7, h * 1.02]),
            sk.RIGHT_WRIST: np.array([-0.26, -0.05 + step * 0.7, h * 1.02]),
        }
        return _reach(rest, base, targets, np.array([n(0, 0.2), rng.uniform(-1.2, 0.6), -0.8]))
    if kind == "between":
        a, b = rng.choice(len(classes), 2, replace=False)
        return blend(
            scaled_skeleton(classes[a], rest), scaled_skeleton(classes[b], rest), rng.uniform(0.35, 0.65), rest
        )
    if kind == "wrong":  # a class's body with a stick that points elsewhere
        body = scaled_skeleton(classes[rng.integers(len(classes))], rest)
        own = unit(body[sk.TIP] - body[sk.GRIP])
        stick = own
        while np.degrees(np.arccos(np.clip(stick @ own, -1, 1))) < 65:
            stick = unit(rng.normal(size=3) + np.array([0, -0.4, 0]))
        return _reach(rest, body, {sk.GRIP: body[sk.GRIP]}, stick)
    return base
