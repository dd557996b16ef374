"""GeoPose-Net: graph of body and stick and picture of the hand, joined in one shallow head; what is shipped."""

from __future__ import annotations

from training.classifiers.crops import crop_stream
from training.classifiers.neural import NetworkModel
from training.geopose.network import GeoPoseNet
from training.geopose.settings import FitSettings


def build(class_count: int, settings: FitSettings) -> GeoPoseNet:
    """The network with the backbone that the settings name."""
    network = GeoPoseNet(class_count)
    if (settings.backbone, settings.pretrained) != ("mobilenet_v3_small", False):
        network.hand = crop_stream(settings)
    return network


MODEL = NetworkModel("geopose", build)
