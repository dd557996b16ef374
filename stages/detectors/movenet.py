"""MoveNet SinglePose (Lightning, Thunder): one person, sharpest when it looks only at the square around them.

The square comes from the frame before, as in the authors' own tracking; at the start, and when the person was lost, the
network first looks at the whole frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from engine.errors import UserError
from stages.cards import Card
from stages.detectors import BodyCandidate, box_around, mark_missing
from stages.runtime import Network
from stages.skeleton import BODY_COUNT, LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER

Square = tuple[float, float, float]
"""Centre x, y and side in pixels of the frame."""

SURE = 0.2
"""Score from which a keypoint helps to place the square; MoveNet's own tracking uses the same."""

GLIMPSE = 0.3
"""Mean score from which a first look is worth a closer one. Of 96 pictures without people 1 % passed such a look and
none the closer one at 0.35; at 0.4, the first look alone lost a quarter of the people."""

SURE_IN_PART = 0.45
"""Mean score that counts as a person in a part of the frame: parts are searched often, so that they may err less."""

TORSO = [LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP]


def whole_frame(width: int, height: int) -> Square:
    """The square that holds the whole frame (a letterbox)."""
    return width / 2, height / 2, float(max(width, height))


def square_around(keypoints: np.ndarray, width: int, height: int) -> Square:
    """Square around a person, from their torso and limbs; the whole frame when no shoulder or no hip is sure.

    `keypoints` (17, 3) in pixels. The factors 1.9 (torso) and 1.2 (all limbs) are those of MoveNet's published tracking
    (tensorflow.org/hub/tutorials/movenet); like there, the square leaves the frame by as much as the person does.
    """
    sure = keypoints[:, 2] > SURE
    hips, shoulders = sure[[LEFT_HIP, RIGHT_HIP]], sure[[LEFT_SHOULDER, RIGHT_SHOULDER]]
    if not hips.any() or not shoulders.any():
        return whole_frame(width, height)
    xy = keypoints[:, :2]
    centre = xy[[LEFT_HIP, RIGHT_HIP]][hips].mean(axis=0)
    torso = np.abs(xy[TORSO][sure[TORSO]] - centre).max()
    body = np.abs(xy[sure] - centre).max()
    half = max(1.9 * torso, 1.2 * body)
    farthest_border = max(centre[0], width - centre[0], centre[1], height - centre[1])
    half = min(half, farthest_border)
    if half > max(width, height) / 2:
        return whole_frame(width, height)
    return float(centre[0]), float(centre[1]), float(2 * half)


def parts_of_frame(width: int, height: int) -> list[Square]:
    """Middle, start and end of a long frame as squares of its short side; none of a nearly square one."""
    short, long = min(width, height), max(width, height)
    if long < 1.3 * short:
        return []
    places = (long / 2, short / 2, long - short / 2)
    return [(at, height / 2, float(short)) if width > height else (width / 2, at, float(short)) for at in places]


class MoveNet:
    """Runs a MoveNet SinglePose ONNX file: NHWC int32 RGB in; y, x (0..1 of the square) and score out."""

    def __init__(self, model: str, card: Card, network: Network) -> None:
        self._network = network
        spec = self._network.inputs[0]
        if len(spec.shape) != 4 or spec.shape[1] != spec.shape[2] or spec.shape[3] != 3:
            raise UserError(f"model {model} is no MoveNet: its input is {spec.shape}, not (1, size, size, 3)")
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

    def describe(self) -> str:
        return self._network.describe()

    def close(self) -> None:
        """Nothing to release."""
