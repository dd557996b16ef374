"""The picture of the hand alone: how much it says without the body."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.classifiers.crops import crop_stream
from training.classifiers.neural import OF_EDGES, OF_KEYPOINTS, NetworkModel
from training.geopose.settings import FitSettings


class VisualNet(nn.Module):
    """See `protocol.PoseNetwork`; without a crop it says what is likely of any sample."""

    opinions = None

    def __init__(self, class_count: int, settings: FitSettings) -> None:
        super().__init__()
        self.hand = crop_stream(settings)
        self.head = nn.Linear(self.hand.width + 1, class_count)
        self.crop_geometry = nn.Linear(self.hand.width, 2)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor, crop: Tensor, crop_present: Tensor) -> Tensor:
        """As `GeoPoseNet.forward`."""
        return self.combine(mask, self.hand(crop) * crop_present.unsqueeze(-1), crop_present)

    def skeleton(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        return mask

    def combine(self, graph: Tensor, seen: Tensor, crop_present: Tensor) -> Tensor:
        return self.head(torch.cat([seen, crop_present.unsqueeze(-1)], 1))


MODEL = NetworkModel("geopose_visual", VisualNet, ignored=OF_EDGES | OF_KEYPOINTS, needs_crops=True)
