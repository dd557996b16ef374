"""Draws poses from the statistics: a skeleton in space for one body, seen from one camera, of one class or neutral."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from stages import skeleton as sk
from training.synth import solve
from training.synth.body import brace_place, palm_error_deg
from training.synth.camera import Camera, orbit
from training.synth.rig import Rest
from training.synth.rotations import Array, about, unit
from training.synth.skeletons import LENGTH_QUANTILES, class_skeletons, statistics

NEUTRAL = "neutral"
"""What the statistics and skeletons call people in no pose, however the class file names them."""
BETWEEN = "between"
# Direction of the palm of the weapon hand in the performer's frame (x left, y back, z up).
PALMS: dict[str, tuple[float, float, float]] = {
    "left_temple_block": (0, 0, 1), "right_temple_block": (0, 0, -1), "left_eye_thrust": (0, 0, -1),
    "right_eye_thrust": (0, 0, 1), "left_chest_thrust": (-0.8, 0, -0.6), "right_chest_thrust": (0, 0, 1),
    "left_elbow_block": (-0.7, 0, 0.6), "right_elbow_block": (0, 0, -1), "left_knee_block": (0, 0.6, -0.8),
    "right_knee_block": (0, -0.6, 0.8),
}  # fmt: skip
MODE_LIMIT = 2.2
WIDER = 1.1  # the cut modes and the pull to the class skeleton narrow the draws
PALM_LIMIT_DEG, PALM_TRIES = 50.0, 6
# Components of a stick along the thumb side of its hand: of the class's own stick, and the least that a draw may have.
THUMBWARD, LEAST_THUMBWARD = 0.55, -0.1
LOOSE_ANGLE = 0.7
ELBOW_THUMBWARD_M = 0.07  # how far the elbow gives way to a palm, where the pictures do not hold it
NEUTRAL_KINDS = {
    "statistics": 0.22, "ready": 0.14, "salute": 0.1, "idle": 0.13, "walk": 0.08, "between": 0.13, "wrong": 0.08,
    "guard": 0.04, "stretch": 0.03, "point": 0.03, "behind": 0.02,
}  # fmt: skip


def sample_2d(
    rng: np.random.Generator, name: str, view: str, spread: float = 1.0, seen: bool | None = None
) -> tuple[Array, Array]:
    """Points (19, 2) in torso units and their weights (19,), drawn from one class and view; weight 0 = not drawn.

    The stick is `seen` as often as a detector saw it, unless told.
    """
    s = statistics()[name][view]
    mean, std = np.array(s["body_mean"]), np.array(s["body_std"])
    offset = np.zeros_like(mean)
    explained = np.zeros_like(mean)
    for mode in s["body_modes"]:
        z = float(np.clip(rng.normal(), -MODE_LIMIT, MODE_LIMIT)) * spread
        direction = np.array(mode["direction"]) * mode["std"]
        offset += WIDER * z * direction
        explained += direction**2
    rest = np.sqrt(np.clip(std**2 - explained, 0, None))
    offset += rng.normal(size=mean.shape) * rest * 0.8 * spread
    points, weight = np.zeros((sk.NODE_COUNT, 2)), np.zeros(sk.NODE_COUNT)
    points[: sk.BODY_COUNT] = mean + offset
    weight[: sk.BODY_COUNT] = 1 / 0.035
    if "grip_mean" in s:
        grip = np.array(s["grip_mean"]) + 0.85 * offset[sk.RIGHT_WRIST]
        own = np.clip(np.array(s["grip_std"]) ** 2 - (0.85 * std[sk.RIGHT_WRIST]) ** 2, 0.0, None) ** 0.5
        points[sk.GRIP] = grip + rng.normal(size=2) * np.minimum(own, 0.1) * spread
        weight[sk.GRIP] = 1 / 0.04
        trust = s["stick_angle_concentration"]
        if rng.random() < s["stick_found"] if seen is None else seen:
            sigma = np.sqrt(-2 * np.log(max(trust, 0.05))) * spread
            a = np.radians(s["stick_angle_deg"]) + rng.normal() * sigma
            length = np.interp(rng.random(), LENGTH_QUANTILES, s["stick_length_quantiles"])
            points[sk.TIP] = points[sk.GRIP] + length * np.array([np.cos(a), -np.sin(a)])
            weight[sk.TIP] = 1 / 0.06
    return points, weight


@lru_cache(maxsize=64)
def scaled_skeleton(name: str, rest: Rest) -> Array:
    """The class skeleton with the bone lengths of one body, read-only."""
    base = class_skeletons()[name][0]
    start = base * (rest.lengths.hip_m / 0.83)
    points = solve.solve(solve.Problem(rest.lengths, start, np.full(sk.NODE_COUNT, 0.06)), start)
    points.setflags(write=False)
    return points


def palm_of(name: str) -> Array | None:
    """Unit direction of the palm of a class, None where nothing is known."""
    palm = PALMS.get(name)
    return None if palm is None else unit(np.array(palm, float))


def thumb_side(points: Array, palm: Array) -> Array:
    """Where the thumb, and so the stick, lies off the forearm of a right hand whose palm looks along `palm`."""
    fore = unit(points[sk.RIGHT_WRIST] - points[sk.RIGHT_ELBOW])
    return unit(np.cross(fore, palm))


def _towards(direction: Array, side: Array, least: float) -> Array:
    """`direction` turned until its component along `side` is at least `least`."""
    missing = least - float(direction @ side)
    if missing <= 0:
        return direction
    across = unit(direction - (direction @ side) * side)
    return np.asarray(least * side + np.sqrt(1 - least**2) * across)


def _loose(name: str, view: str) -> bool:
    """Whether the statistics leave the stick's angle open, so that the palm may choose."""
    return bool(statistics()[name][view].get("stick_angle_concentration", 0.0) < LOOSE_ANGLE)


