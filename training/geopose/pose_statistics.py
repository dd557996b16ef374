"""Keypoints drawn from what is known of real people: mean, main modes and spread of each pose in each view.

They have no picture, but the spread of real bodies and of a real detector; the file holds aggregates only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UserError
from stages.skeleton import GRIP, NODE_COUNT, RIGHT_WRIST, TIP
from training.geopose.data import PoseTable, keypoint_table
from training.synth.skeletons import LENGTH_QUANTILES


@dataclass(frozen=True)
class _Cell:
    """One pose in one view; lengths in torsos."""

    mean: np.ndarray
    std: np.ndarray
    mode_std: np.ndarray
    modes: np.ndarray
    found: float
    grip_from_wrist: np.ndarray
    grip_spread: np.ndarray
    angle_deg: float
    concentration: float
    length: np.ndarray


class PoseStatistics:
    """Draws canonical keypoints of the classes that the file knows."""

    def __init__(self, path: Path, class_names: tuple[str, ...]) -> None:
        """Raises UserError when the file is missing or names a class that is not in `class_names`."""
        try:
            table: dict[str, dict[str, Any]] = json.loads(path.read_text())["classes"]
            cells = [(name, view, _cell(cell)) for name, views in table.items() for view, cell in views.items()]
        except FileNotFoundError:
            raise UserError(f"pose statistics {path} do not exist; give their path with --statistics") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"pose statistics {path} cannot be read ({type(error).__name__}: {error}); give a file of the form of "
                "training/synth/pose_statistics.json with --statistics, or draw none with --drawn 0"
            ) from None
        unknown = sorted(set(table) - set(class_names))
        if unknown:
            raise UserError(f"pose statistics {path} name the class {unknown[0]}, which is not in the class file; "
                            "draw none with --drawn 0")  # fmt: skip
        self.name = path.name
        self._labels = [class_names.index(name) for name, _, _ in cells]
        self._cells = [(view, cell) for _, view, cell in cells]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints and labels of `table`."""
        table = self.table(count, rng)
        return table.keypoints, table.labels

    def table(self, count: int, rng: np.random.Generator) -> PoseTable:
        """Samples of nobody, origin mid-hip, unit torso, classes and views in equal shares."""
        classes = np.unique(self._labels)
        labels = rng.choice(classes, count)
        keypoints = np.zeros((count, NODE_COUNT, 3), np.float32)
        views = np.full(count, "", object)
        places = rng.random(count)
        for label in classes:
            cells = [cell for cell, known in zip(self._cells, self._labels, strict=True) if known == label]
            picks = np.flatnonzero(labels == label)
            for number, (view, cell) in enumerate(cells):
                chosen = picks[(places[picks] * len(cells)).astype(int) == number]
                keypoints[chosen], views[chosen] = _draw(cell, len(chosen), rng), view
        return replace(keypoint_table(keypoints, labels.astype(np.int64)), views=views.astype(str))


def _cell(entry: dict[str, Any]) -> _Cell:
    mean = np.asarray(entry["body_mean"], np.float32)
    modes = np.asarray([mode["direction"] for mode in entry["body_modes"]], np.float32)
    mode_std = np.asarray([mode["std"] for mode in entry["body_modes"]], np.float32)
    # What the modes do not explain stays as independent noise, so that the spread of each keypoint is kept.
    explained = (modes**2 * (mode_std**2)[:, None, None]).sum(0)
    rest = np.sqrt(np.maximum(np.asarray(entry["body_std"], np.float32) ** 2 - explained, 0))
    grip_mean = np.asarray(entry.get("grip_mean", mean[RIGHT_WRIST]), np.float32)
    grip_std = np.asarray(entry.get("grip_std", (0.05, 0.05)), np.float32)
    return _Cell(
        mean=mean, std=rest, mode_std=mode_std, modes=modes,
        found=float(entry["stick_found"]) if "grip_mean" in entry else 0.0,
        grip_from_wrist=grip_mean - mean[RIGHT_WRIST],
        # The grip moves with the wrist; its own spread is at most a hand's breadth.
        grip_spread=np.minimum(grip_std, 0.08),
        angle_deg=float(entry.get("stick_angle_deg", 0)),
        concentration=float(entry.get("stick_angle_concentration", 0)),
        length=np.asarray(entry.get("stick_length_quantiles", (1,) * 5), np.float32),
    )  # fmt: skip


def _draw(cell: _Cell, count: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (count, 19, 3) of one pose in one view; the stick is missing as often as it was."""
    weights = rng.standard_normal((count, len(cell.mode_std))).astype(np.float32) * cell.mode_std
    body = cell.mean + np.tensordot(weights, cell.modes, 1) + rng.standard_normal((count, *cell.mean.shape)) * cell.std
    grip = body[:, RIGHT_WRIST] + cell.grip_from_wrist + rng.standard_normal((count, 2)) * cell.grip_spread
    # `concentration` is the mean resultant length R; (2 - R^2) R / (1 - R^2) approximates von Mises' kappa
    # (Banerjee et al. 2005, eq. 4.4, two dimensions).
    r = min(cell.concentration, 0.99)
    angle = np.deg2rad(cell.angle_deg) + rng.vonmises(0, r * (2 - r**2) / (1 - r**2), count)
    length = np.interp(rng.random(count), LENGTH_QUANTILES, cell.length)
    keypoints = np.ones((count, NODE_COUNT, 3), np.float32)
    keypoints[:, : cell.mean.shape[0], :2] = body
    keypoints[:, GRIP, :2] = grip
    keypoints[:, TIP, :2] = grip + length[:, None] * np.stack([np.cos(angle), -np.sin(angle)], -1)
    keypoints[rng.random(count) >= cell.found, GRIP:] = 0
    return keypoints
