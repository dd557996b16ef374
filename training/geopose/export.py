"""Weights to `model.onnx` with its card, proven equal to torch in both runtimes."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.cards import Card, CardInput, sha256_of
from stages.classes import ClassFile
from stages.classify import INPUTS
from stages.graph import build_graph
from stages.runtime import RUNTIMES, load_network
from training.geopose.data import PoseTable
from training.geopose.network import GeoPoseNet
from training.stick.export import git_revision, toml_text

log = logging.getLogger(__name__)

PARITY_BOUND = 2e-3
"""Largest difference of a logit that is rounding: sums of float32 in another order, through 40 layers."""
_OPSET = 18


def export_onnx(model: GeoPoseNet, file: Path) -> None:
    """Write the network with dense graph, own normalisation and free batch; one file without outside data."""
    file.parent.mkdir(parents=True, exist_ok=True)
    example = tuple(torch.from_numpy(array) for array in random_inputs(2, np.random.default_rng(0)))
    batch = torch.export.Dim("batch", min=1, max=256)
    torch.onnx.export(
        model.eval(), example, str(file), input_names=list(INPUTS), output_names=["logits"],
        dynamic_shapes={name: {0: batch} for name in INPUTS}, opset_version=_OPSET, dynamo=True,
        external_data=False, verbose=False,
    )  # fmt: skip


def random_inputs(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`count` graphs of random points, of which some are missing, each with a random crop or none."""
    keypoints = rng.uniform(0, 1, (count, 19, 3)).astype(np.float32)
    keypoints[..., 2] *= rng.random((count, 19)) < 0.9
    present = (rng.random(count) < 0.7).astype(np.float32)
    crop = rng.integers(0, 256, (count, 128, 128, 3), np.uint8)
    return [*build_graph(keypoints), crop, present]


def table_inputs(table: PoseTable, count: int) -> list[np.ndarray]:
    """The network's inputs for `count` samples spread over a table that has crops."""
    part = table.select(np.linspace(0, len(table) - 1, count).astype(int))
    return [*build_graph(part.keypoints), part.crops, part.crop_present]


def parity(model: GeoPoseNet, file: Path, inputs: list[np.ndarray]) -> dict[str, float]:
    """Largest difference of a logit between torch and each runtime (f32), over batches of 1 and of 50.

    Raises RuntimeError when it is more than rounding.
    """
    with torch.no_grad():
        wanted = model.eval()(*(torch.from_numpy(array) for array in inputs)).numpy()
    worst = {}
    for backend in RUNTIMES:
        network = load_network(file, backend, threads=1)
        starts = [(i, i + 1) for i in range(20)] + [(i, i + 50) for i in range(0, len(wanted), 50)]
        gaps = [np.abs(network(*(array[a:b] for array in inputs))[0] - wanted[a:b]).max() for a, b in starts]
        worst[backend] = float(max(gaps))
        if worst[backend] > PARITY_BOUND:
            raise RuntimeError(f"{backend} differs from torch by {worst[backend]:.1e}; the export is faulty")
    log.info("parity with torch: %s", ", ".join(f"{name} {gap:.1e}" for name, gap in worst.items()))
    return worst


def write_card(
    folder: Path,
    classes: ClassFile,
    temperature: float,
    threshold: float,
    data: str,
    metrics: dict[str, Any],
    notes: str,
) -> None:
    """Write `card.toml` beside `model.onnx`."""
    card = Card(
        task="pose_classifier",
        architecture="geopose_gatv2_mobilenetv3small",
        file="model.onnx",
        sha256=sha256_of(folder / "model.onnx"),
        inputs=tuple(CardInput(name, dtype, shape, *_layout(name)) for name, (dtype, shape) in INPUTS.items()),
        outputs=("logits",),
        licence="AGPL-3.0-or-later",
        source="training/geopose, from random weights",
        data=data,
        metrics=metrics,
        threshold=threshold,
        temperature=temperature,
        classes=classes.names,
        classes_sha256=classes.digest(),
        notes=notes,
        made_with={name: version(name) for name in ("torch", "torchvision", "onnx")} | {"revision": git_revision()},
    )
    (folder / "card.toml").write_text(toml_text(card))


def _layout(name: str) -> tuple[str, str]:
    return ("NHWC", "RGB") if name == "crop" else ("", "")