def _draw_for_palm(
    rng: np.random.Generator,
    name: str,
    view: str,
    camera: Camera,
    side: Array | None,
    spread: float,
    seen: bool | None,
) -> tuple[Array, Array]:
    """A draw of the statistics whose stick leaves the fist where the palm lets it; no hand can hold the others."""
    right, up, _ = camera.axes()
    for _ in range(12):
        wanted, weight = sample_2d(rng, name, view, spread, seen)
        x, y = wanted[sk.TIP] - wanted[sk.GRIP]
        length = max(float(np.hypot(x, y)), 1e-9)
        if weight[sk.TIP] == 0 or side is None or not _loose(name, view):
            break
        if float((x * right - y * up) @ side) > LEAST_THUMBWARD * length:
            break
    return wanted, weight


def _class_stick(
    rng: np.random.Generator, name: str, view: str, prior: Array, side: Array | None, camera: Camera, seen: bool
) -> Array:
    """Direction of the class's own stick, turned to where the palm lets it lie."""
    own = unit(prior[sk.TIP] - prior[sk.GRIP])
    if not seen:
        return np.asarray(about(rng.normal(size=3), rng.normal(0, 11)) @ own)
    if side is None:
        return own
    # Pictures do not tell on which side of the forearm a stick lies in depth; the palm does.
    back = camera.axes()[2]
    return _towards(
        own, side if _loose(name, view) else unit((side @ back) * back), THUMBWARD * abs(float(side @ back))
    )


def _point_at_lens(
    rng: np.random.Generator, wanted: Array, weight: Array, prior: Array, side: Array | None, rest: Rest, camera: Camera
) -> None:
    """Make the stick nearly end-on in the picture, as most are that a detector misses from the front; in place."""
    right, up, _ = camera.axes()
    lean = rng.normal(size=2) if side is None else np.array([side @ right, -(side @ up)]) + rng.normal(0, 0.3, 2)
    wanted[sk.TIP] = wanted[sk.GRIP] + abs(rng.normal(0, 0.17)) * unit(lean)
    weight[sk.TIP] = 1 / 0.06
    prior[sk.TIP] = prior[sk.GRIP] + rest.stick_m * unit(camera.eye - prior[sk.GRIP])


def fit_sample(
    rng: np.random.Generator,
    name: str,
    view: str,
    rest: Rest,
    camera: Camera,
    spread: float = 1.0,
    seen: bool | None = None,
) -> Array:
    """A skeleton (19, 3) of one class that looks like a draw from the statistics of `view` in `camera`."""
    prior = scaled_skeleton(name, rest).copy()
    palm = palm_of(name)
    side = None if palm is None else thumb_side(prior, palm)
    wanted, weight = _draw_for_palm(rng, name, view, camera, side, spread, seen)
    sigma = np.full(sk.NODE_COUNT, 0.12)
    sigma[[sk.LEFT_HIP, sk.RIGHT_HIP]] = 0.06
    drawn = bool(weight[sk.TIP] > 0)
    sigma[[sk.GRIP, sk.TIP]] = (0.14, 0.3)
    prior[sk.TIP] = prior[sk.GRIP] + rest.stick_m * _class_stick(rng, name, view, prior, side, camera, drawn)
    if not drawn and view == "front" and name != NEUTRAL:
        _point_at_lens(rng, wanted, weight, prior, side, rest, camera)
    elif not drawn:
        sigma[sk.TIP] = 0.15
    if side is not None:
        prior[sk.RIGHT_ELBOW] += ELBOW_THUMBWARD_M * side
        prior[[sk.RIGHT_WRIST, sk.GRIP]] -= 0.5 * ELBOW_THUMBWARD_M * side
    problem = solve.Problem(rest.lengths, prior, sigma, [camera], [wanted], [weight])
    return solve.solve(problem, prior, steps=14)


def fit_for_palm(
    rng: np.random.Generator, name: str, view: str, rest: Rest, camera: Camera, spread: float = 1.0
) -> Array:
    """Like `fit_sample`, drawn again while the palm of the class would be out of the hand's reach."""
    palm = palm_of(name)
    seen = bool(rng.random() < statistics()[name][view]["stick_found"])  # once, or trying again would favour one
    for _ in range(PALM_TRIES):
        points = fit_sample(rng, name, view, rest, camera, spread, seen)
        if palm is None or palm_error_deg(rest, points, palm) < PALM_LIMIT_DEG:
            break
    return points


