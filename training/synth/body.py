"""Poses an `anny` body like a skeleton of 19 points: inverse kinematics per limb, then linear blend skinning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from stages import skeleton as sk
from training.synth.rig import Fist, Rest, Rig, finger_rotations, forward, load_rig
from training.synth.rotations import Array, about, between, cross, frame, power, twist_deg, unit

SIDES = (
    ("L", sk.LEFT_SHOULDER, sk.LEFT_ELBOW, sk.LEFT_WRIST, sk.LEFT_HIP, sk.LEFT_KNEE, sk.LEFT_ANKLE),
    ("R", sk.RIGHT_SHOULDER, sk.RIGHT_ELBOW, sk.RIGHT_WRIST, sk.RIGHT_HIP, sk.RIGHT_KNEE, sk.RIGHT_ANKLE),
)
SPINE_SHARE = {"spine05": 0.12, "spine04": 0.3, "spine03": 0.55, "spine02": 0.8, "spine01": 1.0}
# A palm on the wrong side costs as much as a wrist at its limit: the palm is what tells pairs of classes apart.
PALM_WEIGHT = 16.0
WRIST_LIMIT_DEG = 55.0
STICK_IN_HAND_DEG = (36.0, 102.0)
BRACE_FROM_BUTT = 0.7  # where the free hand lies on a braced stick, share of its length
NECK_SHARE = {"neck01": 0.25, "neck02": 0.5, "neck03": 0.75, "head": 1.0}


@dataclass(frozen=True)
class Posed:
    """A posed mesh on the floor z = 0 with its 19 true keypoints and the butt of the stick, metres; the palm's way."""

    vertices: Array
    keypoints: Array
    butt: Array
    palm: Array  # unit direction out of the palm of the right hand


@dataclass(frozen=True)
class Wish:
    """What the hands and feet should do beyond the keypoints."""

    palm: Array | None = None  # wished palm direction of the weapon hand
    free_curl: float = 0.4
    free_roll_deg: float = 0.0
    toe_out_deg: float = 12.0
    braced: bool = False
    """The free hand lies on the stick: a fist when it is curled by more than half, else a flat palm."""


def _limb(joints: tuple[Array, Array, Array], start: Array, goal: Array, pole: Array) -> tuple[Array, Array, Array]:
    """Rotations of upper and lower bone (rest -> posed) and the reached end, by two-bone inverse kinematics."""
    a0, b0, c0 = joints
    upper, lower = float(np.linalg.norm(b0 - a0)), float(np.linalg.norm(c0 - b0))
    reach = goal - start
    length = float(np.clip(np.linalg.norm(reach), abs(upper - lower) * 1.05 + 0.01, (upper + lower) * 0.998))
    u = unit(reach)
    along = (upper**2 - lower**2 + length**2) / (2 * length)
    side = pole - start
    side = unit(side - (side @ u) * u)
    elbow = start + along * u + np.sqrt(max(upper**2 - along**2, 1e-9)) * side
    end = start + length * u
    hinge0 = cross(b0 - a0, c0 - b0)
    hinge = cross(elbow - start, end - elbow)
    if np.linalg.norm(hinge0) < 0.04 * upper * lower or np.linalg.norm(hinge) < 0.03 * upper * lower:
        hinge = -np.cross(side, u) if np.linalg.norm(hinge) < 1e-9 else hinge
    if np.linalg.norm(hinge0) < 1e-6:
        hinge0 = np.cross(b0 - a0, (0.0, 1.0, 0.0))
    first = frame(elbow - start, hinge) @ frame(b0 - a0, hinge0).T
    second = frame(end - elbow, hinge) @ frame(c0 - b0, hinge0).T
    return first, second, end


def _hand_cost(
    phi: Array, psi: Array, basis: Array, fore: Array, palm: Array | None, sign: float
) -> tuple[Array, Array, Array]:
    """Cost, hand direction and palm direction of fists round a stick (`basis[:, 0]`), angles in radians."""
    hand = (
        np.cos(phi)[..., None] * basis[:, 0]
        + (np.sin(phi) * np.cos(psi))[..., None] * basis[:, 1]
        + (np.sin(phi) * np.sin(psi))[..., None] * basis[:, 2]
    )
    palms = sign * np.cross(basis[:, 0], hand)
    palms /= np.linalg.norm(palms, axis=-1, keepdims=True)
    bend = np.degrees(np.arccos(np.clip(hand @ fore, -1, 1)))
    cost = (bend / 22.0) ** 2 + ((np.degrees(phi) - 78.0) / 22.0) ** 2
    cost = cost + (np.maximum(bend - WRIST_LIMIT_DEG, 0.0) / 4.0) ** 2
    if palm is not None:
        cost = cost + PALM_WEIGHT * (1 - palms @ palm)
    return cost, hand, palms


