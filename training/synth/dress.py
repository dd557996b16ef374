"""Clothes, skin and hair: fields over the rest mesh that the shader cuts into garments, and cloth that stands off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stages import skeleton as sk
from training.synth.rig import Rest, Rig, load_rig
from training.synth.rotations import Array

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Outfit:
    """Colours 0..1 and cuts of one person's clothes; arm and leg cuts count 1 at elbow or knee, 2 at wrist or ankle."""

    skin: Colour
    hair: Colour
    shirt: Colour
    shirt_second: Colour
    trousers: Colour
    trousers_second: Colour
    shoes: Colour
    belt: Colour
    sleeve: float
    trouser: float
    hem: float  # lower edge of the shirt, 0 at the hips, 1 at the neck
    collar: float
    shirt_pattern: int  # 0 plain, 1 stripes round, 2 checks, 3 print on the chest, 4 jacket with lapels
    trouser_pattern: int  # 0 plain, 1 side stripe
    pattern_scale: float
    belted: bool
    barefoot: bool
    loose_shirt_m: float
    loose_trousers_m: float
    hair_m: float
    hairline: float


def random_outfit(rng: np.random.Generator) -> Outfit:
    """Training clothes, street clothes or a white jacket, and everything from pale to dark skin."""

    def colour(low: float = 0.03, high: float = 0.95) -> Colour:
        grey = rng.uniform(low, high)
        spread = rng.choice([0.03, 0.12, 0.4], p=[0.4, 0.35, 0.25])
        c = np.clip(grey + rng.normal(0, spread, 3), 0.02, 0.98)
        return float(c[0]), float(c[1]), float(c[2])

    tone = rng.uniform(0.0, 1.0)
    skin = np.array([0.93, 0.73, 0.60]) * (1 - tone) + np.array([0.30, 0.18, 0.12]) * tone
    skin = np.clip(skin * rng.uniform(0.9, 1.08) + rng.normal(0, 0.012, 3), 0.05, 1)
    hair_tone = rng.choice([0.03, 0.08, 0.2, 0.45, 0.6], p=[0.45, 0.25, 0.15, 0.08, 0.07])
    hair = np.clip(hair_tone * np.array([1.15, 0.95, 0.75]) * rng.uniform(0.7, 1.2), 0.01, 0.9)
    jacket = rng.random() < 0.15
    white = float(rng.uniform(0.75, 0.95))
    shirt: Colour = (white, white, white * 0.98) if jacket and rng.random() < 0.7 else colour()
    outfit = Outfit(
        skin=(float(skin[0]), float(skin[1]), float(skin[2])),
        hair=(float(hair[0]), float(hair[1]), float(hair[2])),
        shirt=shirt,
        shirt_second=colour(),
        trousers=shirt if jacket and rng.random() < 0.6 else colour(0.02, 0.6),
        trousers_second=colour(),
        shoes=colour(0.02, 0.9),
        belt=colour(0.02, 0.9),
        sleeve=float(rng.choice([rng.uniform(0.35, 0.85), rng.uniform(1.5, 1.92)], p=[0.7, 0.3]))
        if not jacket
        else 1.6,
        trouser=float(rng.choice([rng.uniform(0.45, 1.05), rng.uniform(1.6, 1.95)], p=[0.25, 0.75])),
        hem=float(rng.choice([rng.uniform(-0.14, 0.0), rng.uniform(0.12, 0.2)], p=[0.65, 0.35])),
        collar=-float(rng.uniform(0.075, 0.115)),
        shirt_pattern=4 if jacket else int(rng.choice([0, 1, 2, 3], p=[0.5, 0.15, 0.1, 0.25])),
        trouser_pattern=int(rng.random() < 0.3),
        pattern_scale=float(rng.uniform(0.03, 0.12)),
        belted=bool(jacket or rng.random() < 0.15),
        barefoot=bool(rng.random() < 0.25),
        loose_shirt_m=float(rng.uniform(0.006, 0.026) if rng.random() < 0.7 else rng.uniform(0.026, 0.05)),
        loose_trousers_m=float(rng.uniform(0.006, 0.03) if rng.random() < 0.7 else rng.uniform(0.03, 0.06)),
        hair_m=float(rng.choice([0.004, 0.012, 0.022], p=[0.4, 0.4, 0.2])),
        hairline=float(rng.uniform(0.95, 1.35)),
    )
    rng.random()  # draws nothing, but the pictures of a seed hang on what is drawn after it
    return outfit


