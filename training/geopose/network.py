"""The network: GATv2 and pair differences over the 19 nodes, a backbone over the hand crop, one shallow head; and dense
networks beside it, for a second opinion.

The graph's edges never change, so attention is a gather over a fixed table of neighbours and a softmax along it. That
equals `torch_geometric.nn.GATv2Conv` (a test proves it), trains faster than a scatter and exports to plain operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.graph import DIRECTED_EDGES, EDGE_FEATURES, NODE_FEATURES
from stages.skeleton import NODE_COUNT
from training.perceptron import Perceptron

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
    ends: Tensor
    """(2, E): source and target of each edge."""
    place: Tensor
    """(N, D, N): 1 where a slot reads from a node."""

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
        self.register_buffer("ends", torch.from_numpy(np.ascontiguousarray(edges.T)), persistent=False)
        self.register_buffer("place", functional.one_hot(self.source, nodes).float(), persistent=False)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """nodes (B, N, inputs), edges (B, E, edge_inputs), mask (B, N) -> (B, N, heads * outputs)."""
        left = self.lin_l(nodes)
        attention = self.attention(left, nodes, edges, mask)
        # As one small matrix a head: gathering what each slot reads would copy seven times as much.
        table = torch.einsum("bnsh,nsm->bhnm", attention, self.place)
        read = table @ left.view(-1, len(self.number), self.heads, self.outputs).transpose(1, 2)
        return read.transpose(1, 2).flatten(2) + self.bias

    def attention(self, left: Tensor, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """What each node weighs its neighbours with, (B, N, D, heads), in the order of `number`; `left` is
        `lin_l(nodes)`, the rest as in `forward`."""
        hidden = left[:, self.ends[0]] + self.lin_r(nodes)[:, self.ends[1]] + self.lin_edge(edges)
        shape = (-1, edges.shape[1], self.heads, self.outputs)
        logits = (functional.leaky_relu(hidden, 0.2).view(shape) * self.att).sum(-1)
        count, slots = self.number.shape
        slot_logits = logits[:, self.number.flatten()].view(-1, count, slots, self.heads)
        weighs = mask[:, self.source.flatten()].view(-1, count, slots) * self.used
        return torch.softmax(slot_logits + (1 - weighs).unsqueeze(-1) * _MASKED, dim=2)


_PAIR_WIDTH = 256


class PairStream(nn.Module):
    """Two dense layers over the vectors between all pairs of nodes, and over the nodes' own features.

    Pair differences carry more than the graph's edges: on real keypoints, from drawn samples alone, top-1 was 0.59 by
    attention only, 0.66 by pairs only and 0.67 by both.
    """

    pairs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        pairs = np.stack(np.triu_indices(NODE_COUNT, 1))
        self.register_buffer("pairs", torch.from_numpy(pairs), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * pairs.shape[1] + NODE_COUNT * len(NODE_FEATURES), width), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.2),
        )  # fmt: skip

    def forward(self, nodes: Tensor, points: Tensor, mask: Tensor) -> Tensor:
        """Normalised nodes (B, N, F), points (B, N, 2) in torsos, mask (B, N) -> (B, width)."""
        first, second = self.pairs
        both = (mask[:, first] * mask[:, second]).unsqueeze(-1)
        between = (points[:, first] - points[:, second]) * both
        return self.layers(torch.cat([(nodes * mask.unsqueeze(-1)).flatten(1), between.flatten(1)], 1))


class GraphStream(nn.Module):
    """Two rounds of attention, then a readout that keeps each node's place (which node it was matters), and the
    differences of all pairs beside it."""

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
        self.pairs = PairStream(_PAIR_WIDTH)
        self.leave = nn.Linear(64 + 16 * count + _PAIR_WIDTH, width)
        self.dropout = nn.Dropout(0.3)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """As `GeoPoseNet.forward`; returns (B, width)."""
        present = mask.unsqueeze(-1)
        normal = (nodes - self.node_shift) * self.node_scale
        entered = functional.elu(self.enter(normal) + self.place) * present
        hidden = functional.elu(self.first(entered, edges, mask)) * present
        hidden = functional.elu(self.second(hidden, edges, mask) + self.skip(entered)) * present
        pooled = hidden.sum(1) / torch.clamp(mask.sum(1, keepdim=True), min=1)
        placed = (functional.elu(self.narrow(hidden)) * present).flatten(1)
        paired = self.pairs(normal, nodes[..., :2], mask)
        return functional.relu(self.leave(torch.cat([self.dropout(torch.cat([pooled, placed], 1)), paired], 1)))


class CropStream(nn.Module):
    """What a backbone sees in the picture of the hand, place by place: a palm's side shows in few of them."""

    def __init__(self, features: nn.Module, channels: int, width: int = 64) -> None:
        """`features` turns pictures (B, 3, 128, 128) of -1..1 into maps (B, channels, 4, 4)."""
        super().__init__()
        self.features = features
        self.narrow = nn.Conv2d(channels, 48, 1)
        self.leave = nn.Linear(48 * 16, width)
        self.dropout = nn.Dropout(0.3)
        self.width, self.shape = width, (width,)

    def forward(self, crop: Tensor) -> Tensor:
        """uint8 RGB (B, 128, 128, 3) -> (B, width)."""
        picture = crop.permute(0, 3, 1, 2).float() / 127.5 - 1
        places = functional.relu(self.narrow(self.features(picture))).flatten(1)
        return functional.relu(self.leave(self.dropout(places)))