def _aim_hand(fist: Fist, fore: Array, stick: Array, palm: Array | None, sign: float) -> Array:
    """Rotation of the fist so that its hole lies along `stick`, bent as little as possible against the forearm.

    The stick may lie askew in the fist (angle phi to the hand); a coarse search over phi and the turn psi about the
    stick, then ever finer ones round the best, so that a moving stick does not make the hand jump.
    """
    basis = frame(stick, fore if abs(float(stick @ fore)) < 0.999 else fore + np.array([0.02, 0.01, 0.03]))
    phi, psi = np.radians(np.arange(38.0, 101.0, 8.0))[:, None], np.radians(np.arange(0.0, 360.0, 10.0))[None]
    step = np.radians([4.0, 5.0])
    for _ in range(5):
        cost, hands, palms = _hand_cost(phi, psi, basis, fore, palm, sign)
        i, j = np.unravel_index(int(cost.argmin()), cost.shape)
        best_phi, best_psi = float(phi[i, 0]), float(psi[0, j])
        hand, side = hands[i, j], palms[i, j]
        phi = np.clip(best_phi + step[0] * np.array([-1.0, 0.0, 1.0]), *np.radians(STICK_IN_HAND_DEG))[:, None]
        psi = best_psi + step[1] * np.array([[-1.0, 0.0, 1.0]])
        step = step / 2
    return np.asarray(frame(hand, side) @ frame(fist.hand, fist.palm).T)


def palm_error_deg(rest: Rest, points: Array, palm: Array) -> float:
    """How far the palm of a hand that holds the stick of a skeleton (19, 3) must stay from the wished direction."""
    fore = unit(points[sk.RIGHT_WRIST] - points[sk.RIGHT_ELBOW])
    fist = rest.fists["R"]
    hand = _aim_hand(fist, fore, unit(points[sk.TIP] - points[sk.GRIP]), palm, 1.0)
    return float(np.degrees(np.arccos(np.clip(hand @ fist.palm @ palm, -1, 1))))


def brace_place(rest: Rest, points: Array) -> Array:
    """The place on the stick of a skeleton (19, 3) where a bracing hand lies."""
    along = BRACE_FROM_BUTT * (rest.stick_m + rest.butt_m) - rest.butt_m
    return np.asarray(points[sk.GRIP] + along * unit(points[sk.TIP] - points[sk.GRIP]))


def _brace(fist: Fist, fore: Array, stick: Array, curl: float) -> tuple[Array, Array]:
    """Rotation of the left hand on a stick and its way from the wrist to the stick; thumb to the tip or to the butt."""
    centre = fist.centre if curl > 0.5 else 0.085 * fist.hand + 0.03 * fist.palm
    hands = [_aim_hand(fist, fore, sign * stick, None, -1.0) for sign in (1.0, -1.0)]
    hand = max(hands, key=lambda h: float(h @ fist.hand @ fore))
    return hand, hand @ centre


PASSES = 3


def pose_body(rest: Rest, wanted: Array, wish: Wish) -> Posed:
    """Pose a body like the skeleton `wanted` (19, 3); the stick points exactly from its grip to its tip.

    Keypoints lie in the flesh and not on the bones, so each pass measures by how much they miss and the next aims off.
    """
    rig = load_rig()
    armed = bool(np.isfinite(wanted[sk.TIP]).all())
    aim = wanted.copy()
    for step in range(PASSES):
        turns, places = _pose_bones(rest, aim, wish)
        if step == PASSES - 1:
            break
        body = rig.regressor_cut @ _skin(rig.weights_cut, rest.vertices[rig.cut], rest.joints, turns, places)
        miss = 0.8 * np.clip(wanted[: sk.BODY_COUNT] - body, -0.06, 0.06)
        aim[: sk.BODY_COUNT] += miss
        if armed:
            aim[[sk.GRIP, sk.TIP]] += 0.8 * np.clip(wanted[sk.GRIP] - _grip(rest, turns, places), -0.06, 0.06)
    vertices = _skin(rig.weights, rest.vertices, rest.joints, turns, places)
    grip = _grip(rest, turns, places)
    direction = unit(wanted[sk.TIP] - wanted[sk.GRIP])
    keypoints = np.concatenate([rig.regressor @ vertices, [grip, grip + rest.stick_m * direction]])
    lift = np.array([0.0, 0.0, -vertices[:, 2].min()])
    palm = turns[rig.index("wrist.R")] @ rest.fists["R"].palm
    return Posed(vertices + lift, keypoints + lift, grip - rest.butt_m * direction + lift, palm)