@cache
def neighbour_mean() -> sp.csr_matrix:
    """(v, v) matrix that replaces a vertex's value by the mean of itself and its neighbours."""
    faces = load_rig().faces
    n = int(faces.max()) + 1
    i = np.concatenate([faces[:, a] for a in (0, 1, 2, 1, 2, 0)])
    j = np.concatenate([faces[:, b] for b in (1, 2, 0, 0, 1, 2)])
    m = sp.csr_matrix((np.ones(len(i)), (i, j)), (n, n))
    m.data[:] = 1.0
    m = m + sp.identity(n)
    return sp.csr_matrix(sp.diags(1 / np.asarray(m.sum(1)).ravel()) @ m)


@cache
def face_to_vertex() -> sp.csr_matrix:
    """(v, f) matrix that sums face values at the vertices."""
    faces = load_rig().faces
    n, f = int(faces.max()) + 1, len(faces)
    return sp.csr_matrix((np.ones(3 * f), (faces.T.ravel(), np.tile(np.arange(f), 3))), (n, f))


def normals(vertices: Array) -> Array:
    """Unit vertex normals, (v, 3)."""
    faces = load_rig().faces
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    n = np.asarray(face_to_vertex() @ np.cross(b - a, c - a))
    return np.asarray(n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class Garment:
    """Per vertex: (arm, leg, torso, collar) coordinates, head coordinates with the part in w, stand-off, folds.

    On the hands the head's x is how far a place looks out of the palm, and y is 1 on a nail.
    """

    region: Array  # (v, 4)
    head: Array  # (v, 4): x, y, z in eye distances from between the eyes; part 0 body, 1 eyeball, 2 inner mouth
    offset_m: Array  # (v,)
    grain: Array  # (v,) smooth noise of about unit size: folds and unevenness


def _limb_coordinate(rest: Rest, rig: Rig, names: tuple[str, str, str], member: tuple[str, ...], base: float) -> Array:
    """0 at the first joint, 1 at the second, 2 at the third, more beyond; `base` outside the limb."""
    out = np.full(len(rest.vertices), base)
    for side in ("L", "R"):
        a, b, c = (rest.joints[rig.index(f"{n}.{side}")] for n in names)
        columns = [i for i, n in enumerate(rig.bones) if n.endswith(f".{side}") and n.startswith(member)]
        inside = np.asarray(rig.weights[:, columns].sum(1)).ravel() > 0.5
        v = rest.vertices[inside]
        upper = np.clip((v - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        lower = np.clip((v - b) @ (c - b) / ((c - b) @ (c - b)), 0, None)
        out[inside] = upper + lower
    return out


def _grain(rng: np.random.Generator, count: int) -> Array:
    """Noise over the mesh at two scales, standard deviation 1."""
    smooth = neighbour_mean()
    coarse = rng.normal(size=count)
    for _ in range(12):
        coarse = smooth @ coarse
    fine = rng.normal(size=count)
    for _ in range(3):
        fine = smooth @ fine
    noise = coarse / coarse.std() + 0.5 * fine / fine.std()
    return np.asarray(np.clip(noise / noise.std(), -2.5, 2.5))


def fit_garment(rest: Rest, outfit: Outfit, rng: np.random.Generator) -> Garment:
    """The clothes of one person over the rest mesh."""
    rig = load_rig()
    v = rest.vertices
    arm = _limb_coordinate(
        rest,
        rig,
        ("upperarm01", "lowerarm01", "wrist"),
        ("upperarm", "lowerarm", "wrist", "finger", "metacarpal"),
        -0.2,
    )
    leg = _limb_coordinate(
        rest, rig, ("upperleg01", "lowerleg01", "foot"), ("upperleg", "lowerleg", "foot", "toe"), -0.2
    )
    feet = np.isin(rig.dominant, [i for i, n in enumerate(rig.bones) if n.startswith(("foot", "toe"))])
    leg[feet] = np.maximum(leg[feet], 2.1)
    hip_z = rest.keypoints[[sk.LEFT_HIP, sk.RIGHT_HIP], 2].mean()
    neck = rest.joints[rig.index("neck01")]
    torso = (v[:, 2] - hip_z) / (neck[2] - hip_z)
    throat = neck + np.array([0.0, -0.01, -0.02])
    collar = -np.linalg.norm((v - throat) * np.array([1.0, 1.0, 0.75]), axis=1)
    collar[v[:, 2] > neck[2] + 0.045] = 0.0
    eyes = rest.keypoints[[sk.LEFT_EYE, sk.RIGHT_EYE]]
    scale = float(np.linalg.norm(eyes[0] - eyes[1]))
    head = np.concatenate([(v - eyes.mean(0)) / scale, np.zeros((len(v), 1))], axis=1)
    bones = np.array(rig.bones)[rig.dominant]
    head[np.char.startswith(bones, "eye"), 3] = 1
    above = np.isin(bones, ["head", "eye.L", "eye.R", "neck03", "neck02"])
    head[~above, :3] = [0, 0, -9]
    region = np.stack([arm, leg, torso, collar], axis=1)
    grain = _grain(rng, len(v))
    head[:, :2] += _hands(rest, rig)
    offset = _stand_off(region, head, outfit)
    return Garment(region, head, offset * (1 + 0.22 * grain), grain)


def _hands(rest: Rest, rig: Rig) -> Array:
    """(v, 2): how far a place of a hand looks out of the palm (-1 back to 1), and whether it is a nail; 0 elsewhere.

    They travel in the head coordinates x and y, which mean nothing off the head.
    """
    out = np.zeros((len(rest.vertices), 2))
    facing = normals(rest.vertices)
    bones = np.array(rig.bones)[rig.dominant]
    for side, fist in rest.fists.items():
        hand = np.char.endswith(bones, f".{side}") & np.char.startswith(bones, ("finger",))
        hand |= np.char.endswith(bones, f".{side}") & np.char.startswith(bones, ("wrist",))
        hand |= np.char.endswith(bones, f".{side}") & np.char.startswith(bones, ("metacarpal",))
        out[hand, 0] = np.clip(facing[hand] @ fist.palm, -1, 1)
        for finger in (2, 3, 4, 5):
            tip = bones == f"finger{finger}-3.{side}"
            along = (rest.vertices[tip] - rest.joints[rig.index(f"finger{finger}-3.{side}")]) @ fist.hand
            out[tip, 1] = (along > 0.45 * along.max()) & (out[tip, 0] < -0.5)
    return out


def hair_mask(head: Array, hairline: float) -> NDArray[np.bool_]:
    """Which vertices of the head carry hair; the shader uses the same formula."""
    x, y, z = head[:, 0], head[:, 1], head[:, 2]
    ear = (np.abs(x) > 1.1) & (np.abs(z) < 0.75) & (y > 0.8) & (y < 1.9)
    line = np.maximum(hairline - 1.5 * np.maximum(y - 0.35, 0.0), -1.0)
    return np.asarray((z > line) & ~ear & (z > -8) & (head[:, 3] < 0.5))


def _stand_off(region: Array, head: Array, o: Outfit) -> Array:
    arm, leg, torso, collar = region.T
    shirt = (arm < o.sleeve) & (collar < o.collar) & (torso > o.hem) & (head[:, 2] < -8)
    trousers = (leg < o.trouser) & (torso < max(o.hem, 0.15)) & (arm < 0)
    offset = np.zeros(len(arm))
    offset[trousers] = 0.004 + o.loose_trousers_m * np.clip(0.35 + 0.4 * leg[trousers], 0.35, 1.0)
    offset[shirt] = 0.005 + o.loose_shirt_m * np.clip(0.5 + 0.6 * np.maximum(arm[shirt], 0), 0.5, 1.0)
    offset[shirt & (arm < 0)] *= np.where(torso[shirt & (arm < 0)] < 0.5, 1.15, 0.7)
    offset[(leg > 2.05)] = 0.0 if o.barefoot else 0.005
    offset[hair_mask(head, o.hairline)] = o.hair_m
    smooth = neighbour_mean()
    for _ in range(4):
        offset = smooth @ offset
    offset[head[:, 3] > 0.5] = 0.0
    return np.asarray(offset)