def braced(rng: np.random.Generator, points: Array, rest: Rest, palm: Array | None) -> Array | None:
    """A block whose free hand lies on the stick, which is drawn in and turned across; None out of reach."""
    own = unit(points[sk.TIP] - points[sk.GRIP])
    across = unit(np.array([rng.uniform(0.1, 0.8), -0.15, np.sign(own[2]) * rng.uniform(0.5, 1.0)]))
    shoulders = points[[sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER]].mean(0)
    for pull in (0.25, 0.5, 0.75, 1.0):
        near = np.array([shoulders[0] - 0.12, shoulders[1] - 0.24, points[sk.GRIP, 2]])
        grip = (1 - pull) * points[sk.GRIP] + pull * near
        stick = unit((1 - pull) * own + pull * across)
        goal = points.copy()
        goal[sk.GRIP], goal[sk.TIP] = grip, grip + rest.stick_m * stick
        found = _reach(rest, points, {sk.GRIP: grip, sk.LEFT_WRIST: brace_place(rest, goal)}, stick)
        reach = rest.lengths.reach_m()
        near_enough = np.linalg.norm(brace_place(rest, found) - found[sk.LEFT_SHOULDER]) < reach + 0.02
        if near_enough and (palm is None or palm_error_deg(rest, found, palm) < PALM_LIMIT_DEG):
            return found
    return None


def turned(points: Array, yaw_deg: float) -> Array:
    """The performer turned about the vertical axis through the origin."""
    return points @ about(np.array([0, 0, 1.0]), yaw_deg).T


def view_camera(name: str, view: str, distance_m: float, height_m: float, fov_deg: float, yaw_offset_deg: float,
                size: tuple[int, int]) -> Camera:  # fmt: skip
    """The camera of one class and view at the yaw that the class skeleton was fitted with."""
    return orbit(class_skeletons()[name][1][view] + yaw_offset_deg, distance_m, height_m, fov_deg=fov_deg, size=size)


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
    if kind in PICK_UPS:
        return PICK_UPS[kind](rng, rest, base)
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


def _guard(rng: np.random.Generator, rest: Rest, base: Array) -> Array:
    """Both hands up, the stick over the right shoulder."""
    z = float(base[[sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER], 2].mean())
    right = np.array([rng.uniform(-0.24, -0.12), rng.uniform(-0.25, -0.12), z + rng.uniform(-0.08, 0.06)])
    left = np.array([rng.uniform(0.02, 0.18), rng.uniform(-0.34, -0.18), z + rng.uniform(-0.15, 0.08)])
    stick = np.array([rng.normal(-0.2, 0.2), rng.uniform(0.4, 1.3), rng.uniform(0.3, 1.0)])
    return _reach(rest, base, {sk.RIGHT_WRIST: right, sk.LEFT_WRIST: left}, stick)


def _stretch(rng: np.random.Generator, rest: Rest, base: Array) -> Array:
    """Arms overhead, the stick across or straight up."""
    z = float(base[sk.NOSE, 2]) + rng.uniform(0.15, 0.35)
    right = np.array([rng.uniform(-0.35, -0.1), rng.uniform(-0.15, 0.05), z])
    left = np.array([rng.uniform(0.1, 0.35), rng.uniform(-0.15, 0.05), z])
    stick = np.array([1.0, 0.0, rng.normal(0, 0.2)]) if rng.random() < 0.7 else np.array([0.0, 0.2, 1.0])
    return _reach(rest, base, {sk.RIGHT_WRIST: right, sk.LEFT_WRIST: left}, stick)


def _point(rng: np.random.Generator, rest: Rest, base: Array) -> Array:
    """The free hand points at something; the stick hangs."""
    shoulder = base[sk.LEFT_SHOULDER]
    way = unit(np.array([rng.uniform(-0.3, 1.0), -1.0, rng.normal(0, 0.3)]))
    left = shoulder + 0.95 * rest.lengths.reach_m() * way
    return _reach(rest, base, {sk.LEFT_WRIST: left}, np.array([rng.normal(0, 0.3), rng.uniform(-0.6, 0.3), -1.0]))


def _behind(rng: np.random.Generator, rest: Rest, base: Array) -> Array:
    """Both hands hold the stick behind the back."""
    z = rest.lengths.hip_m * rng.uniform(0.98, 1.15)
    right = np.array([rng.uniform(-0.16, -0.06), rng.uniform(0.14, 0.2), z])
    left = np.array([rng.uniform(0.02, 0.16), rng.uniform(0.14, 0.2), z + rng.normal(0, 0.03)])
    stick = np.array([rng.uniform(0.3, 1.0), 0.1, rng.normal(0, 0.6)])
    return _reach(rest, base, {sk.RIGHT_WRIST: right, sk.LEFT_WRIST: left}, stick)


PICK_UPS = {"guard": _guard, "stretch": _stretch, "point": _point, "behind": _behind}
