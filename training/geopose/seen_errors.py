"""True keypoints as the detectors would see them: with the errors that were made of bodies that look alike.

A pose can be planned in a hundredth of a second and drawn and looked at in a tenth; and what a detector gets wrong
depends on the pose, so that noise which is the same for all is no likeness of it.
"""

from __future__ import annotations

import numpy as np

from engine.errors import UserError
from stages.skeleton import BODY_COUNT, LEFT_HIP, LEFT_SHOULDER, NODE_COUNT, RIGHT_HIP, RIGHT_SHOULDER
from training.geopose.data import PoseTable, centred

LIKEST = 8
"""Bodies among which one is drawn by lot."""
_HEAD_WEIGHT = 0.5
"""Of the points above the shoulders, when bodies are compared: five of 19 that move as one."""
_ANOTHER_PERSON = 0.5
"""Torsos; who was seen farther off than that (median of the limbs) is somebody else, or nobody."""
_PLACED_ANEW = 0.002
"""Torsos; whose points are all nearer than that to where they were seen was not corrected: what is wrong there nobody
knows."""
_LIMBS = slice(LEFT_SHOULDER, BODY_COUNT)
_TRUNK = [LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP]
_AT_ONCE = 1000
"""Bodies that are compared with all others at once: a hundred thousand would fill the memory."""


class SeenErrors:
    """What the detectors made of each of M bodies, in torsos of the body."""

    def __init__(self, seen: PoseTable, truth: np.ndarray) -> None:
        """`truth`: float32 (R, 19, 3), the true canonical keypoints by `seen.rows`; of whom it lacks a limb, or says
        just what was seen, is left out.

        Raises UserError when nobody is left."""
        seen = seen.mirrored(seen.wrong_hand)
        true = truth[seen.rows]
        points, unit = centred(true)
        offsets = (seen.keypoints[..., :2] - true[..., :2]) / unit
        there = (seen.keypoints[..., 2] > 0) & (true[..., 2] > 0)
        distance = np.where(there, np.linalg.norm(offsets, axis=2), np.inf)
        whole = (true[:, _LIMBS, 2] > 0).all(1)
        wrong = (distance > _PLACED_ANEW) & (true[..., 2] > 0)
        kept = whole & wrong.any(1) & (np.median(distance[:, _LIMBS], axis=1) < _ANOTHER_PERSON)
        if not kept.any():
            raise UserError(
                "no errors can be lent: there is nobody whose whole body --truth tells, as it is and not as it was "
                "seen, and who was seen there; give the table that `see` was given, or leave --lend-errors out"
            )
        self._likeness = _likeness(points[kept], true[kept, :, 2] > 0)
        self._offsets = np.where(there[..., None], offsets, 0)[kept]
        self._confidence = np.where(there, seen.keypoints[..., 2], 0)[kept]

    def __len__(self) -> int:
        return len(self._confidence)

    def seen(self, keypoints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """True canonical keypoints (B, 19, 3) as they might be seen: each with the errors, the confidences and the
        missing points of one of those bodies that are most like it. Who lacks a shoulder or a hip is like nobody, and
        stays as it is."""
        out = keypoints.copy()
        trunk = (keypoints[:, _TRUNK, 2] > 0).all(1)
        if trunk.any():
            out[trunk] = self._lent(keypoints[trunk], rng)
        return out

    def _lent(self, keypoints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        points, unit = centred(keypoints)
        present = keypoints[..., 2] > 0
        likest = np.concatenate(
            [
                self._likest(_likeness(points[part], present[part]), present[part])
                for part in (slice(start, start + _AT_ONCE) for start in range(0, len(points), _AT_ONCE))
            ]
        )
        chosen = likest[np.arange(len(likest)), rng.integers(0, likest.shape[1], len(likest))]
        there = (self._confidence[chosen] > 0) & present
        out = np.zeros((len(keypoints), NODE_COUNT, 3), np.float32)
        out[..., :2] = keypoints[..., :2] + self._offsets[chosen] * unit
        out[..., 2] = self._confidence[chosen]
        out[~there] = 0
        return out

    def _likest(self, wanted: np.ndarray, present: np.ndarray) -> np.ndarray:
        """int (B, LIKEST or as many as there are): the bodies whose likeness is nearest to each of (B, 38), by the
        points that are `present`, (B, 19)."""
        # Squared distances but for what is the same for all.
        counted = np.repeat(present, 2, axis=1).astype(np.float32)
        distance = counted @ (self._likeness**2).T - 2 * wanted @ self._likeness.T
        count = min(LIKEST, len(self))
        return np.argpartition(distance, count - 1, axis=1)[:, :count]


def _likeness(points: np.ndarray, present: np.ndarray) -> np.ndarray:
    """float32 (B, 38): what is compared, of points (B, 19, 2) and where they are, (B, 19)."""
    weights = np.ones(NODE_COUNT, np.float32)
    weights[:LEFT_SHOULDER] = _HEAD_WEIGHT
    return np.asarray((points * (weights * present)[..., None]).reshape(len(points), -1), np.float32)
