"""GeoPose-Net without the hierarchy: its loss knows poses only."""

from training.classifiers.geopose import build
from training.classifiers.neural import NetworkModel

MODEL = NetworkModel("geopose_flat", build, {"family_weight": 0.0, "chamber_weight": 0.0})
