"""Three spatial graph convolutions (Yan et al. 2018, one frame) whose nodes look at the crop by cross-attention."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.graph import DIRECTED_EDGES, NODE_FEATURES
from stages.skeleton import NODE_COUNT
from training.classifiers.crops import BACKBONES, NodeScale, backbone
from training.classifiers.neural import OF_EDGES, NetworkModel
from training.geopose.settings import FitSettings

WIDTH = 256
_CHANNELS = (64, 128, WIDTH)


def partitions() -> np.ndarray:
    """float32 (3, 19, 19): normalised adjacency (target, source) of the edges, of their reverses and of self-loops."""
    pairs = DIRECTED_EDGES[: (len(DIRECTED_EDGES) - NODE_COUNT) // 2]
    out = np.zeros((3, NODE_COUNT, NODE_COUNT), np.float32)
    out[0, pairs[:, 1], pairs[:, 0]] = 1
    out[1, pairs[:, 0], pairs[:, 1]] = 1
    out[2] = np.eye(NODE_COUNT)
    return out / np.maximum(out.sum(2, keepdims=True), 1)


class GraphConvolution(nn.Module):
    """One layer: a linear map for each partition, edges with a learnt importance, a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.from_numpy(partitions()), persistent=False)
        self.importance = nn.Parameter(torch.ones(3, NODE_COUNT, NODE_COUNT))
        self.maps = nn.Linear(inputs, 3 * outputs)
        self.shortcut = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs)
        self.outputs = outputs

    def forward(self, nodes: Tensor, present: Tensor) -> Tensor:
        """nodes (B, 19, inputs), zero where missing, present (B, 19, 1) -> (B, 19, outputs)."""
        mapped = self.maps(nodes).view(-1, NODE_COUNT, 3, self.outputs) * present.unsqueeze(-1)
        gathered = torch.einsum("pts,bspo->bto", self.adjacency * self.importance, mapped)
        return functional.relu(self.norm(gathered) + self.shortcut(nodes)) * present


class Skeleton(nn.Module):
    """The three layers; the mask rides along as the last channel, because attention needs it again."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = NodeScale(len(NODE_FEATURES))
        sizes = (len(NODE_FEATURES), *_CHANNELS)
        self.layers = nn.ModuleList(GraphConvolution(a, b) for a, b in zip(sizes, sizes[1:], strict=False))

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """-> (B, 19, WIDTH + 1)."""
        present = mask.unsqueeze(-1)
        hidden = self.scale(nodes) * present
        for layer in self.layers:
            hidden = layer(hidden, present)
        return torch.cat([hidden, present], -1)


class Hand(nn.Module):
    """The backbone's map as 16 places with WIDTH features each."""

    shape = (16, WIDTH)

    def __init__(self, settings: FitSettings) -> None:
        super().__init__()
        self.features = backbone(settings)
        self.narrow = nn.Conv2d(BACKBONES[settings.backbone], WIDTH, 1)

    def forward(self, crop: Tensor) -> Tensor:
        """uint8 RGB (P, 128, 128, 3) -> (P, 16, WIDTH)."""
        picture = crop.permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.narrow(self.features(picture)).flatten(2).transpose(1, 2)


class FusionNet(nn.Module):
    """See `protocol.PoseNetwork`."""

    opinions = None

    def __init__(self, class_count: int, settings: FitSettings) -> None:
        super().__init__()
        self.skeleton = Skeleton()
        self.hand = Hand(settings)
        self.ask, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(3 * WIDTH, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, class_count))
        self.crop_geometry = nn.Sequential(nn.Flatten(), nn.Linear(16 * WIDTH, 2))

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor, crop: Tensor, crop_present: Tensor) -> Tensor:
        """As `GeoPoseNet.forward`."""
        seen = self.hand(crop) * crop_present[:, None, None]
        return self.combine(self.skeleton(nodes, edges, mask), seen, crop_present)

    def combine(self, graph: Tensor, seen: Tensor, crop_present: Tensor) -> Tensor:
        hidden, present = graph[..., :WIDTH], graph[..., WIDTH:]
        weights = torch.softmax(self.ask(hidden) @ self.key(seen).transpose(1, 2) / WIDTH**0.5, -1)
        looked = (weights @ self.value(seen)) * present * crop_present[:, None, None]
        count = present.sum(1).clamp(min=1)
        most = (hidden * present + (present - 1) * 1e3).amax(1).clamp(min=0)
        return self.head(torch.cat([hidden.sum(1) / count, most, looked.sum(1) / count], 1))


MODEL = NetworkModel("stgcn_fusion", FusionNet, ignored=OF_EDGES)