OPINIONS = 2
_OPINION_WIDTH = 512


class Opinions(nn.Module):
    """Dense networks that answer each by itself, from all features of the graph and from what is seen in the crop.

    Two networks that have learnt from the same people are wrong in different ways, so that what they say together is
    right more often than either.
    """

    def __init__(self, class_count: int, seen: int = 0) -> None:
        """`seen`: width of what the crop's stream says and whether there is a crop; 0: no picture is looked at."""
        super().__init__()
        self.members = nn.ModuleList(Perceptron(class_count, _OPINION_WIDTH, 0.1, seen) for _ in range(OPINIONS))

    def forward(self, nodes: Tensor, edges: Tensor, *seen: Tensor) -> Tensor:
        """nodes (B, 19, 15), edges (B, 75, 8), each of `seen` (B, ...) -> logits (OPINIONS, B, classes)."""
        return torch.stack([member(nodes, edges, *seen) for member in self.members])


def answers(
    network: Any, nodes: Tensor, edges: Tensor, graph: Tensor, seen: Tensor, crop_present: Tensor
) -> Tensor:
    """Logits (M, B, classes) of a network's head and of its further opinions, if it has any; nodes and edges are as in
    `GeoPoseNet.forward`, the rest as in `PoseNetwork.combine`."""
    logits = network.combine(graph, seen, crop_present).unsqueeze(0)
    if network.opinions is None:
        return logits
    picture = () if network.hand is None else (seen, crop_present.unsqueeze(-1))
    return torch.cat([logits, network.opinions(nodes, edges, *picture)])


def together(opinions: Tensor) -> Tensor:
    """Logits (B, classes) of logits (M, B, classes): the mean of M opinions' log probabilities."""
    return opinions[0] if len(opinions) == 1 else opinions.log_softmax(-1).mean(0)


class GeoPoseNet(nn.Module):
    """Logits of the poses; family and chamber follow by sums of their probabilities, so they cannot contradict."""

    def __init__(self, class_count: int, hand: CropStream, has_opinions: bool = True) -> None:
        super().__init__()
        # Not `graph`: the exporter's own modules have an attribute of that name.
        self.skeleton = GraphStream()
        self.hand = hand
        joined = 128 + hand.width + 1
        self.head = nn.Sequential(nn.Linear(joined, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, class_count))
        self.crop_geometry = nn.Linear(hand.width, 2)
        """Grip to tip in torsos, told from the crop alone: makes the crop stream look at the shaft."""
        self.opinions = Opinions(class_count, hand.width + 1) if has_opinions else None

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor, crop: Tensor, crop_present: Tensor) -> Tensor:
        """nodes (B, 19, 15), edges (B, 75, 8), mask (B, 19), crop uint8 RGB (B, 128, 128, 3), crop_present (B,)
        -> logits (B, classes)."""
        seen = self.hand(crop) * crop_present.unsqueeze(-1)
        graph = self.skeleton(nodes, edges, mask)
        return together(answers(self, nodes, edges, graph, seen, crop_present))

    def combine(self, graph: Tensor, seen: Tensor, crop_present: Tensor) -> Tensor:
        """Logits of the head from both streams; `seen` must be zero where there is no crop."""
        return self.head(torch.cat([graph, seen, crop_present.unsqueeze(-1)], 1))
