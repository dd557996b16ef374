"""A small network over all features of the graph: for questions that the whole body answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.revision import git_revision
from stages.cards import Card, CardInput, sha256_of
from stages.graph import EDGE_FEATURES, GRAPH_INPUTS, NODE_FEATURES, build_graph
from stages.skeleton import COCO19, NODE_COUNT
from training.card_file import save_card
from training.data.table import Table
from training.files import whole_model
from training.onnx_file import Form, export_onnx

_SHAPES = (0, NODE_COUNT, len(NODE_FEATURES)), (0, len(COCO19.directed_edges), len(EDGE_FEATURES))
GRAPH = tuple(CardInput(name, "float32", shape) for name, shape in zip(GRAPH_INPUTS, _SHAPES, strict=True))
"""What such a network takes."""


class Perceptron(nn.Module):
    """Two hidden layers over nodes (B, 19, 15), edges (B, 75, 8) and, together, `others` features (B, ...) more; gives
    (B, outputs)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, outputs: int, hidden: int, dropout: float, others: int = 0) -> None:
        super().__init__()
        width = NODE_COUNT * len(NODE_FEATURES) + len(COCO19.directed_edges) * len(EDGE_FEATURES)
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.layers = nn.Sequential(
            nn.Linear(width + others, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs),
        )  # fmt: skip

    def forward(self, nodes: Tensor, edges: Tensor, *others: Tensor) -> Tensor:
        features = (_features(nodes, edges) - self.shift) * self.scale
        answers: Tensor = self.layers(torch.cat([features, *others], 1))
        return answers

    def measure(self, nodes: Tensor, edges: Tensor) -> None:
        """Bring the features of these to mean 0 and spread 1."""
        features = _features(nodes, edges)
        self.shift.copy_(features.mean(0))
        self.scale.copy_(1 / features.std(0).clamp(min=0.05))


def graphs(keypoints: np.ndarray) -> tuple[Tensor, Tensor]:
    """Nodes and edges of keypoints (N, 19, 3)."""
    nodes, edges, _ = build_graph(keypoints)
    return torch.from_numpy(nodes), torch.from_numpy(edges)


def data_text(rows: Table, people: np.ndarray) -> str:
    """For the card's `data`, of a table and of who is in each picture (N,) that is learnt from."""
    return f"Renders of {len(np.unique(people))} synthetic people" if rows.is_rendered() else f"{len(people)} pictures"


def write_model(
    net: nn.Module,
    folder: Path,
    task: str,
    outputs: Sequence[str],
    parity: float,
    *,
    source: str,
    data: str,
    metrics: dict[str, Any],
    temperature: float,
    notes: str,
) -> None:
    """Write `model.onnx`, proven equal within `parity`, and its card."""
    form = Form(GRAPH, tuple(outputs), parity)
    with whole_model(folder) as part:
        export_onnx(net, part / "model.onnx", form)
        card = Card(
            task=task,
            architecture="perceptron",
            file="model.onnx",
            sha256=sha256_of(part / "model.onnx"),
            inputs=form.inputs,
            outputs=form.outputs,
            licence="AGPL-3.0-or-later",
            source=source,
            data=data,
            metrics={name: value for name, value in metrics.items() if value is not None},
            temperature=temperature,
            notes=notes,
            made_with={name: version(name) for name in ("torch", "onnx")} | {"revision": git_revision()},
        )
        save_card(card, part)


def _features(nodes: Tensor, edges: Tensor) -> Tensor:
    return torch.cat([nodes.flatten(1), edges.flatten(1)], 1)
