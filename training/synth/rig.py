"""The `anny` body (MakeHuman mesh, CC0): what all people share, the rest shape of one person, bones and hands."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stages import skeleton as sk
from training.synth import solve
from training.synth.rotations import Array, about, unit

Person = dict[str, float]

FIST_DEG = (60.0, 84.0, 52.0)  # finger joints from the knuckle outwards
# Rotation vectors (radians) of the three thumb joints in the basis (hand, palm, knuckles): round the stick.
THUMB_FIST = ((-0.329, 0.363, -0.152), (-0.124, 0.022, 0.093), (-0.127, 0.376, -0.216))


@dataclass(frozen=True)
class Rig:
    """What all bodies share: bone names and parents, faces, skin weights, keypoint regressor."""

    model: Any
    bones: tuple[str, ...]
    parents: tuple[int, ...]
    faces: NDArray[np.int64]  # (f, 3)
    weights: sp.csr_matrix  # (vertices, bones)
    regressor: sp.csr_matrix  # (17, vertices)
    dominant: NDArray[np.int64]  # (vertices,) bone with the largest weight
    cut: NDArray[np.int64]  # vertices that the regressor uses, and both matrices cut down to them
    weights_cut: sp.csr_matrix
    regressor_cut: sp.csr_matrix

    def index(self, name: str) -> int:
        return self.bones.index(name)


@cache
def load_rig() -> Rig:
    """Load `anny` with its own topology (the others download data that is not free); the first start takes a minute."""
    os.environ.setdefault("ANNY_CACHE_DIR", str(Path.home() / ".cache" / "anny"))
    import warp

    warp.config.log_level = logging.ERROR  # else every process tells which devices it has
    import anny
    import torch
    from anny.keypoints import KeypointsRegressor

    torch.set_num_threads(1)
    model = anny.Anny(topology="anny", rig="anny").to(dtype=torch.float32)
    keypoints = KeypointsRegressor.coco(model)
    index = model.vertex_bone_indices.numpy()
    weight = model.vertex_bone_weights.numpy()
    count = len(index)
    rows = np.repeat(np.arange(count), index.shape[1])
    weights = sp.csr_matrix((weight.ravel().astype(float), (rows, index.ravel())), (count, model.bone_count))
    if keypoints.is_sparse:
        raise RuntimeError("the keypoint regressor of this anny version is sparse; a dense one is expected")
    regressor = sp.csr_matrix(np.asarray(keypoints.regression_weights[: sk.BODY_COUNT], float))
    cut = np.flatnonzero(np.abs(regressor).max(axis=0).toarray().ravel() > 1e-6)
    return Rig(
        model,
        tuple(model.bone_labels),
        tuple(int(p) for p in model.bone_parents),
        model.faces.numpy().astype(np.int64),
        weights,
        regressor,
        index[np.arange(count), weight.argmax(1)].astype(np.int64),
        cut,
        sp.csr_matrix(weights[cut]),
        sp.csr_matrix(regressor[:, cut]),
    )


@dataclass(frozen=True)
class Fist:
    """The closed hand at rest: hand direction, palm side, centre of the hole from the wrist."""

    hand: Array
    palm: Array
    centre: Array


@dataclass(frozen=True, eq=False)  # compared and hashed as the person it is, so that results can be kept by person
class Rest:
    """One person standing in the rest pose, and the lengths that a fit must keep."""

    vertices: Array  # (v, 3)
    joints: Array  # (bones, 3)
    keypoints: Array  # (17, 3)
    fists: dict[str, Fist]
    lengths: solve.Lengths
    stick_m: float
    butt_m: float


def finger_rotations(joints: Array, rig: Rig, side: str, curl: float) -> dict[str, Array]:
    """Rotations that close the fingers of one hand by `curl` (0 open, 1 fist), in rest orientation."""
    at = {n: joints[i] for i, n in enumerate(rig.bones)}
    sign = 1.0 if side == "R" else -1.0
    knuckles = unit(at[f"finger2-1.{side}"] - at[f"finger5-1.{side}"])
    hand = unit(at[f"finger3-1.{side}"] - at[f"wrist.{side}"])
    out = {}
    for finger in (2, 3, 4, 5):
        for joint, angle in enumerate(FIST_DEG, 1):
            out[f"finger{finger}-{joint}.{side}"] = about(knuckles, sign * angle * curl)
    palm = unit(np.cross(knuckles, hand)) * sign
    for joint, vector in enumerate(THUMB_FIST, 1):
        turn = sign * (np.stack([hand, palm, knuckles], axis=1) @ np.array(vector))
        out[f"finger1-{joint}.{side}"] = about(turn, float(np.degrees(np.linalg.norm(turn))) * curl)
    return out


def forward(joints: Array, rig: Rig, local: dict[str, Array], root: Array) -> tuple[Array, Array]:
    """Bone rotations (b, 3, 3) relative to rest and bone positions (b, 3); `local` are turns against the parent."""
    turns = np.empty((len(joints), 3, 3))
    places = np.empty_like(joints)
    for i, parent in enumerate(rig.parents):
        own = local.get(rig.bones[i])
        if parent < 0:
            turns[i] = np.eye(3) if own is None else own
            places[i] = root
        else:
            turns[i] = turns[parent] if own is None else turns[parent] @ own
            places[i] = places[parent] + turns[parent] @ (joints[i] - joints[parent])
    return turns, places


def _measure_fist(joints: Array, rig: Rig, side: str) -> Fist:
    turns, places = forward(joints, rig, finger_rotations(joints, rig, side, 1.0), joints[0])
    at = {n: places[i] for i, n in enumerate(rig.bones)}
    sign = 1.0 if side == "R" else -1.0
    rows = {f: np.mean([at[f"finger{f}-{j}.{side}"] for j in (1, 2, 3)], axis=0) for f in (2, 3, 4, 5)}
    axis = unit(rows[2] - rows[5])
    wrist = at[f"wrist.{side}"]
    hand = unit(at[f"finger3-1.{side}"] - wrist)
    palm = unit(np.cross(axis, hand)) * sign
    centre = np.mean(list(rows.values()), axis=0) - wrist - 0.004 * palm - 0.003 * hand
    return Fist(hand, palm, centre)


def make_rest(person: Person, stick_m: float, butt_m: float) -> Rest:
    """Body of a person (phenotype values 0..1) who holds a stick `stick_m` long from grip to tip."""
    import torch

    rig = load_rig()
    values = {name: person.get(name, 0.5) for name in rig.model.phenotype_labels}
    with torch.no_grad():
        out = rig.model(phenotype_kwargs=values)
    vertices = out["vertices"][0].numpy().astype(float)
    joints = out["bone_poses"][0, :, :3, 3].numpy().astype(float)
    keypoints = np.asarray(rig.regressor @ vertices)
    fists = {side: _measure_fist(joints, rig, side) for side in ("L", "R")}
    right = fists["R"]
    grip = joints[rig.index("wrist.R")] + right.centre
    points = np.concatenate([keypoints, [grip, grip + [0, 0, stick_m]]])
    pairs = solve.measure(points)
    for k, (i, j, _) in enumerate(solve.RIGID_PAIRS):
        if (i, j) == (sk.RIGHT_ELBOW, sk.GRIP):
            pairs[k] = 0.975 * (pairs[k - 1] + np.linalg.norm(keypoints[sk.RIGHT_ELBOW] - keypoints[sk.RIGHT_WRIST]))
    sole = float(vertices[:, 2].min())
    ankle = float(keypoints[[sk.LEFT_ANKLE, sk.RIGHT_ANKLE], 2].mean()) - sole
    lengths = solve.Lengths(pairs, ankle, float(keypoints[[sk.LEFT_HIP, sk.RIGHT_HIP], 2].mean()) - sole)
    return Rest(vertices, joints, keypoints, fists, lengths, stick_m, butt_m)
