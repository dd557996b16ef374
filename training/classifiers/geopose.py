"""GeoPose-Net: graph of body and stick and picture of the hand, joined in one shallow head; what is shipped."""

from __future__ import annotations

from training.classifiers.crops import crop_stream
from training.classifiers.neural import NetworkModel
from training.geopose.network import GeoPoseNet
from training.geopose.settings import FitSettings


def build(class_count: int, settings: FitSettings) -> GeoPoseNet:
    """The network with the backbone that the settings name."""
    return GeoPoseNet(class_count, crop_stream(settings))


MODEL = NetworkModel("geopose", build)
