"""The network: a GATv2 over the 19 nodes, a small MobileNetV3 over the hand crop, one shallow head over both.

The graph's edges never change, so attention is a gather over a fixed table of neighbours and a softmax along it. That
equals `torch_geometric.nn.GATv2Conv` (a test proves it), trains faster than a scatter and exports to plain operators.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v3_small

from stages.graph import DIRECTED_EDGES, EDGE_FEATURES, NODE_FEATURES
from stages.skeleton import NODE_COUNT

_MASKED = -1e9
"""Added to attention that must not count; a boolean mask has been a source of faulty exports."""


def neighbour_table(edges: np.ndarray, node_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges (E, 2), source and target, as arrays (node_count, D) of sources, of edge numbers and of 1 where a slot is
    in use; D is the largest number of edges that end in one node."""
    into = [np.flatnonzero(edges[:, 1] == node) for node in range(node_count)]
    width = max(len(numbers) for numbers in into)
    number = np.zeros((node_count, width), np.int64)
    used = np.zeros((node_count, width), np.float32)
    for node, numbers in enumerate(into):
        number[node, : len(numbers)] = numbers
        used[node, : len(numbers)] = 1
    return edges[number, 0], number, used


class DenseGATv2(nn.Module):
    """GATv2 (Brody et al. 2022, eq. 7) with edge features over a fixed graph, batched.

    Weight names and shapes are those of `torch_geometric.nn.GATv2Conv(..., add_self_loops=False)`.
    """

    source: Tensor
    number: Tensor
    used: Tensor

    def __init__(self, inputs: int, outputs: int, heads: int, edge_inputs: int, edges: np.ndarray, nodes: int) -> None:
        super().__init__()
        self.heads, self.outputs = heads, outputs
        self.lin_l = nn.Linear(inputs, heads * outputs)
        self.lin_r = nn.Linear(inputs, heads * outputs)
        self.lin_edge = nn.Linear(edge_inputs, heads * outputs, bias=False)
        self.att = nn.Parameter(torch.empty(1, heads, outputs))
        self.bias = nn.Parameter(torch.zeros(heads * outputs))
        nn.init.xavier_uniform_(self.att)
        for name, array in zip(("source", "number", "used"), neighbour_table(edges, nodes), strict=True):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)), persistent=False)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """nodes (B, N, inputs), edges (B, E, edge_inputs), mask (B, N) -> (B, N, heads * outputs)."""
        count, slots = self.source.shape
        shape = (-1, count, slots, self.heads, self.outputs)
        source = self.source.flatten()
        left = self.lin_l(nodes)[:, source].view(shape)
        right = self.lin_r(nodes).view(-1, count, 1, self.heads, self.outputs)
        edge = self.lin_edge(edges)[:, self.number.flatten()].view(shape)
        logits = (functional.leaky_relu(left + right + edge, 0.2) * self.att).sum(-1)
        weighs = mask[:, source].view(-1, count, slots) * self.used
        attention = torch.softmax(logits + (1 - weighs).unsqueeze(-1) * _MASKED, dim=2)
        out = (attention.unsqueeze(-1) * left).sum(2).view(-1, count, self.heads * self.outputs)
        return out + self.bias


class GraphStream(nn.Module):
    """Two rounds of attention, then a readout that keeps each node's place: which node it was matters."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        edges, count, features = DIRECTED_EDGES, NODE_COUNT, len(NODE_FEATURES)
        self.register_buffer("node_scale", torch.ones(features))
        self.register_buffer("node_shift", torch.zeros(features))
        self.enter = nn.Linear(features, 48)
        self.place = nn.Parameter(torch.randn(count, 48) * 0.2)
        self.first = DenseGATv2(48, 32, 4, len(EDGE_FEATURES), edges, count)
        self.second = DenseGATv2(128, 64, 1, len(EDGE_FEATURES), edges, count)
        self.skip = nn.Linear(48, 64)
        self.narrow = nn.Linear(64, 16)
        self.leave = nn.Linear(64 + 16 * count, width)
        self.dropout = nn.Dropout(0.3)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """As `GeoPoseNet.forward`; returns (B, width)."""
        present = mask.unsqueeze(-1)
        entered = functional.elu(self.enter((nodes - self.node_shift) * self.node_scale) + self.place) * present
        hidden = functional.elu(self.first(entered, edges, mask)) * present
        hidden = functional.elu(self.second(hidden, edges, mask) + self.skip(entered)) * present
        pooled = hidden.sum(1) / torch.clamp(mask.sum(1, keepdim=True), min=1)
        placed = (functional.elu(self.narrow(hidden)) * present).flatten(1)
        return functional.relu(self.leave(self.dropout(torch.cat([pooled, placed], 1))))


class CropStream(nn.Module):
    """MobileNetV3-small over the picture of the hand."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.features = mobilenet_v3_small(weights=None).features
        self.leave = nn.Linear(576, width)
        self.dropout = nn.Dropout(0.3)
        self.width = width

    def forward(self, crop: Tensor) -> Tensor:
        """uint8 RGB (B, 128, 128, 3) -> (B, width)."""
        picture = crop.permute(0, 3, 1, 2).float() / 127.5 - 1
        return functional.hardswish(self.leave(self.dropout(self.features(picture).mean((2, 3)))))


class GeoPoseNet(nn.Module):
    """Logits of the poses; family and chamber follow by sums of their probabilities, so they cannot contradict."""

    def __init__(self, class_count: int) -> None:
        super().__init__()
        # Not `graph`: the exporter's own modules have an attribute of that name.
        self.skeleton = GraphStream()
        self.hand = CropStream()
        self.head = nn.Sequential(nn.Linear(128 + 64 + 1, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, class_count))
        self.crop_geometry = nn.Linear(64, 2)
        """Grip to tip in torsos, told from the crop alone: makes the crop stream look at the shaft."""

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor, crop: Tensor, crop_present: Tensor) -> Tensor:
        """nodes (B, 19, 15), edges (B, 75, 8), mask (B, 19), crop uint8 RGB (B, 128, 128, 3), crop_present (B,)
        -> logits (B, classes)."""
        seen = self.hand(crop) * crop_present.unsqueeze(-1)
        return self.combine(self.skeleton(nodes, edges, mask), seen, crop_present)

    def combine(self, graph: Tensor, seen: Tensor, crop_present: Tensor) -> Tensor:
        """Logits from both streams; `seen` must be zero where there is no crop."""
        return self.head(torch.cat([graph, seen, crop_present.unsqueeze(-1)], 1))
