"""A model folder as the pipeline runs it: ONNX file, runtime, and the card's temperature and threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.cards import load_card
from stages.classes import ClassFile
from stages.classify import check_card, class_probabilities
from stages.runtime import Backend, Network, load_network
from training.geopose.data import PoseTable
from training.geopose.export import table_inputs

_BATCH = 64


class ServedModel:
    """Answers as `stages.classify` would give them."""

    def __init__(self, folder: Path, classes: ClassFile, backend: Backend = "onnxruntime") -> None:
        """Raises UserError when the folder holds no pose classifier for these classes."""
        self.folder = folder
        card, file = load_card(folder)
        check_card(card, classes, str(folder))
        self._network = load_network(file, backend, threads=1)
        self.temperature, self.threshold = card.temperature, card.threshold or 0.0
        self.runtime = self._network.describe()

    def probabilities(self, table: PoseTable) -> np.ndarray:
        """float (N, classes), calibrated."""
        return class_probabilities(network_logits(self._network, table), self.temperature)


def network_logits(network: Network, table: PoseTable) -> np.ndarray:
    """float (N, classes) over a table."""
    places = (np.arange(start, min(start + _BATCH, len(table))) for start in range(0, len(table), _BATCH))
    return np.concatenate([network(*table_inputs(table.select(part), len(part)))[0] for part in places])
