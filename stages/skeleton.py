"""The 19 nodes and how they are joined: the one place that training, serving, overlay and feedback read.

Nodes 0..16 are COCO-17, 17 is the grip (centre of the weapon hand on the shaft), 18 the tip of the stick.
"""

from __future__ import annotations

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
