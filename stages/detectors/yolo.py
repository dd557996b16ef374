"""Pose networks exported by Ultralytics: body (17 points), stick (2: grip, tip) or both as one instance (19).

A person who is known is looked at in the square around them, so that a small input is sharp enough; the whole picture
is searched only to find somebody, or to find them again.

Reads the two forms of output: raw (1, 4 + classes + 3 points, anchors), which needs non-maximum suppression, and
end-to-end (1, detections, 6 + 3 points), which YOLO26 gives. Coordinates are pixels of the letterboxed input in both.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence

import cv2
import msgspec
import numpy as np

from engine.errors import UserError
from stages.cards import Card
from stages.detectors import SAME_PERSON, BodyCandidate, Box, StickCandidate, box_around, mark_missing, overlap
from stages.detectors.square import SURE, square_around
from stages.packets import Hand
from stages.runtime import Network
from stages.skeleton import BODY_COUNT, GRIP, NODE_COUNT

POINTS = {"body": BODY_COUNT, "stick": NODE_COUNT - BODY_COUNT, "fused": NODE_COUNT}
"""Keypoints per instance for each task of a card."""

MAX_OVERLAP = 0.7
"""Of two boxes of one class that overlap more, the weaker one goes; Ultralytics' default."""

MAX_CANDIDATES = 20
PADDING = 114
"""Grey of the letterbox's borders, as in Ultralytics' training."""


_SMALLEST_PX = 32
REACH = 1.4
"""Factor on the square around a person whose stick is not known: the tip may be farther out than any limb."""


class Letterbox(msgspec.Struct, frozen=True):
    """How a picture was fitted into the network's input: scaled, then shifted."""

    scale: float
    left: int
    top: int

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the input to pixels of the picture."""
        return np.asarray((points - (self.left, self.top)) / self.scale)


def letterbox(image: np.ndarray, out: np.ndarray) -> Letterbox:
    """Fit `image` (h, w, 3) into the middle of `out` (H, W, 3) with its proportions kept; both uint8."""
    height, width = out.shape[:2]
    scale = min(height / image.shape[0], width / image.shape[1])
    new_width, new_height = round(image.shape[1] * scale), round(image.shape[0] * scale)
    left, top = round((width - new_width) / 2 - 0.1), round((height - new_height) / 2 - 0.1)
    out[:] = PADDING
    inner = out[top : top + new_height, left : left + new_width]
    inner[:] = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    return Letterbox(scale, left, top)


def decode(output: np.ndarray, point_count: int, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4) as x0, y0, x1, y1, scores (n,) and points (n, point_count, 3), best first.

    `output` is raw (4 + classes + 3 points, anchors) or end-to-end (detections, 6 + 3 points).
    Raises ValueError when it is neither.
    """
    per_instance = 3 * point_count
    if output.shape[1] == 6 + per_instance:
        rows = output[output[:, 4] >= threshold]
        boxes, scores, points = rows[:, :4], rows[:, 4], rows[:, 6:]
    elif output.shape[0] > 4 + per_instance:
        best = output[4 : output.shape[0] - per_instance].max(axis=0)
        rows, scores = output[:, best >= threshold].T, best[best >= threshold]
        half = rows[:, 2:4] / 2
        boxes = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)
        points = rows[:, -per_instance:]
    else:
        raise ValueError(f"an output of {output.shape} does not hold {point_count} points")
    chosen = suppress(boxes, scores)
    return boxes[chosen], scores[chosen], points[chosen].reshape(-1, point_count, 3)


