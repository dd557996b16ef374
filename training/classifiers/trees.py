"""Trees over features of keypoints, as the baseline that networks must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from engine.clock import NS_PER_S, now_ns
from stages.angles import measure, view_of
from stages.classes import ClassFile
from stages.graph import build_graph
from stages.skeleton import NODE_COUNT
from training.geopose.batches import Mixture
from training.geopose.data import PoseTable
from training.geopose.settings import FitSettings

_FIRST, _SECOND = np.triu_indices(NODE_COUNT, 1)
_MISSING = -9.0
"""Below every feature, so that one cut of a tree sets missing ones apart."""
_LEAST = 1e-3
"""Probability that a tree model gives at least: votes of zero are not proof."""


@dataclass(frozen=True)
class TreeModel:
    """Features and the estimator over them."""

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    """From canonical keypoints (N, 19, 3) to float32 (N, F)."""
    estimator: Callable[[FitSettings], Any]
    """A scikit-learn classifier."""

    @property
    def unread(self) -> frozenset[str]:
        """Settings of the training that change nothing in it."""
        return frozenset(field.name for field in fields(FitSettings)) - {"seed", "threads"}

    def classifier(self, classes: ClassFile) -> TreeClassifier:
        """One that has not learnt yet."""
        return TreeClassifier(self, len(classes.classes))


class TreeClassifier:
    """See `protocol.Classifier`."""

    def __init__(self, model: TreeModel, class_count: int) -> None:
        self._model, self._class_count = model, class_count

    def fit(self, train: Mixture, inner: PoseTable, settings: FitSettings, run: Path) -> float:
        """Learns at once, with each hand known; there is nothing to stop by and nothing to keep."""
        started = now_ns()
        samples = train.samples(np.random.default_rng(settings.seed))
        samples = samples.mirrored(samples.wrong_hand)
        # XGBoost wants labels without gaps; a class may be absent from a small table.
        self._present, labels = np.unique(samples.labels, return_inverse=True)
        self._estimator = self._model.estimator(settings).fit(self._model.features(samples.keypoints), labels)
        return (now_ns() - started) / NS_PER_S

    def logits(self, table: PoseTable) -> np.ndarray:
        out = np.zeros((len(table), self._class_count))
        out[:, self._present] = self._estimator.predict_proba(self._model.features(table.keypoints))
        return np.log(np.maximum(out, _LEAST))


def angle_features(keypoints: np.ndarray) -> np.ndarray:
    """float32 (N, 17): every quantity of `stages.angles` and the view."""
    values = measure(keypoints)
    columns = [*values.values(), view_of(keypoints).astype(np.float64)]
    return np.nan_to_num(np.stack(columns, -1), nan=-999.0).astype(np.float32)


def pair_features(keypoints: np.ndarray) -> np.ndarray:
    """float32 (N, 380): places of the nodes in torsos, and their differences for every pair."""
    nodes, _, mask = build_graph(keypoints)
    points = np.where(mask[..., None] > 0, nodes[..., :2], np.nan)
    differences = points[:, _FIRST] - points[:, _SECOND]
    features = np.concatenate([points.reshape(len(points), -1), differences.reshape(len(points), -1)], 1)
    return np.nan_to_num(features, nan=_MISSING).astype(np.float32)
