"""Backbones of the crop stream, and what networks add to streams that they share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

from engine.errors import UserError
from training.backbone import CHANNELS, MEAN, STD, block_outputs, efficientnet_lite0
from training.geopose.network import CropStream
from training.geopose.settings import FitSettings

BACKBONES = {"mobilenet_v3_small": 576, "efficientnet_lite0": CHANNELS}
"""Channels of what each gives, at a 32nd of the crop's side."""


class EfficientNet(nn.Module):
    """The first blocks of EfficientNet-lite0, and a mean over each two by two places."""

    mean: Tensor
    std: Tensor

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        self.net = efficientnet_lite0(pretrained)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """float (B, 3, H, W) of -1..1 -> (B, CHANNELS, H / 32, W / 32)."""
        return functional.avg_pool2d(block_outputs(self.net, ((picture + 1) / 2 - self.mean) / self.std)[-1], 2)


def backbone(settings: FitSettings) -> nn.Module:
    """From pictures (B, 3, H, W) of -1..1 to features (B, C, H / 32, W / 32); raises UserError when weights cannot be
    fetched."""
    if settings.backbone == "efficientnet_lite0":
        return EfficientNet(settings.pretrained)
    net = _mobilenet(settings.pretrained)
    if settings.pretrained:
        _take_minus_one_to_one(net[0][0], net[0][1])
    return net


def crop_stream(settings: FitSettings) -> CropStream:
    """The crop stream of GeoPose-Net on the backbone that the settings name."""
    return CropStream(backbone(settings), BACKBONES[settings.backbone])


def _mobilenet(pretrained: bool) -> Any:
    if not pretrained:
        return mobilenet_v3_small(weights=None).features
    try:
        return mobilenet_v3_small(weights=MobileNet_V3_Small_Weights.IMAGENET1K_V1).features
    except OSError as error:
        raise UserError(
            f"the ImageNet weights of mobilenet_v3_small cannot be fetched ({error}); leave --pretrained out, "
            "or add --set backbone=efficientnet_lite0, whose weights come as a package"
        ) from None


@torch.no_grad()
def _take_minus_one_to_one(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Change ImageNet's first layer so that it takes pictures of -1..1 instead of mean 0 and spread 1 a colour.

    ((p + 1) / 2 - mean) / std is linear in p: the factor goes into the weights and the shift into the running mean.
    """
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    norm.running_mean -= (conv.weight.sum((2, 3)) * ((0.5 - mean) / std)).sum(1)
    conv.weight /= (2 * std)[:, None, None]


class NodeScale(nn.Module):
    """Node features to mean 0 and spread 1, which the trainer measures before it begins."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("node_shift", torch.zeros(features))
        self.register_buffer("node_scale", torch.ones(features))

    def forward(self, nodes: Tensor) -> Tensor:
        """(B, N, features)."""
        return (nodes - self.node_shift) * self.node_scale
