"""MediaPipe's PoseLandmarker (BlazePose) as body detector: 33 landmarks, of which 17 are COCO's.

Needs the optional package `mediapipe` and a `.task` file. Its VIDEO mode follows a person by itself, so each stream
has a landmarker of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.errors import UserError
from stages.detectors import BodyCandidate, box_around, mark_missing
from stages.skeleton import BLAZE35, BODY_COUNT


class MediaPipePose:
    """Runs a PoseLandmarker file on the CPU."""

    def __init__(self, task_file: Path) -> None:
        if not task_file.is_file():
            raise UserError(
                f"model file {task_file} does not exist ({task_file.absolute()}); give a PoseLandmarker .task file"
            )
        if find_spec("mediapipe") is None:
            raise UserError(f"{task_file} needs the package mediapipe; run `pip install '.[mediapipe]'`")
        import mediapipe

        self._mediapipe = mediapipe
        self._file = task_file
        self._landmarkers: dict[str, Any] = {}
        self._last_ms: dict[str, int] = {}
        self._landmarkers[""] = self._make()  # so that a broken file is found at the start

    def detect(
        self, image: np.ndarray, previous: BodyCandidate | None, stream: str, time_s: float
    ) -> Sequence[BodyCandidate]:
        height, width = image.shape[:2]
        if stream not in self._landmarkers:
            self._landmarkers[stream] = self._landmarkers.pop("", None) or self._make()
        # Timestamps must grow, whatever the source says.
        milliseconds = max(round(time_s * 1000), self._last_ms.get(stream, -1) + 1)
        self._last_ms[stream] = milliseconds
        picture = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        )
        result = self._landmarkers[stream].detect_for_video(picture, milliseconds)
        return [c for found in result.pose_landmarks if (c := candidate_of(found, width, height)) is not None]

    def describe(self) -> str:
        return f"mediapipe {self._mediapipe.__version__} on CPU"

    def close(self) -> None:
        for landmarker in self._landmarkers.values():
            landmarker.close()

    def _make(self) -> Any:
        vision = self._mediapipe.tasks.vision
        options = vision.PoseLandmarkerOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_buffer=self._file.read_bytes()),
            running_mode=vision.RunningMode.VIDEO,
        )
        try:
            return vision.PoseLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"mediapipe cannot load {self._file}: {reason}; fetch the file again") from None


def candidate_of(landmarks: Sequence[Any], width: int, height: int) -> BodyCandidate | None:
    """COCO-17 of 33 landmarks, whose places are 0..1 of the picture; None when nothing of it is in the picture."""
    chosen = [landmarks[i] for i in BLAZE35.coco[:BODY_COUNT]]
    points = np.array([(mark.x * width, mark.y * height, mark.visibility) for mark in chosen], np.float32)
    keypoints = mark_missing(points, width, height)
    if not keypoints[:, 2].any():
        return None
    return BodyCandidate(keypoints, float(keypoints[:, 2].mean()), box_around(keypoints, width, height))