def suppress(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices of the boxes that no better box overlaps too much, best first (non-maximum suppression)."""
    if not len(boxes):
        return np.zeros(0, np.int64)
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    chosen = cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores.tolist(), 0.0, MAX_OVERLAP)
    return np.asarray(chosen, np.int64).ravel()[:MAX_CANDIDATES]


class Yolo:
    """Runs one exported network; as a body detector it also gives the stick when the model is fused."""

    def __init__(self, model: str, card: Card, network: Network) -> None:
        self._network = network
        self._threshold = 0.25 if card.threshold is None else card.threshold
        self._points = POINTS[card.task]
        self._model = model
        spec = self._network.inputs[0]
        if spec.dtype != np.float32 or len(spec.shape) != 4 or spec.shape[1] not in (0, 3):
            raise UserError(
                f"model {model}: its input is {spec.dtype} {spec.shape}, not float32 (1, 3, height, width); "
                "export it anew, in 32-bit floats"
            )
        height, width = spec.shape[2] or self._exported_size()[0], spec.shape[3] or self._exported_size()[1]
        self._canvas = np.zeros((height, width, 3), np.uint8)
        self._instances(np.zeros((64, 64, 3), np.uint8))

    def detect(
        self, image: np.ndarray, previous: BodyCandidate | None, stream: str, time_s: float
    ) -> Sequence[BodyCandidate]:
        if previous is not None:
            left, top, part = self._around(image, previous)
            found = self._people(image, part, (left, top))
            if any(overlap(candidate.box, previous.box) >= SAME_PERSON for candidate in found):
                return found
        return self._people(image, image, (0, 0))

    def detect_sticks(self, image: np.ndarray) -> Sequence[StickCandidate]:
        """All the sticks in the picture, best first."""
        height, width = image.shape[:2]
        found = self._instances(image)
        return [self._stick(points, score, width, height) for _, score, points in found]

    def describe(self) -> str:
        return self._network.describe()

    def close(self) -> None:
        """Nothing to release."""

    def _around(self, image: np.ndarray, person: BodyCandidate) -> tuple[int, int, np.ndarray]:
        """Left and top of the part of the picture with this person, and the part."""
        height, width = image.shape[:2]
        stick = person.stick.points if person.stick is not None else np.zeros((0, 3), np.float32)
        x, y, side = square_around(np.concatenate([person.keypoints, stick]), width, height)
        if self._points == NODE_COUNT and (stick[:, 2] > SURE).sum() < NODE_COUNT - BODY_COUNT:
            side *= REACH
        side = max(side, _SMALLEST_PX)
        left, top = max(0, int(x - side / 2)), max(0, int(y - side / 2))
        return left, top, image[top : math.ceil(y + side / 2), left : math.ceil(x + side / 2)]

    def _people(self, image: np.ndarray, part: np.ndarray, start: tuple[int, int]) -> list[BodyCandidate]:
        """Everybody in a part of the picture that begins at `start`, in pixels of the picture."""
        height, width = image.shape[:2]
        candidates = []
        for box, score, points in self._instances(part):
            points[:, :2] += start
            keypoints = mark_missing(points[:BODY_COUNT], width, height)
            if not keypoints[:, 2].any():
                continue
            inside = np.clip(box.reshape(2, 2) + start, 0, (width, height)).ravel()
            around = _box(inside) if self._points == BODY_COUNT else box_around(keypoints, width, height)
            stick = self._stick(points[GRIP:], score, width, height) if self._points == NODE_COUNT else None
            candidates.append(BodyCandidate(keypoints, score, around, stick))
        return candidates

    def _instances(self, image: np.ndarray) -> list[tuple[np.ndarray, float, np.ndarray]]:
        fitted = letterbox(image, self._canvas)
        blob = cv2.dnn.blobFromImage(self._canvas, 1 / 255, swapRB=True)
        output = self._network(blob)[0][0]
        try:
            boxes, scores, points = decode(output, self._points, self._threshold)
        except ValueError as error:
            raise UserError(f"model {self._model} is not what its card says: {error}; export it anew") from None
        places = points.copy()
        places[..., :2] = fitted.to_picture(points[..., :2])
        corners = fitted.to_picture(boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return [(box, float(score), point) for box, score, point in zip(corners, scores, places, strict=True)]

    def _stick(self, points: np.ndarray, score: float, width: int, height: int) -> StickCandidate:
        return StickCandidate(mark_missing(points, width, height), score)

    def _exported_size(self) -> tuple[int, int]:
        """Height and width that Ultralytics wrote into the file, for exports whose input is free."""
        text = self._network.metadata.get("imgsz", "[640, 640]")
        height, width = ast.literal_eval(text)
        return int(height), int(width)


class YoloStick:
    """A 2-point network as a stick detector."""

    def __init__(self, model: str, card: Card, network: Network) -> None:
        self._yolo = Yolo(model, card, network)

    def detect(
        self, image: np.ndarray, keypoints: np.ndarray, hands: Sequence[Hand | None]
    ) -> Sequence[StickCandidate]:
        return self._yolo.detect_sticks(image)

    def describe(self) -> str:
        return self._yolo.describe()


def _box(corners: np.ndarray) -> Box:
    x0, y0, x1, y1 = corners.tolist()
    return x0, y0, x1, y1
