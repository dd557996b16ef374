"""From keypoints and pixels to what the classifier reads: a graph of 19 nodes and a picture of the weapon hand.

The functions are the same in training and serving; all but the crop work on batches (any leading dimensions).
Missing nodes are told by the mask, never by a coordinate: their features are zero and no other node attends to them.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import cv2
import msgspec
import numpy as np

from engine.stage import Context
from stages.packets import MISSING_END, ArnisPacket, GraphInput, Hand, Stick
from stages.skeleton import (
    COCO19,
    GRIP,
    HEAD,
    HIPS,
    KNEES,
    LEFT_ELBOW,
    LEFT_HIP,
    LEFT_KNEE,
    LEFT_SHOULDER,
    LEFT_WRIST,
    MIRROR,
    RIGHT_ELBOW,
    RIGHT_HIP,
    RIGHT_KNEE,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
    SHOULDERS,
    STICK_EDGE,
    TIP,
    Layout,
)  # fmt: skip
from stages.stick_crop import rgb_crop

NODE_FEATURES = (
    "x", "y", "confidence", "present", "bone_x", "bone_y", "above_eyes", "above_shoulders", "above_knees",
    "from_grip_x", "from_grip_y", "from_tip_x", "from_tip_y", "along_stick", "off_stick",
)  # fmt: skip
"""Lengths in torsos, y down as in pictures; `above_...` is a height (up is positive); `along_stick` is 0 at the grip
and 1 at the tip, `off_stick` the distance to the line through both, signed."""

EDGE_FEATURES = (
    "length", "sin", "cos", "rigid", "sin_to_forearm", "cos_to_forearm", "sin_to_torso", "cos_to_torso",
)  # fmt: skip
"""Direction from source to target; angles to the forearm and the torso do not change when the camera rolls."""

GRAPH_INPUTS = ("nodes", "edges")
"""Names by which a small network takes what `build_graph` gives."""

DIRECTED_EDGES = COCO19.directed_edges
"""int64 (E, 2) source and target of what the classifier reads."""

PRESENT_CONFIDENCE = 0.1
"""Below this confidence a keypoint counts as missing: the networks' answers there are guesses at an average body."""
CROP_SIZE_PX = 128

# Largest upright ratios: mid-shoulder to mid-hip stays the ruler unless the body leans towards the camera.
_TORSO_PER_SHOULDER_WIDTH = 1.25
_TORSO_PER_THIGH = 1.0
_FARTHEST = 5.0
"""Torsos; a point farther from the hips than any stick reaches is a wild detection and is cut to this."""
_MIN_STICK = 0.2
"""Torsos; a shorter (foreshortened) stick has no line worth measuring distances to."""
_CROP_SIDE = 0.9
"""Side of the hand crop in torsos: the hand, the wrist and some shaft."""
_HAND_PER_FOREARM = 0.35
"""From the wrist to the middle of the fist, in forearms (8 to 9 cm of 23 to 26 cm)."""
_GRIP_CONFIDENCE = 0.3

_STICK = np.array(STICK_EDGE)
_RULERS = np.array([(LEFT_SHOULDER, RIGHT_SHOULDER), (LEFT_HIP, LEFT_KNEE), (RIGHT_HIP, RIGHT_KNEE)])
"""Pairs of nodes whose distance tells the torso."""
_TORSO_PER_LENGTH = np.array([1.0, _TORSO_PER_SHOULDER_WIDTH, _TORSO_PER_THIGH, _TORSO_PER_THIGH], np.float32)
"""Of the spine, then of each of `_RULERS`."""


def canonical_keypoints(
    body: np.ndarray, grip: tuple[float, float, float], tip: tuple[float, float, float], hand: Hand
) -> np.ndarray:
    """Body (17, 3) and stick as float32 (19, 3): x, y, confidence with the weapon hand on the right.

    A left-hander is mirrored (x becomes -x, left and right nodes change places); the origin is free, because
    `build_graph` subtracts it. An end of the stick that is not seen is `MISSING_END` of `stages.packets`.
    """
    keypoints = np.vstack([body, np.asarray([grip, tip], np.float32)]).astype(np.float32)
    return mirror_keypoints(keypoints) if hand == "left" else keypoints


def mirror_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """(..., 19, 3) as a mirror shows it: x becomes -x, left nodes become right nodes."""
    mirrored: np.ndarray = keypoints[..., MIRROR, :].copy()
    mirrored[..., 0] *= -1
    return mirrored


def torso_length(keypoints: np.ndarray) -> np.ndarray:
    """The unit of length, float32 (...), of keypoints (..., 17 or 19, 3), in their unit; 0 where nothing tells it.

    The largest of torso, 1.25 shoulder widths and a thigh, so that leaning towards the camera does not shrink it.
    """
    points, present = _split(keypoints)
    return _unit(points, present, _middles(points, present, COCO19), COCO19.coco)


