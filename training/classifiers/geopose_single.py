"""GeoPose-Net without the auxiliary task: the crop stream isn't asked where the stick goes."""

from training.classifiers.geopose import build
from training.classifiers.neural import NetworkModel

MODEL = NetworkModel("geopose_single", build, {"geometry_weight": 0.0})
