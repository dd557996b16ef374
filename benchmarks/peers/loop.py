"""What all the loops have in common: the job, the answer, and the work that follows once body and stick are seen."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnxruntime

from stages.cards import load_card
from stages.classes import load_classes
from stages.classify import class_probabilities, name_pose, network_inputs
from stages.correct import CorrectSettings, refine_stick
from stages.detectors import BodyCandidate, BodyDetector
from stages.detectors.movenet import MoveNet
from stages.detectors.stick import StickHeatmap
from stages.graph import build_graph, canonical_keypoints, hand_crop, torso_length
from stages.packets import GraphInput, Hand
from stages.sessions import Network, onnxruntime_spec
from stages.skeleton import BODY_COUNT, GRIP, LEFT_WRIST, NODE_COUNT, RIGHT_WRIST, TIP
from stages.smooth import SmoothSettings, smooth_keypoints

BODY, STICK, POSE = "movenet_lightning", "stick_heatmap", "geopose"
"""The shipped models that `arnis-stream` uses."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a loop is to do."""

    clip: Path
    task: Path | None = None
    """MediaPipe's model."""


class Answer(msgspec.Struct, frozen=True):
    """What a loop found in one frame."""

    decoded_at_ns: int
    """On `engine.clock`: when the frame was there as an array."""
    label: str | None
    """The pose; None when none is accepted or nobody is seen."""


Answers = Generator[Answer, None, None]
Loop = Callable[[Job], Answers]
"""Goes through the clip from its start and yields an answer for every frame, as soon as it has it."""


def load_plainly(model: str) -> Network:
    """A shipped model on ONNX Runtime with every option left alone, as a tutorial loads it. Raises UserError."""
    _, file = load_card(model)
    session = onnxruntime.InferenceSession(file)
    specs = [tuple(map(onnxruntime_spec, items)) for items in (session.get_inputs(), session.get_outputs())]
    names = [item.name for item in session.get_inputs()]

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    version = onnxruntime.__version__
    return Network(run, "onnxruntime", "CPU, its own choice of threads", version, specs[0], specs[1], {})


def load_body() -> BodyDetector:
    """The shipped body network, run plainly."""
    return MoveNet(BODY, load_card(BODY)[0], load_plainly(BODY))


class StickAndPose:
    """Everything after the body: find the stick, smooth, correct, build the graph, classify."""

    def __init__(self) -> None:
        self._stick = StickHeatmap(STICK, load_card(STICK)[0], load_plainly(STICK))
        self._name = PoseNamer()

    def name(self, image: np.ndarray, people: Sequence[BodyCandidate]) -> str | None:
        """Pose of the first of the people in uint8 BGR `image`; None when it is not accepted or nobody is there."""
        if not people:
            return None
        # One look, at what both hands reach.
        sticks = self._stick.detect(image, people[0].keypoints, (None,))
        return self._name(image, people[0].keypoints, sticks[0].points if sticks else np.full((2, 3), np.nan))


class PoseNamer:
    """Smooths, corrects, builds the graph and classifies, frame by frame, with the settings that are shipped."""

    def __init__(self) -> None:
        self._network = load_plainly(POSE)
        self._card, _ = load_card(POSE)
        self._classes = load_classes()
        self._previous = np.full((NODE_COUNT, 2), np.nan)

    def __call__(self, image: np.ndarray, body: np.ndarray, stick: np.ndarray) -> str | None:
        """Name of the pose in uint8 BGR `image`, or None; `body` (17, 3) and `stick` (2, 3) as x, y and score."""
        points = np.vstack([body, stick])
        points[:, 2] = np.nan_to_num(points[:, 2])
        points[:, :2] = self._previous = smooth_keypoints(points[:, :2], self._previous, SmoothSettings().alpha)
        follow_rod(image, points)
        hand: Hand = "left" if _nearer_is_left(points) else "right"
        grip, tip = tuple(points[GRIP].tolist()), tuple(points[TIP].tolist())
        nodes, edges, mask = build_graph(canonical_keypoints(points[:BODY_COUNT], grip, tip, hand))
        graph = GraphInput(nodes=nodes, edges=edges, mask=mask, crop=hand_crop(image, points, hand))
        (row,) = class_probabilities(self._network(*network_inputs([graph]))[0], self._card.temperature)
        pose = name_pose(row, self._classes, self._card.threshold or 0.0)
        return pose.label if pose.accepted else None


def _nearer_is_left(points: np.ndarray) -> bool:
    """Whether the grip of (19, 3) `points` is nearer to the left wrist than to the right one."""
    left, right = np.hypot(*(points[[LEFT_WRIST, RIGHT_WRIST], :2] - points[GRIP, :2]).T)
    return bool(left < right)


def follow_rod(image: np.ndarray, points: np.ndarray) -> None:
    """Put grip and tip of (19, 3) `points` where the picture shows the stick, in place."""
    grip, tip = points[GRIP, :2].copy(), points[TIP, :2].copy()
    if not np.isfinite([grip, tip]).all():
        return
    needed = CorrectSettings()
    refined = refine_stick(
        image,
        grip,
        tip,
        float(torso_length(points)),
        min_evidence=needed.min_evidence,
        min_margin=needed.min_margin,
    )
    if refined is not None:
        points[GRIP, :2], points[TIP, :2] = refined.grip, refined.tip


def frames_of(clip: Path) -> Iterator[np.ndarray]:
    """The clip's frames, uint8 BGR, with OpenCV."""
    capture = cv2.VideoCapture(str(clip))
    while True:
        there, image = capture.read()
        if not there:
            return
        yield image
