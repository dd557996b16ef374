"""The stick by heatmaps, looked for in squares around a person whose body is known."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from engine.errors import UserError
from stages.cards import Card
from stages.detectors import StickCandidate, mark_missing
from stages.packets import Hand
from stages.runtime import Backend, Network
from stages.stick_crop import Crop, from_crop, stick_crop, stick_inputs


class StickHeatmap:
    """Runs a stick network: `stick_inputs` in, or the picture alone; `points` (1, 2, 3) and `presence` (1,) out."""

    def __init__(self, model: str, card: Card, network: Network) -> None:
        self._network = network
        names = [output.name for output in self._network.outputs]
        if not {"points", "presence"} <= set(names):
            raise UserError(f"model {model} gives {', '.join(names)}, not points and presence; choose another as stick")
        asked = [item.name for item in network.inputs]
        if len(asked) > 1 and asked != ["image", "body"]:
            raise UserError(f"model {model} asks for {', '.join(asked)}, not image and body; choose another as stick")
        self._points, self._presence = names.index("points"), names.index("presence")
        self._threshold = 0.5 if card.threshold is None else card.threshold
        self._size = self._network.inputs[0].shape[1] or card.inputs[0].shape[1]

    def detect(
        self, image: np.ndarray, keypoints: np.ndarray, hands: Sequence[Hand | None]
    ) -> Sequence[StickCandidate]:
        height, width = image.shape[:2]
        # They are all the same where little is known of the body.
        crops = dict.fromkeys(stick_crop(keypoints, width, height, hand) for hand in hands)
        return [
            msgspec.structs.replace(seen, points=mark_missing(seen.points, width, height))
            for seen in (self.look(image, keypoints, crop) for crop in crops)
            if seen.score >= self._threshold
        ]

    def look(self, image: np.ndarray, keypoints: np.ndarray, crop: Crop) -> StickCandidate:
        """The likeliest stick in a crop, however unlikely it is; its score is the probability that there is one."""
        inputs = stick_inputs(image, keypoints, crop, self._size)
        outputs = self._network(*inputs[: len(self._network.inputs)])
        points = outputs[self._points][0].astype(np.float32)
        points[:, :2] = from_crop(points[:, :2], crop)
        return StickCandidate(points, float(outputs[self._presence].reshape(-1)[0]))

    @property
    def backend(self) -> Backend:
        """The runtime that the network runs in."""
        return self._network.backend

    def describe(self) -> str:
        return self._network.describe()
