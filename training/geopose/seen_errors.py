"""True keypoints as the detectors would see them: with the errors that were made of bodies that look alike.

A pose can be planned in a hundredth of a second and drawn and looked at in a tenth; and what a detector gets wrong
depends on the pose, so that noise which is the same for all is no likeness of it.
"""

from __future__ import annotations

import numpy as np

from engine.errors import UserError
from stages.skeleton import BODY_COUNT, LEFT_SHOULDER, NODE_COUNT
from training.geopose.data import PoseTable, centred

LIKEST = 8
"""Bodies among which one is drawn by lot."""
_HEAD_WEIGHT = 0.5
"""Of the points above the shoulders, when bodies are compared: five of 19 that move as one."""
_ANOTHER_PERSON = 0.5
"""Torsos; who was seen farther off than that (median of the limbs) is somebody else, or nobody."""
_AT_ONCE = 1000
"""Bodies that are compared with all others at once: a hundred thousand would fill the memory."""


class SeenErrors:
    """What the detectors made of each of M bodies, in torsos of the body."""

    def __init__(self, seen: PoseTable, truth: np.ndarray) -> None:
        """`truth`: float32 (R, 19, 3), the true canonical keypoints by `seen.rows`; whom it lacks is left out.

        Raises UserError when nobody is left."""
        seen = seen.mirrored(seen.wrong_hand)
        true = truth[seen.rows]
        points, unit = centred(true)
        offsets = (seen.keypoints[..., :2] - true[..., :2]) / unit
        there = (seen.keypoints[..., 2] > 0) & (true[..., 2] > 0)
        distance = np.where(there, np.linalg.norm(offsets, axis=2), np.inf)
        whole = (true[:, :BODY_COUNT, 2] > 0).all(1)
        kept = whole & (np.median(distance[:, LEFT_SHOULDER:BODY_COUNT], axis=1) < _ANOTHER_PERSON)
        if not kept.any():
            raise UserError(
                "nobody whose whole body --truth tells was seen where it says, so no errors can be lent to the samples "
                "of --exact; give the table that `see` was given, or leave --truth out"
            )
        self._likeness = _likeness(points[kept], true[kept, :, 2] > 0)
        self._offsets = np.where(there[..., None], offsets, 0)[kept]
        self._confidence = np.where(there, seen.keypoints[..., 2], 0)[kept]

    def __len__(self) -> int:
        return len(self._confidence)

    def seen(self, keypoints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """True canonical keypoints (B, 19, 3), of whole bodies, as they might be seen: each with the errors, the
        confidences and the missing points of one of those bodies that are most like it."""
        points, unit = centred(keypoints)
        wanted = _likeness(points, keypoints[..., 2] > 0)
        likest = np.concatenate([self._likest(wanted[i : i + _AT_ONCE]) for i in range(0, len(wanted), _AT_ONCE)])
        chosen = likest[np.arange(len(likest)), rng.integers(0, likest.shape[1], len(likest))]
        there = (self._confidence[chosen] > 0) & (keypoints[..., 2] > 0)
        out = np.zeros((len(keypoints), NODE_COUNT, 3), np.float32)
        out[..., :2] = keypoints[..., :2] + self._offsets[chosen] * unit
        out[..., 2] = self._confidence[chosen]
        out[~there] = 0
        return out

    def _likest(self, wanted: np.ndarray) -> np.ndarray:
        """int (B, LIKEST or as many as there are): the bodies whose likeness is nearest to each of (B, 38)."""
        # Squared distances but for what is the same for all.
        distance = (self._likeness**2).sum(1) - 2 * wanted @ self._likeness.T
        count = min(LIKEST, len(self))
        return np.argpartition(distance, count - 1, axis=1)[:, :count]


def _likeness(points: np.ndarray, present: np.ndarray) -> np.ndarray:
    """float32 (B, 38): what is compared, of points (B, 19, 2) and where they are, (B, 19)."""
    weights = np.ones(NODE_COUNT, np.float32)
    weights[:LEFT_SHOULDER] = _HEAD_WEIGHT
    return np.asarray((points * (weights * present)[..., None]).reshape(len(points), -1), np.float32)
