"""GeoPose-Net without further opinions: its head answers alone."""

from training.classifiers.crops import crop_stream
from training.classifiers.neural import NetworkModel
from training.geopose.network import GeoPoseNet

MODEL = NetworkModel(
    "geopose_alone", lambda class_count, settings: GeoPoseNet(class_count, crop_stream(settings), has_opinions=False)
)
