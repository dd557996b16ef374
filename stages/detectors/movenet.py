"""MoveNet SinglePose (Lightning, Thunder): one person, sharpest when it looks only at the square around them.

The square comes from the frame before, as in the authors' own tracking; at the start, and when the person was lost, the
network first looks at the whole frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from engine.errors import UserError
from stages.cards import Card
from stages.detectors import BodyCandidate, box_around, mark_missing
from stages.detectors.square import Square, parts_of_frame, square_around, whole_frame
from stages.runtime import Backend, Network
from stages.skeleton import BODY_COUNT

GLIMPSE = 0.3
"""Mean score from which a first look is worth a closer one. Of 96 pictures without people 1 % passed such a look and
none the closer one at 0.35; at 0.4, the first look alone lost a quarter of the people."""

SURE_IN_PART = 0.45
"""Mean score that counts as a person in a part of the frame: parts are searched often, so that they may err less."""


class MoveNet:
    """Runs a MoveNet SinglePose ONNX file: NHWC int32 RGB in; y, x (0..1 of the square) and score out."""

    def __init__(self, model: str, card: Card, network: Network) -> None:
        self._network = network
        spec = self._network.inputs[0]
        if len(spec.shape) != 4 or not 0 < spec.shape[1] == spec.shape[2] or spec.shape[3] != 3:
            raise UserError(
                f"model {model} is no MoveNet SinglePose: its input is {spec.shape}, not (1, size, size, 3); "
                "choose another"
            )
        given = self._network.outputs[0].shape
        if math.prod(given) not in (0, BODY_COUNT * 3):
            raise UserError(
                f"model {model} is no MoveNet SinglePose: it gives {given}, not (1, 1, {BODY_COUNT}, 3); choose another"
            )
        self._threshold = 0.38 if card.threshold is None else card.threshold
        self._size = spec.shape[1]
        self._turns: dict[str, int] = {}
        self._square_pixels = np.zeros((self._size, self._size, 3), np.uint8)
        self._tensor = np.zeros((1, self._size, self._size, 3), spec.dtype)

    def detect(
        self, image: np.ndarray, previous: BodyCandidate | None, stream: str, time_s: float
    ) -> Sequence[BodyCandidate]:
        height, width = image.shape[:2]
        if previous is not None:
            followed = self._look(image, square_around(previous.keypoints, width, height))
            if followed.score >= self._threshold:
                return [followed]
        for square, needed in self._places(width, height, stream):
            glimpse = self._look(image, square)
            if glimpse.score < GLIMPSE:
                continue
            closer = self._look(image, square_around(glimpse.keypoints, width, height))
            best = max(glimpse, closer, key=lambda candidate: candidate.score)
            if best.score >= needed:
                return [best]
        return []

    def _places(self, width: int, height: int, stream: str) -> Iterator[tuple[Square, float]]:
        """Where to look for somebody, and the score that counts there: in the whole frame and, as people far away are
        too small in it, in one of its parts in turn."""
        yield whole_frame(width, height), self._threshold
        parts = parts_of_frame(width, height)
        if parts:
            turn = self._turns[stream] = (self._turns.get(stream, -1) + 1) % len(parts)
            yield parts[turn], SURE_IN_PART

    def _look(self, image: np.ndarray, square: Square) -> BodyCandidate:
        height, width = image.shape[:2]
        x, y, side = square
        scale = self._size / side
        shift = (self._size - 1 + scale) / 2  # pixels are squares: their centres, not their corners, fall together
        matrix = np.array([[scale, 0, shift - x * scale], [0, scale, shift - y * scale]])
        cv2.warpAffine(image, matrix, (self._size, self._size), dst=self._square_pixels, flags=cv2.INTER_LINEAR)
        # A copy with reversed strides would take longer.
        self._tensor[0] = cv2.cvtColor(self._square_pixels, cv2.COLOR_BGR2RGB)
        answer = self._network(self._tensor)[0].reshape(BODY_COUNT, 3)
        points = np.empty((BODY_COUNT, 3), np.float32)
        points[:, 0] = x + (answer[:, 1] - 0.5) * side
        points[:, 1] = y + (answer[:, 0] - 0.5) * side
        points[:, 2] = answer[:, 2]
        keypoints = mark_missing(points, width, height)
        if not keypoints[:, 2].any():
            return BodyCandidate(keypoints, 0.0, (0.0, 0.0, 0.0, 0.0))
        return BodyCandidate(keypoints, float(keypoints[:, 2].mean()), box_around(keypoints, width, height))

    @property
    def backend(self) -> Backend:
        """The runtime that the network runs in."""
        return self._network.backend

    def describe(self) -> str:
        return self._network.describe()

    def close(self) -> None:
        """Nothing to release."""