def _skin(weights: sp.csr_matrix, vertices: Array, joints: Array, turns: Array, places: Array) -> Array:
    """Linear blend skinning of rest vertices (v, 3) with bone rotations and positions."""
    shift = places - np.einsum("bij,bj->bi", turns, joints)
    blended = np.asarray(weights @ np.concatenate([turns.reshape(-1, 9), shift], axis=1))
    return np.asarray(np.einsum("vij,vj->vi", blended[:, :9].reshape(-1, 3, 3), vertices) + blended[:, 9:])


def _grip(rest: Rest, turns: Array, places: Array) -> Array:
    """Centre of the closed right hand."""
    hand = load_rig().index("wrist.R")
    return np.asarray(places[hand] + turns[hand] @ rest.fists["R"].centre)


def _pose_bones(rest: Rest, wanted: Array, wish: Wish) -> tuple[Array, Array]:
    """Bone rotations (b, 3, 3) against rest and positions (b, 3) that bring the bones near the skeleton `wanted`."""
    rig = load_rig()
    joints, kp0 = rest.joints, rest.keypoints
    local: dict[str, Array] = {}

    def mid(p: Array, a: int, b: int) -> Array:
        return np.asarray((p[a] + p[b]) / 2)

    def trunk(p: Array, left: int, right: int) -> Array:
        up = mid(p, sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER) - mid(p, sk.LEFT_HIP, sk.RIGHT_HIP)
        return frame(up, p[left] - p[right])

    pelvis = trunk(wanted, sk.LEFT_HIP, sk.RIGHT_HIP) @ trunk(kp0, sk.LEFT_HIP, sk.RIGHT_HIP).T
    chest = trunk(wanted, sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER) @ trunk(kp0, sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER).T

    def face(p: Array) -> Array:
        return frame(p[sk.LEFT_EAR] - p[sk.RIGHT_EAR], p[sk.NOSE] - mid(p, sk.LEFT_EAR, sk.RIGHT_EAR))

    head = face(wanted) @ face(kp0).T
    local["root"] = pelvis
    _chain(local, pelvis, chest, SPINE_SHARE)
    _chain(local, chest, head, NECK_SHARE)
    root = mid(wanted, sk.LEFT_HIP, sk.RIGHT_HIP) - pelvis @ (mid(kp0, sk.LEFT_HIP, sk.RIGHT_HIP) - joints[0])
    _lean_neck(rest, rig, local, root, wanted)
    for side, shoulder, elbow, wrist, *_ in SIDES:
        _pose_arm(rest, rig, local, root, chest, wanted, wish, (side, shoulder, elbow, wrist))
    for side, _, _, _, hip, knee, ankle in SIDES:
        _pose_leg(rest, rig, local, root, pelvis, wanted, wish, (side, hip, knee, ankle))
    return forward(joints, rig, local, root)


def _chain(local: dict[str, Array], start: Array, end: Array, shares: dict[str, float]) -> None:
    """Spread the turn from `start` to `end` over a chain of bones, by cumulative share."""
    whole = start.T @ end
    before = np.eye(3)
    for bone, share in shares.items():
        now = power(whole, share)
        local[bone] = before.T @ now
        before = now


def _lean_neck(rest: Rest, rig: Rig, local: dict[str, Array], root: Array, wanted: Array) -> None:
    """Bend the foot of the neck so that the ears come to where they should be, and keep the head's own direction."""
    turns, places = forward(rest.joints, rig, local, root)
    neck, head = rig.index("neck01"), rig.index("head")
    ears = rest.keypoints[[sk.LEFT_EAR, sk.RIGHT_EAR]].mean(0)
    now = places[head] + turns[head] @ (ears - rest.joints[head])
    lean = between(now - places[neck], wanted[[sk.LEFT_EAR, sk.RIGHT_EAR]].mean(0) - places[neck], 30.0)
    above = turns[rig.index("neck03")]
    local["neck01"] = turns[rig.parents[neck]].T @ lean @ turns[neck]
    local["head"] = (lean @ above).T @ turns[head]


