"""What a classifier can do, and what the trainer wants of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from training.geopose.batches import Mixture
from training.geopose.data import PoseTable
from training.geopose.settings import FitSettings


class Classifier(Protocol):
    """Anything that learns poses from samples."""

    def fit(self, train: Mixture, inner: PoseTable, settings: FitSettings, run: Path) -> float:
        """Learn from `train`; `inner` are people apart, to stop by, and `run` is a folder for what is kept. Returns the
        seconds that it took, also where an earlier call did it; NaN where that did not say."""

    def logits(self, table: PoseTable) -> np.ndarray:
        """float (N, classes); their softmax over a temperature is the confidence."""


class PoseNetwork(Protocol):
    """A network that `training.geopose.fit` trains: two streams that are joined late, so that only the crops that are
    there run through theirs. Its `forward` takes the five inputs of `stages.classify.INPUTS`."""

    skeleton: Any
    """Called with nodes (B, 19, F), edges (B, E, G) and mask (B, 19); gives (B, ...)."""
    hand: Any
    """Module from uint8 RGB crops (P, 128, 128, 3) to (P, *shape), with that `shape`; None when the network looks at no
    picture."""
    crop_geometry: Any
    """Module from the hand's features to grip to tip in torsos (P, 2); None only where `hand` is."""

    opinions: Any
    """`Opinions` beside the head's; None where there are none."""

    def combine(self, graph: Tensor, seen: Tensor, crop_present: Tensor) -> Tensor:
        """Logits (B, classes); `seen` (B, ...) is zero where there is no crop."""
