"""The classifiers that can be trained and compared, a file each; chosen by name.

A file declares `MODEL`. Networks differ in what they build and in settings; trees in features and estimator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from engine.errors import UserError

if TYPE_CHECKING:
    from stages.classes import ClassFile
    from training.classifiers.neural import NetworkModel
    from training.classifiers.protocol import Classifier
    from training.classifiers.trees import TreeModel

NAMES = (
    "geopose", "geopose_graph", "geopose_visual", "geopose_flat", "geopose_single", "stgcn_fusion", "pose_vit",
    "pairs_trees", "angles_rf", "angles_xgb",
)  # fmt: skip


def make_classifier(name: str, classes: ClassFile) -> Classifier:
    """A fresh classifier of that name; raises UserError when there is none."""
    return _declared(name).classifier(classes)


def is_network(name: str) -> bool:
    """Whether the classifier of that name is a network, which has weights; raises UserError when there is none."""
    from training.classifiers.neural import NetworkModel

    return isinstance(_declared(name), NetworkModel)


def network_model(name: str) -> NetworkModel:
    """The declaration of a network; raises UserError for another name."""
    from training.classifiers.neural import NetworkModel

    model = _declared(name)
    if not isinstance(model, NetworkModel):
        raise UserError(f"{name} is no network and cannot be exported; choose a network, such as geopose")
    return model


def unread_settings(name: str) -> frozenset[str]:
    """Settings of the training that change nothing in the classifier of that name."""
    return _declared(name).unread


def _declared(name: str) -> NetworkModel | TreeModel:
    if name not in NAMES:
        raise UserError(f"there is no model {name!r}; there are {', '.join(NAMES)}")
    model: NetworkModel | TreeModel = import_module(f"training.classifiers.{name}").MODEL
    return model
