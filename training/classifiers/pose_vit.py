"""A small vision transformer (Dosovitskiy et al. 2021) that reads landmarks as tokens before patches of the crop."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.graph import CROP_SIZE_PX, NODE_FEATURES
from stages.skeleton import NODE_COUNT
from training.classifiers.crops import NodeScale
from training.classifiers.neural import OF_BACKBONE, OF_EDGES, NetworkModel

WIDTH, HEADS, LAYERS, PATCH_PX = 96, 4, 3, 16
PATCHES = (CROP_SIZE_PX // PATCH_PX) ** 2


class Landmarks(nn.Module):
    """Nodes as tokens; the mask rides along as the last channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = NodeScale(len(NODE_FEATURES))
        self.enter = nn.Linear(len(NODE_FEATURES), WIDTH)
        self.place = nn.Parameter(torch.randn(NODE_COUNT, WIDTH) * 0.2)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """-> (B, 19, WIDTH + 1)."""
        return torch.cat([self.enter(self.scale(nodes)) + self.place, mask.unsqueeze(-1)], -1)


class Patches(nn.Module):
    """The crop cut into 64 patches."""

    shape = (PATCHES, WIDTH)

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, WIDTH, PATCH_PX, PATCH_PX)
        self.place = nn.Parameter(torch.randn(PATCHES, WIDTH) * 0.02)

    def forward(self, crop: Tensor) -> Tensor:
        """uint8 RGB (P, 128, 128, 3) -> (P, 64, WIDTH)."""
        picture = crop.permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.cut(picture).flatten(2).transpose(1, 2) + self.place


class Block(nn.Module):
    """Pre-norm attention and a small perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.leave = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """tokens (B, T, WIDTH), bias (B, 1, 1, T) added to attention -> (B, T, WIDTH)."""
        count = tokens.shape[1]
        qkv = self.qkv(self.norm1(tokens)).view(-1, count, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(qkv[0] @ qkv[1].transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + bias, -1)
        tokens = tokens + self.leave((weights @ qkv[2]).transpose(1, 2).reshape(-1, count, WIDTH))
        return tokens + self.mlp(self.norm2(tokens))


class PoseVit(nn.Module):
    """See `protocol.PoseNetwork`; missing nodes and crops are masked out of the attention."""

    opinions = None

    def __init__(self, class_count: int) -> None:
        super().__init__()
        self.skeleton, self.hand = Landmarks(), Patches()
        self.answer = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Dropout(0.2), nn.Linear(WIDTH, class_count))
        self.crop_geometry = nn.Sequential(nn.Flatten(), nn.Linear(PATCHES * WIDTH, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor, crop: Tensor, crop_present: Tensor) -> Tensor:
        """As `GeoPoseNet.forward`."""
        seen = self.hand(crop) * crop_present[:, None, None]
        return self.combine(self.skeleton(nodes, edges, mask), seen, crop_present)

    def combine(self, graph: Tensor, seen: Tensor, crop_present: Tensor) -> Tensor:
        tokens = torch.cat([self.answer.expand(graph.shape[0], -1, -1), graph[..., :WIDTH], seen], 1)
        there = functional.pad(graph[..., WIDTH], (1, 0), value=1.0)
        there = torch.cat([there, crop_present.unsqueeze(-1).expand(-1, PATCHES)], 1)
        bias = ((there - 1) * 1e9)[:, None, None]
        for block in self.blocks:
            tokens = block(tokens, bias)
        return self.head(tokens[:, 0])


MODEL = NetworkModel("pose_vit", lambda class_count, settings: PoseVit(class_count), ignored=OF_BACKBONE | OF_EDGES)
