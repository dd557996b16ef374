"""The classifiers that can be trained and compared, a file each; chosen by name.

A file declares `MODEL`. Networks differ in what they build and in settings; trees in features and estimator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.errors import UserError

if TYPE_CHECKING:
    from stages.classes import ClassFile
    from training.classifiers.neural import NetworkModel
    from training.classifiers.protocol import Classifier

NETWORKS = (
    "geopose", "geopose_graph", "geopose_visual", "geopose_flat", "geopose_single", "geopose_alone", "stgcn_fusion",
    "pose_vit",
)  # fmt: skip
"""They have weights, and can be exported."""
TREES = ("pairs_trees", "angles_rf", "angles_xgb")
NAMES = (*NETWORKS, *TREES)


def make_classifier(name: str, classes: ClassFile) -> Classifier:
    """A fresh classifier of that name; raises UserError when there is none."""
    classifier: Classifier = _declared(name).classifier(classes)
    return classifier


def network_model(name: str) -> NetworkModel:
    """The declaration of a network; raises UserError for another name."""
    if name in TREES:
        raise UserError(f"{name} is no network and cannot be exported; choose a network, such as geopose")
    model: NetworkModel = _declared(name)
    return model


def unread_settings(name: str) -> frozenset[str]:
    """Settings of the training that change nothing in the classifier of that name."""
    unread: frozenset[str] = _declared(name).unread
    return unread


def _declared(name: str) -> Any:
    """Imported only when it is asked for."""
    if name not in NAMES:
        raise UserError(f"there is no model {name!r}; there are {', '.join(NAMES)}")
    return import_module(f"training.classifiers.{name}").MODEL
