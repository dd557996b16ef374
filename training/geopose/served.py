"""A model folder as the pipeline runs it: ONNX file, runtime, and the card's temperature and threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.cards import load_card
from stages.classes import ClassFile
from stages.classify import INPUTS, check_card, class_probabilities
from stages.graph import CROP_SIZE_PX
from stages.runtime import Backend, load_network
from training.geopose.batches import graphs_with_crops
from training.geopose.data import PoseTable

_BATCH = 64


class ServedModel:
    """Answers as `stages.classify` would give them."""

    def __init__(self, folder: Path, classes: ClassFile, backend: Backend = "onnxruntime", threads: int = 1) -> None:
        """Raises UserError when the folder holds no pose classifier for these classes."""
        self.folder = folder
        card, file = load_card(folder)
        check_card(card, classes, str(folder))
        self._network = load_network(file, backend, threads)
        self.temperature, self.threshold = card.temperature, card.threshold or 0.0
        self.runtime = self._network.describe()

    def probabilities(self, table: PoseTable) -> np.ndarray:
        """float (N, classes), calibrated."""
        logits = []
        for batch in graphs_with_crops(table, _BATCH):
            crops = np.zeros((len(batch.labels), CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
            crops[batch.crop_present > 0] = batch.crop
            arrays = {"nodes": batch.nodes, "edges": batch.edges, "mask": batch.mask, "crop": crops,
                      "crop_present": batch.crop_present}  # fmt: skip
            logits.append(self._network(*(arrays[name] for name in INPUTS))[0])
        return class_probabilities(np.concatenate(logits), self.temperature)
