"""MediaPipe's pose in a loop, then stick and pose; its model is a `.task` file, or in the package (to 0.10.21)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.demo import load_truth
from benchmarks.peers.loop import Answer, Answers, Job, StickAndPose, frames_of
from engine.clock import now_ns
from stages.detectors import BodyCandidate
from stages.detectors.mediapipe import MediaPipePose, candidate_of

_MODEL = "modules/pose_landmark/pose_landmark_full.tflite"

Detect = Callable[[np.ndarray, float], Sequence[BodyCandidate]]
"""People in a frame, uint8 BGR, at a time in seconds."""


def answers(job: Job) -> Answers:
    """One for every frame of the clip. Raises UserError when the model can't be loaded."""
    rest, fps = StickAndPose(), load_truth().fps  # MediaPipe wants to know how much time passes
    with from_task(job.task) if job.task else from_package() as detect:
        for number, image in enumerate(frames_of(job.clip)):
            decoded_at_ns = now_ns()
            yield Answer(decoded_at_ns, rest.name(image, detect(image, number / fps)))


def lacks(job: Job) -> str | None:
    """What is missing beside the package, as a sentence's end."""
    spec = find_spec("mediapipe")
    if job.task or (spec and spec.origin and (Path(spec.origin).parent / _MODEL).is_file()):
        return None
    return "this version ships no model; name a PoseLandmarker .task file with --task"


@contextmanager
def from_task(file: Path) -> Iterator[Detect]:
    """The detector of a `.task` file, which follows a person by itself."""
    pose = MediaPipePose(file)
    try:
        yield lambda image, at_s: pose.detect(image, None, "0", at_s)
    finally:
        pose.close()


@contextmanager
def from_package() -> Iterator[Detect]:
    """The detector with the model in the package, which has the older interface."""
    pose: Any = import_module("mediapipe").solutions.pose.Pose()

    def detect(image: np.ndarray, at_s: float) -> list[BodyCandidate]:
        found = pose.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).pose_landmarks
        if found is None:
            return []
        height, width = image.shape[:2]
        candidate = candidate_of(found.landmark, width, height)
        return [] if candidate is None else [candidate]

    try:
        yield detect
    finally:
        pose.close()
