"""A network as a classifier: what it is, in a declaration; how it learns, in `training.geopose.fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from stages.classes import ClassFile
from training.geopose.batches import Mixture
from training.geopose.data import PoseTable
from training.geopose.settings import FitSettings

OF_EDGES = frozenset({"drop_edge", "edge_noise"})
OF_BACKBONE = frozenset({"backbone", "pretrained", "frozen_epochs"})
OF_CROPS = OF_BACKBONE | {"crop_faults", "geometry_weight"}
OF_KEYPOINTS = frozenset({"faults", "without", "strengths", "arcface", "arcface_margin", "arcface_scale"})
"""Settings that say nothing to a network which doesn't look at these."""


@dataclass(frozen=True)
class NetworkModel:
    """One network by name."""

    name: str
    build: Callable[[int, FitSettings], nn.Module]
    """From the number of classes and the settings, of which only `backbone` and `pretrained` may matter."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What this variant sets, whatever else is asked for."""
    ignored: frozenset[str] = frozenset()
    """Names of settings of what it doesn't look at."""
    needs_crops: bool = False
    """It looks at nothing else."""

    @property
    def unread(self) -> frozenset[str]:
        """Settings of the training that change nothing in it."""
        return self.ignored | self.settings.keys()

    def classifier(self, classes: ClassFile) -> NeuralClassifier:
        """One that has not learnt yet."""
        return NeuralClassifier(self, classes)

    def with_overrides(self, settings: FitSettings) -> FitSettings:
        """The settings as this variant has them."""
        return replace(settings, **self.settings)


class NeuralClassifier:
    """See `protocol.Classifier`."""

    def __init__(self, model: NetworkModel, classes: ClassFile) -> None:
        self._model, self._classes = model, classes

    def fit(self, train: Mixture, inner: PoseTable, settings: FitSettings, run: Path) -> float:
        """Goes on where `run` stopped."""
        from training.geopose.fit import fit, load_trained

        best = fit(self._classes, train, inner, settings, run, model=self._model.name)
        self._network, state = load_trained(best, self._classes)
        return float(state.get("seconds", np.nan))  # older ones don't say

    def logits(self, table: PoseTable) -> np.ndarray:
        from training.geopose.fit import predict

        logits: np.ndarray = predict(self._network, table)[0].numpy()
        return logits
