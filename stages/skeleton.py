"""The 19 nodes and how they are joined: the one place that training, serving, overlay and feedback read.

Nodes 0..16 are COCO-17, 17 is the grip (centre of the weapon hand on the shaft), 18 the tip of the stick. That is the
layout `COCO19`; `BLAZE35` has MediaPipe's 33 landmarks before the stick, for graphs that are to be richer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KEYPOINT_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle", "grip", "tip",
)  # fmt: skip
BODY_COUNT = 17
NODE_COUNT = 19

(
    NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR, LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_ELBOW, RIGHT_ELBOW, LEFT_WRIST,
    RIGHT_WRIST, LEFT_HIP, RIGHT_HIP, LEFT_KNEE, RIGHT_KNEE, LEFT_ANKLE, RIGHT_ANKLE, GRIP, TIP,
) = range(NODE_COUNT)  # fmt: skip

MIRROR = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 17, 18])
"""Node that takes a node's place when the picture is mirrored."""

BODY_EDGES = (
    (LEFT_ANKLE, LEFT_KNEE), (LEFT_KNEE, LEFT_HIP), (RIGHT_ANKLE, RIGHT_KNEE), (RIGHT_KNEE, RIGHT_HIP),
    (LEFT_HIP, LEFT_SHOULDER), (RIGHT_HIP, RIGHT_SHOULDER), (LEFT_WRIST, LEFT_ELBOW), (LEFT_ELBOW, LEFT_SHOULDER),
    (RIGHT_WRIST, RIGHT_ELBOW), (RIGHT_ELBOW, RIGHT_SHOULDER), (LEFT_SHOULDER, NOSE), (RIGHT_SHOULDER, NOSE),
    (LEFT_EYE, NOSE), (RIGHT_EYE, NOSE), (LEFT_EAR, LEFT_EYE), (RIGHT_EAR, RIGHT_EYE),
)  # fmt: skip
"""The 16 edges of the tree over the body."""

STICK_EDGE = (GRIP, TIP)
"""The one rigid edge."""

# The edges below hold for the canonical skeleton: weapon hand on the right (left-handers are mirrored into it).
WEAPON_EDGES = ((RIGHT_WRIST, GRIP), (RIGHT_ELBOW, GRIP))
SEMANTIC_EDGES = (
    (RIGHT_WRIST, LEFT_SHOULDER), (RIGHT_WRIST, NOSE), (RIGHT_ELBOW, RIGHT_HIP), (LEFT_ELBOW, LEFT_HIP), (TIP, NOSE),
    (TIP, LEFT_SHOULDER), (TIP, RIGHT_SHOULDER), (LEFT_ANKLE, RIGHT_ANKLE), (LEFT_WRIST, GRIP),
)  # fmt: skip
EDGES = BODY_EDGES + WEAPON_EDGES + (STICK_EDGE,) + SEMANTIC_EDGES
"""All undirected edges of the canonical graph; the classifier adds the reverse directions and self-loops."""

DRAWN_EDGES = BODY_EDGES[:10] + ((LEFT_SHOULDER, RIGHT_SHOULDER), (LEFT_HIP, RIGHT_HIP)) + BODY_EDGES[12:]
"""What a viewer expects to see of the body."""

PARENTS = (
    "mid_shoulder", "nose", "nose", "left_eye", "right_eye", "mid_shoulder", "mid_shoulder", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "mid_hip", "mid_hip", "left_hip", "right_hip", "left_knee",
    "right_knee", "right_wrist", "grip",
)  # fmt: skip
"""The node at the other end of a node's bone; the two middles are no nodes."""

PARTS = (
    (LEFT_SHOULDER, RIGHT_SHOULDER), (LEFT_HIP, RIGHT_HIP), (LEFT_KNEE, RIGHT_KNEE),
    (NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR),
)  # fmt: skip
"""Nodes whose middle is measured by."""
SHOULDERS, HIPS, KNEES, HEAD = range(len(PARTS))


@dataclass(frozen=True, eq=False)
class Layout:
    """A set of K nodes, the grip and the tip last among them, and how they are joined."""

    name: str
    names: tuple[str, ...]
    mirror: np.ndarray
    """int64 (K,): node that takes a node's place when the picture is mirrored."""
    directed_edges: np.ndarray
    """int64 (E, 2), source and target: both directions, and self-loops, without which a lone node weighs nothing."""
    parents: np.ndarray
    """int64 (K,): the other end of each node's bone; K is the middle of the shoulders, K + 1 that of the hips."""
    coco: np.ndarray
    """int64 (19,): node that stands at each place of COCO19."""
    rigid: np.ndarray
    """bool (E,): which edges are the stick, the one part that keeps its length."""
    parts: np.ndarray
    """float32 (4, K): 1 for the nodes of each of `PARTS`."""

    @property
    def count(self) -> int:
        return len(self.names)


def make_layout(name: str, names: Sequence[str], edges: Sequence[tuple[str, str]], parents: Sequence[str]) -> Layout:
    """A layout from names: undirected edges between nodes of the canonical skeleton, and each node's parent."""
    place = {node: i for i, node in enumerate((*names, "mid_shoulder", "mid_hip"))}
    pairs = [(place[a], place[b]) for a, b in edges]
    directed = [*pairs, *((b, a) for a, b in pairs), *((i, i) for i in range(len(names)))]
    stick = {KEYPOINT_NAMES[node] for node in STICK_EDGE}
    other_side = {"left": "right", "right": "left"}
    coco = np.array([place[node] for node in KEYPOINT_NAMES])
    mirror = [place["_".join(other_side.get(word, word) for word in node.split("_"))] for node in names]
    return Layout(
        name, tuple(names), np.array(mirror), np.array(directed), np.array([place[node] for node in parents]),
        coco, np.array([{names[a], names[b]} == stick for a, b in directed]),
        np.array([np.isin(range(len(names)), coco[list(part)]) for part in PARTS], np.float32),
    )  # fmt: skip


_NAMED_EDGES = tuple((KEYPOINT_NAMES[a], KEYPOINT_NAMES[b]) for a, b in EDGES)

COCO19 = make_layout("coco19", KEYPOINT_NAMES, _NAMED_EDGES, PARENTS)

BLAZEPOSE_NAMES = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
    "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
"""MediaPipe's 33 landmarks in their order."""

_BLAZE_BONES = {
    "mouth_left": "nose", "mouth_right": "nose",
    **{f"{side}_eye_{end}": f"{side}_eye" for side in ("left", "right") for end in ("inner", "outer")},
    **{f"{side}_{finger}": f"{side}_wrist" for side in ("left", "right") for finger in ("pinky", "index", "thumb")},
    **{f"{side}_{part}": f"{side}_ankle" for side in ("left", "right") for part in ("heel", "foot_index")},
}  # fmt: skip
_BLAZE_PAIRS = (
    ("mouth_left", "mouth_right"), ("left_pinky", "left_index"), ("right_pinky", "right_index"),
    ("left_heel", "left_foot_index"), ("right_heel", "right_foot_index"), ("right_index", "grip"),
    ("right_pinky", "grip"),
)  # fmt: skip

BLAZE35 = make_layout(
    "blaze35",
    (*BLAZEPOSE_NAMES, "grip", "tip"),
    (*_NAMED_EDGES, *_BLAZE_BONES.items(), *_BLAZE_PAIRS),
    [{**dict(zip(KEYPOINT_NAMES, PARENTS, strict=True)), **_BLAZE_BONES}[n] for n in (*BLAZEPOSE_NAMES, "grip", "tip")],
)

LAYOUTS = {layout.name: layout for layout in (COCO19, BLAZE35)}
