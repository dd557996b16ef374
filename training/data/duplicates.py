"""Finds pictures that are in a table twice, also turned, scaled, flipped, recoded or brightened.

Two rows show the same picture when the bodies agree up to place, size and turn within 1 % of a torso a point: of 1.7
million pairs of real photos only true copies do. Where points were found anew in a copy, 3 % are enough if the
difference hashes of the pictures (Krawetz 2013; here 16 x 16 bits) agree too; a hash alone is that of the room.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from stages.graph import PRESENT_CONFIDENCE, mirror_keypoints
from stages.skeleton import BODY_COUNT
from training.data.table import Table

SAME_BODY = 0.01
LIKE_BODY = 0.03
"""Distance of two shapes of unit size; a torso is about 0.25 of that, and 17 points share it."""
LIKE_HASH = 12
"""Bits of 256."""
SAME_HASH = 3
_SIDE = 16
_LEAST_POINTS = 12
_BLOCK = 512


@dataclass(frozen=True)
class Pair:
    """Two rows that show the same picture, the first the earlier one."""

    first: int
    second: int
    mirrored: bool


def find_duplicates(table: Table, hashes: np.ndarray | None = None) -> list[Pair]:
    """All pairs of rows that show the same picture; `hashes` as `picture_hashes` returns them."""
    own, turned = _Shapes.of(table.keypoints), _Shapes.of(mirror_keypoints(table.keypoints))
    pairs = []
    for start in range(0, len(table), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(table)))
        for other, flip in ((own, False), (turned, True)):
            same = _distances(own.select(rows), other) <= SAME_BODY
            if hashes is not None:
                bits = _hash_distances(hashes[rows, 0], hashes[:, int(flip)])
                first, second = np.nonzero(bits <= LIKE_HASH)
                far = _common_distance(own.select(rows[first]), other.select(second))
                same[first, second] |= (far <= LIKE_BODY) | (np.isnan(far) & (bits[first, second] <= SAME_HASH))
            pairs += [Pair(int(rows[a]), int(b), flip) for a, b in np.argwhere(same) if rows[a] < b]
    return pairs


def picture_hashes(table: Table) -> np.ndarray:
    """float32 (N, 2, 256): difference hash of each picture and of its mirror image, +1 and -1, 0 without a picture."""
    hashes = np.zeros((len(table), 2, _SIDE * _SIDE), np.float32)
    for i in tqdm(range(len(table)), "look at pictures", disable=None):
        # A quarter of the resolution is plenty and decodes several times as fast.
        picture = table.read_picture(i, cv2.IMREAD_REDUCED_GRAYSCALE_4)
        if picture is not None:
            hashes[i] = difference_hash(picture), difference_hash(picture[:, ::-1])
    return hashes


def difference_hash(grey: np.ndarray) -> np.ndarray:
    """float32 (256,): +1 where a cell of uint8 (H, W) is darker than its right neighbour, else -1."""
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.where(small[:, 1:] > small[:, :-1], 1.0, -1.0).astype(np.float32).ravel()


@dataclass(frozen=True)
class _Shapes:
    """Bodies as complex128 (N, 17), centred and of unit size, 0 where a point is missing, and bool (N, 17) for that."""

    points: np.ndarray
    mask: np.ndarray

    @staticmethod
    def of(keypoints: np.ndarray) -> _Shapes:
        """Of keypoints (N, 19, 3); bodies with too few points are as good as missing."""
        body = keypoints[:, :BODY_COUNT]
        mask = body[..., 2] >= PRESENT_CONFIDENCE
        mask = mask & (mask.sum(1) >= _LEAST_POINTS)[:, None]
        return _Shapes(_centred(body[..., 0].astype(np.float64) + 1j * body[..., 1], mask), mask)

    def select(self, chosen: np.ndarray) -> _Shapes:
        return _Shapes(self.points[chosen], self.mask[chosen])


def _centred(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Complex (N, 17), centred and of unit size over the points of the mask, 0 elsewhere."""
    points = np.where(mask, points, 0)
    centred = np.where(mask, points - (points.sum(1) / np.maximum(mask.sum(1), 1))[:, None], 0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)


def _distances(a: _Shapes, b: _Shapes) -> np.ndarray:
    """float (A, B): what remains between two shapes after the best turn (Procrustes); infinite for other points."""
    weights = 1 << np.arange(BODY_COUNT)
    a_key, b_key = (a.mask * weights).sum(1), (b.mask * weights).sum(1)
    comparable = (a_key[:, None] == b_key[None]) & (a_key > 0)[:, None]
    likeness = np.abs(a.points @ b.points.conj().T)
    return np.where(comparable, np.sqrt(np.maximum(0, 1 - likeness**2)), np.inf)


def _common_distance(a: _Shapes, b: _Shapes) -> np.ndarray:
    """float (P,): the same for pairs of shapes, over the points that both have; NaN where those are too few."""
    mask = a.mask & b.mask
    likeness = np.abs((_centred(a.points, mask) * _centred(b.points, mask).conj()).sum(1))
    return np.where(mask.sum(1) >= _LEAST_POINTS, np.sqrt(np.maximum(0, 1 - likeness**2)), np.nan)


def _hash_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float (A, B): differing bits; infinite where a picture is missing."""
    there = a.any(1)[:, None] & b.any(1)[None]
    return np.where(there, (a.shape[1] - a @ b.T) / 2, np.inf)
