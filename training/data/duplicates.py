"""Finds pictures that are in a table twice, also turned, scaled, flipped, recoded or brightened.

Two rows show the same picture when the bodies agree up to place, size and turn within 1 % of a torso a point: of 1.7
million pairs of real photos only true copies do. Where points were found anew in a copy they move by up to 6 %; then
the difference hashes (Krawetz 2013; here 16 x 16 bits) of what lies around the body must agree too. A hash of the
whole picture would be that of the room: frames of one clip differ in 16 bits, whatever the pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from stages.graph import PRESENT_CONFIDENCE, mirror_keypoints, torso_length
from stages.skeleton import BODY_COUNT, LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER
from stages.stick_crop import extract_crop
from training.data.table import Table

SAME_BODY = 0.01
LIKE_BODY = 0.06
"""Distances of two shapes of unit size: about as many torsos a point."""
LIKE_HASH = 32
"""Bits of 256: of copies whose points were found anew nine in ten differ less; of other people none of 105 under 77."""
SURE_HASH = 20
"""So near only frames of one clip within a second come, whatever the points say."""
SAME_HASH = 3
"""Where no body is known, and the whole picture is compared."""
_SIDE = 16
_LEAST_POINTS = 12
_BLOCK = 512
_TORSOS_AROUND = 2.5


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
                near = bits[first, second]
                same[first, second] |= (far <= LIKE_BODY) | (near <= np.where(np.isnan(far), SAME_HASH, SURE_HASH))
            pairs += [Pair(int(rows[a]), int(b), flip) for a, b in np.argwhere(same) if rows[a] < b]
    return pairs


def picture_hashes(table: Table) -> np.ndarray:
    """float32 (N, 2, 256): hash around each body and of its mirror image, +1 and -1; 0 without a picture, or where the
    body lies beside it.

    Where no body is known it is the hash of the whole picture.
    """
    hashes = np.zeros((len(table), 2, _SIDE * _SIDE), np.float32)
    for i in tqdm(range(len(table)), "look at pictures", disable=None):
        # Half the resolution is plenty, and JPEG decodes faster to it.
        picture = table.read_picture(i, cv2.IMREAD_REDUCED_GRAYSCALE_2)
        around = None if picture is None else _around_body(picture, table.keypoints[i] * (0.5, 0.5, 1.0))
        if around is not None:
            hashes[i] = difference_hash(around), difference_hash(around[:, ::-1])
    return hashes


def _around_body(picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray | None:
    """uint8 (128, 128), two and a half torsos wide around the trunk; the whole picture where that is not known. None
    where its middle is not in the picture: what is black in all such rows makes no two of them alike."""
    trunk = keypoints[[LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP]]
    side = _TORSOS_AROUND * float(torso_length(keypoints))
    if (trunk[:, 2] < PRESENT_CONFIDENCE).any() or side < _SIDE:
        return picture
    x, y = trunk[:, :2].mean(0)
    if not (0 <= x < picture.shape[1] and 0 <= y < picture.shape[0]):
        return None
    # A little blur, so that a body found a few pixels aside has the same hash.
    return cv2.GaussianBlur(extract_crop(picture, (float(x), float(y), side), 128), (0, 0), 3)


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