def build_graph(keypoints: np.ndarray, layout: Layout = COCO19) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Node features (..., K, 15), edge features (..., E, 8) and mask (..., K), all float32, of canonical keypoints.

    `keypoints` (..., K, 3): x, y in any unit, confidence; missing: confidence 0. K and E are 19 and 75, or those of
    another layout. Where neither hips nor shoulders give an origin and a unit, everything is masked.
    """
    at = layout.coco
    points, present = _normalise(*_split(keypoints), layout)
    middles = _middles(points, present, layout)
    there = present[..., None]
    nodes = np.concatenate(
        [
            points,
            np.where(there, keypoints[..., 2:3], 0),
            there,
            _bones(points, present, middles, layout),
            _heights(points, middles),
            _from_ends(points, present, at),
            _against_stick(points, present, at),
        ],
        -1,
    )
    edges = _edge_features(points, present, middles, layout)
    return np.where(there, nodes, 0).astype(np.float32), edges, present.astype(np.float32)


def hand_crop(image: np.ndarray, keypoints: np.ndarray, hand: Hand) -> np.ndarray | None:
    """uint8 RGB (128, 128, 3) around the weapon hand of uint8 BGR `image`, mirrored for left-handers.

    `keypoints` (19, 3) in pixels of the image, not canonical. Centre: the grip, or the wrist plus a third of the
    forearm where the grip is weak; side: 0.9 torso. None when neither is known or the hand is outside the picture.
    """
    points, present = _split(keypoints)
    elbow, wrist = (LEFT_ELBOW, LEFT_WRIST) if hand == "left" else (RIGHT_ELBOW, RIGHT_WRIST)
    if present[GRIP] and keypoints[GRIP, 2] >= _GRIP_CONFIDENCE:
        centre = points[GRIP]
    elif present[wrist]:
        forearm = points[wrist] - points[elbow] if present[elbow] else np.zeros(2)
        centre = points[wrist] + _HAND_PER_FOREARM * forearm
    else:
        return None
    side = _CROP_SIDE * float(torso_length(keypoints))
    height, width = image.shape[:2]
    if side < 4 or not (0 <= centre[0] < width and 0 <= centre[1] < height):
        return None
    crop = rgb_crop(image, (float(centre[0]), float(centre[1]), side), CROP_SIZE_PX)
    return np.asarray(cv2.flip(crop, 1)) if hand == "left" else crop


class GraphSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [graph]; `config.toml` says what each means, and its unit."""

    crop: bool = True


class Graph:
    """Adds the classifier's input; leaves packets alone that the gates have told not to classify."""

    name: ClassVar[str] = "graph"
    settings_type: ClassVar[type[msgspec.Struct]] = GraphSettings
    stateless: ClassVar[bool] = True

    def __init__(self, settings: GraphSettings) -> None:
        self._settings = settings

    def open(self, context: Context) -> None:
        self._frames = context.frames

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        if packet.person is None or (packet.gate and not (packet.gate.detect and packet.gate.classify)):
            return packet
        stick = packet.stick or Stick(hand="right", grip=MISSING_END, tip=MISSING_END)
        body = packet.person.keypoints
        nodes, edges, mask = build_graph(canonical_keypoints(body, stick.grip, stick.tip, stick.hand))
        packet.graph = GraphInput(nodes=nodes, edges=edges, mask=mask)
        if self._settings.crop and packet.frame is not None:
            keypoints = np.vstack([body, np.asarray([stick.grip, stick.tip], np.float32)])
            with self._frames.read(packet.frame) as image:
                packet.graph.crop = hand_crop(image, keypoints, stick.hand)
        return packet

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.person is not None


