"""How far sticks are from where they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SWAPPED_FROM_DEG = 150.0
"""Turned by more, a stick has grip and tip exchanged."""


class StickErrors(NamedTuple):
    """Of N sticks; NaN where an end was not seen."""

    grip: np.ndarray
    """float (N,), in lengths of the true stick in the picture."""
    tip: np.ndarray
    """The same."""
    angle_deg: np.ndarray
    """float (N,), 0 to 180."""
    swapped: np.ndarray
    """bool (N,)."""


def stick_errors(seen: np.ndarray, truth: np.ndarray) -> StickErrors:
    """Errors of sticks (N, 2, 2), x and y of grip and tip, beside the true ones."""
    length = np.maximum(np.linalg.norm(truth[:, 1] - truth[:, 0], axis=1), 1e-6)
    ends = np.linalg.norm(seen - truth, axis=2) / length[:, None]
    shaft, true_shaft = (sticks[:, 1] - sticks[:, 0] for sticks in (seen, truth))
    turn = np.degrees(np.arctan2(shaft[:, 1], shaft[:, 0]) - np.arctan2(true_shaft[:, 1], true_shaft[:, 0]))
    angle_deg = np.abs((turn + 180) % 360 - 180)
    return StickErrors(ends[:, 0], ends[:, 1], angle_deg, angle_deg > SWAPPED_FROM_DEG)