def _pose_arm(
    rest: Rest, rig: Rig, local: dict[str, Array], root: Array, chest: Array, wanted: Array, wish: Wish,
    names: tuple[str, int, int, int],
) -> None:  # fmt: skip
    side, shoulder, elbow, wrist = names
    ix = {n: rig.index(f"{n}.{side}") for n in ("clavicle", "upperarm01", "lowerarm01", "wrist")}
    joints = rest.joints
    _, places = forward(joints, rig, local, root)
    kp_off = joints[ix["upperarm01"]] - rest.keypoints[shoulder]
    collar = places[ix["clavicle"]]
    lift = between(places[ix["upperarm01"]] - collar, wanted[shoulder] + chest @ kp_off - collar, 18.0)
    start = collar + lift @ (places[ix["upperarm01"]] - collar)
    base = lift @ chest
    a0, b0, c0 = joints[ix["upperarm01"]], joints[ix["lowerarm01"]], joints[ix["wrist"]]
    goal, pole = wanted[wrist].copy(), wanted[elbow]
    fist = rest.fists[side]
    stick = unit(wanted[sk.TIP] - wanted[sk.GRIP]) if np.isfinite(wanted[sk.TIP]).all() else None
    armed = side == "R" and stick is not None
    braced = side == "L" and stick is not None and wish.braced
    for _ in range(3 if armed or braced else 1):
        upper, lower, end = _limb((a0, b0, c0), start, goal, pole)
        fore = unit(lower @ (c0 - b0))
        if braced and stick is not None:
            hand, way = _brace(fist, fore, stick, wish.free_curl)
            goal = brace_place(rest, wanted) - way
        elif armed and stick is not None:
            hand = _aim_hand(fist, fore, stick, wish.palm, 1.0)
            goal = 0.35 * wanted[wrist] + 0.65 * (wanted[sk.GRIP] - hand @ fist.centre)
        else:
            hand = about(fore, wish.free_roll_deg) @ lower
    twist = twist_deg(hand @ lower.T, fore)
    local[f"clavicle.{side}"] = chest.T @ base
    local[f"upperarm01.{side}"] = base.T @ upper
    near, far = about(fore, 0.3 * twist) @ lower, about(fore, 0.65 * twist) @ lower
    local[f"lowerarm01.{side}"] = upper.T @ near
    local[f"lowerarm02.{side}"] = near.T @ far
    local[f"wrist.{side}"] = far.T @ hand
    local.update(finger_rotations(joints, rig, side, 1.0 if armed else wish.free_curl))


def _pose_leg(
    rest: Rest, rig: Rig, local: dict[str, Array], root: Array, pelvis: Array, wanted: Array, wish: Wish,
    names: tuple[str, int, int, int],
) -> None:  # fmt: skip
    side, _, knee, ankle = names
    joints = rest.joints
    hip_i, knee_i, foot_i = (rig.index(f"{n}.{side}") for n in ("upperleg01", "lowerleg01", "foot"))
    start = root + pelvis @ (joints[hip_i] - joints[0])
    standing = float(joints[foot_i, 2] - rest.vertices[:, 2].min())
    goal = wanted[ankle] + (joints[foot_i] - rest.keypoints[ankle])
    raised = float(np.clip(goal[2] - standing, 0.0, 0.08))
    goal[2] = standing + raised
    pole = wanted[knee] + pelvis @ np.array([0.0, -0.03, 0.0])
    upper, lower, _ = _limb((joints[hip_i], joints[knee_i], joints[foot_i]), start, goal, pole)
    bent = wanted[knee] - (wanted[ankle] + start) / 2
    ahead = bent * np.array([1, 1, 0]) + 0.06 * (pelvis @ np.array([0, -1.0, 0])) * np.array([1, 1, 0])
    out = wish.toe_out_deg if side == "L" else -wish.toe_out_deg
    ahead = about(np.array([0, 0, 1.0]), out) @ unit(ahead)
    toes = (joints[rig.index(f"toe2-1.{side}")] - joints[foot_i]) * np.array([1, 1, 0])
    flat = frame(ahead, np.array([0, 0, 1.0])) @ frame(unit(toes), np.array([0, 0, 1.0])).T
    lateral = cross(ahead, np.array([0, 0, 1.0]))
    foot = about(lateral, -np.degrees(np.arcsin(raised / 0.16))) @ flat
    local[f"upperleg01.{side}"] = pelvis.T @ upper
    local[f"lowerleg01.{side}"] = upper.T @ lower
    local[f"foot.{side}"] = lower.T @ foot