def _split(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (..., K, 2), zero where missing, and presence, bool (..., K)."""
    xy = keypoints[..., :2]
    finite = np.isfinite(xy)
    present = (keypoints[..., 2] >= PRESENT_CONFIDENCE) & finite[..., 0] & finite[..., 1]
    return np.where(present[..., None], xy, 0).astype(np.float32), present


class _Middles(NamedTuple):
    """Middles of what a body has several of, and whether there are any."""

    points: np.ndarray
    """(..., 4, 2), by the places of `PARTS`."""
    known: np.ndarray
    """bool (..., 4)."""

    def spine(self) -> tuple[np.ndarray, np.ndarray]:
        """From hips to shoulders (..., 2), and whether both are known (...)."""
        spine = self.points[..., SHOULDERS, :] - self.points[..., HIPS, :]
        return spine, self.known[..., SHOULDERS] & self.known[..., HIPS]


def _middles(points: np.ndarray, present: np.ndarray, layout: Layout) -> _Middles:
    """Means of those nodes of each part that are present; missing points must be zero. Products of small matrices, as
    sums of a few numbers each would take most of the graph's time."""
    members = layout.parts[:, : points.shape[-2]]
    count = present.astype(np.float32) @ members.T
    return _Middles(members @ points / np.maximum(count, 1)[..., None], count > 0)


def vector_length(vectors: np.ndarray) -> np.ndarray:
    """Euclidean length (...) of vectors (..., 2)."""
    return np.asarray(np.hypot(vectors[..., 0], vectors[..., 1]))


def _unit(points: np.ndarray, present: np.ndarray, middles: _Middles, at: np.ndarray) -> np.ndarray:
    """Length (...) of the torso by the longest of the spine and the rulers that are present; 0 where none is."""
    rulers = at[_RULERS]
    ends = points[..., rulers, :]
    spine, whole = middles.spine()
    lengths = vector_length(np.concatenate([spine[..., None, :], ends[..., 0, :] - ends[..., 1, :]], -2))
    there = present[..., rulers]
    known = np.concatenate([whole[..., None], there[..., 0] & there[..., 1]], -1)
    unit: np.ndarray = np.where(known, lengths * _TORSO_PER_LENGTH, 0).max(-1)
    return unit


def _normalise(points: np.ndarray, present: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Origin to mid-hip (a torso below mid-shoulder when no hip is seen), unit to one torso."""
    middles = _middles(points, present, layout)
    unit = _unit(points, present, middles, layout.coco)
    below = middles.points[..., SHOULDERS, :] + unit[..., None] * np.array([0, 1], np.float32)
    origin = np.where(middles.known[..., HIPS, None], middles.points[..., HIPS, :], below)
    usable = unit > 0
    scale = np.where(usable, unit, 1)[..., None, None]
    present = present & usable[..., None]
    centred = np.clip((points - origin[..., None, :]) / scale, -_FARTHEST, _FARTHEST)
    return np.where(present[..., None], centred, 0), present


def _bones(points: np.ndarray, present: np.ndarray, middles: _Middles, layout: Layout) -> np.ndarray:
    """(..., K, 2): from each node's parent to the node; zero without a parent."""
    parents = layout.parents
    every = np.concatenate([points, middles.points], -2)
    every_present = np.concatenate([present, middles.known], -1)
    return np.where(every_present[..., parents, None], points - every[..., parents, :], 0)


def _heights(points: np.ndarray, middles: _Middles) -> np.ndarray:
    """(..., K, 3): above eyes, shoulders and knees; zero where these are missing."""
    levels = [HEAD, SHOULDERS, KNEES]
    known = middles.known[..., None, levels]
    return np.where(known, middles.points[..., None, levels, 1] - points[..., 1:2], 0)


def _from_ends(points: np.ndarray, present: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(..., K, 4): from grip and from tip to each node; zero where the end is missing."""
    ends = at[_STICK]
    away = points[..., :, None, :] - points[..., None, ends, :]
    away = np.where(present[..., None, ends, None], away, 0)
    return away.reshape(*away.shape[:-2], 4)


def _against_stick(points: np.ndarray, present: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(..., K, 2): position along the stick and distance off its line; zero without a stick to measure against."""
    grip, tip = at[GRIP], at[TIP]
    shaft = points[..., tip, :] - points[..., grip, :]
    length = vector_length(shaft)
    known = present[..., grip] & present[..., tip] & (length >= _MIN_STICK)
    length = np.where(known, length, 1)[..., None]
    along_axis = (shaft / length)[..., None, :]
    offset = points - points[..., [grip], :]
    along = (offset * along_axis).sum(-1) / length
    off = offset[..., 0] * along_axis[..., 1] - offset[..., 1] * along_axis[..., 0]
    features = np.clip(np.stack([along, off], -1), -_FARTHEST, _FARTHEST)
    return np.where(known[..., None, None], features, 0)


def _edge_features(points: np.ndarray, present: np.ndarray, middles: _Middles, layout: Layout) -> np.ndarray:
    """float32 (..., E, 8); an edge with a missing end is zero, so is a self-loop."""
    at, (source, target) = layout.coco, layout.directed_edges.T
    there = (present[..., source] & present[..., target])[..., None]
    length, direction = _direction(points[..., target, :] - points[..., source, :])
    elbow, wrist = at[RIGHT_ELBOW], at[RIGHT_WRIST]
    forearm = np.where(
        (present[..., elbow] & present[..., wrist])[..., None], points[..., wrist, :] - points[..., elbow, :], 0
    )
    spine, whole = middles.spine()
    spine = np.where(whole[..., None], spine, 0)
    rigid = np.broadcast_to(layout.rigid[:, None], length.shape)
    parts = [length, direction[..., ::-1], rigid, _turn(forearm, direction), _turn(spine, direction)]
    return np.where(there, np.concatenate(parts, -1), 0).astype(np.float32)


def _direction(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length (..., 1) and unit vector (..., 2); zero for no length."""
    length = vector_length(vectors)[..., None]
    return length, np.where(length > 1e-6, vectors / np.maximum(length, 1e-6), 0)


def _turn(reference: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Sine and cosine (..., E, 2) of the angle from `reference` (..., 2) to each direction (..., E, 2)."""
    axis = _direction(reference)[1][..., None, :]
    sine = axis[..., 0] * direction[..., 1] - axis[..., 1] * direction[..., 0]
    return np.stack([sine, (axis * direction).sum(-1)], -1)
