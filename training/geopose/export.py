"""Weights to `model.onnx`, and to OpenVINO IR, with a card, proven equal to torch in both runtimes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import openvino
import torch
from torch import nn

from engine.revision import git_revision
from stages.cards import Card, CardInput, load_model_classes, sha256_of
from stages.classes import CLASSES_FILE, ClassFile, PoseClass
from stages.classify import INPUTS
from stages.graph import CROP_SIZE_PX, build_graph
from stages.runtime import RUNTIMES, load_network
from stages.skeleton import NODE_COUNT
from training.card_file import save_card
from training.geopose.data import PoseTable
from training.onnx_file import write_onnx
from training.weights import WEIGHTS_FILE

log = logging.getLogger(__name__)

PARITY_BOUND = 2e-3
"""Largest difference of a logit that is rounding: sums of float32 in another order, through 40 layers."""


def export_onnx(model: nn.Module, file: Path) -> None:
    """Write the network with dense graph, own normalisation and free batch; one file without outside data."""
    example = tuple(torch.from_numpy(array) for array in random_inputs(2, np.random.default_rng(0)))
    write_onnx(model.eval(), example, file, list(INPUTS), ["logits"])
    use_all_inputs(file)


def use_all_inputs(file: Path) -> None:
    """Tie each input that the network does not read to the logits, as a zero: OpenVINO drops inputs that nothing reads,
    and the classifier hands over all of them."""
    model = onnx.load(file)
    read = {name for node in model.graph.node for name in node.input}
    unread = [item.name for item in model.graph.input if item.name not in read]
    if not unread:
        return
    logits = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{name}_read" if name == logits else name for name in node.output]
    constants = {"axis_of_features": np.array([1], np.int64), "nothing": np.array(0, np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    for name in unread:
        model.graph.node.extend(_zero_of(name))
    terms = [f"{logits}_read", *(f"{name}_zero" for name in unread)]
    model.graph.node.append(onnx.helper.make_node("Sum", terms, [logits]))
    onnx.save(model, file)


def _zero_of(name: str) -> list[onnx.NodeProto]:
    """Nodes from an input to (B, 1) of zeros, by a way that no optimiser foresees: the least of 0 and a magnitude."""
    node = onnx.helper.make_node
    return [
        node("Cast", [name], [f"{name}_float"], to=onnx.TensorProto.FLOAT),
        node("Abs", [f"{name}_float"], [f"{name}_size"]),
        node("Flatten", [f"{name}_size"], [f"{name}_flat"], axis=1),
        node("ReduceMax", [f"{name}_flat", "axis_of_features"], [f"{name}_most"], keepdims=1),
        node("Min", [f"{name}_most", "nothing"], [f"{name}_zero"]),
    ]


def random_inputs(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`count` graphs of random points, of which some are missing, each with a random crop or none."""
    keypoints = rng.uniform(0, 1, (count, NODE_COUNT, 3)).astype(np.float32)
    keypoints[..., 2] *= rng.random((count, NODE_COUNT)) < 0.9
    present = (rng.random(count) < 0.7).astype(np.float32)
    crop = rng.integers(0, 256, (count, CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
    return [*build_graph(keypoints), crop, present]


def table_inputs(table: PoseTable, count: int) -> list[np.ndarray]:
    """The network's inputs for at most `count` samples spread over a table; without crops they are black and marked
    absent."""
    count = min(count, len(table))
    part = table.select(np.linspace(0, len(table) - 1, count).astype(int))
    crops = part.crops if len(part.crops) else np.zeros((count, *INPUTS["crop"][1][1:]), np.uint8)
    return [*build_graph(part.keypoints), crops, part.crop_present]


def parity(model: nn.Module, file: Path, inputs: list[np.ndarray], kind: str = "given") -> dict[str, float]:
    """Largest difference of a logit between torch and each runtime (f32), over batches of 1 and of 50; `kind` says in
    the log what the inputs are.

    Raises RuntimeError when it is more than rounding.
    """
    with torch.no_grad():
        wanted = model.eval()(*(torch.from_numpy(array) for array in inputs)).numpy()
    networks = {backend: load_network(file, backend, threads=1) for backend in RUNTIMES}
    gaps = {backend: _largest_gap(network, inputs, wanted, backend) for backend, network in networks.items()}
    told = ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items())
    log.info("largest difference of a logit from torch's, %d %s inputs: %s", len(inputs[0]), kind, told)
    return gaps


def parity_of_ir(model: nn.Module, xml: Path, inputs: list[np.ndarray]) -> float:
    """As `parity`, for an OpenVINO IR on the CPU."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.compile_model(xml, "CPU", settings)
    with torch.no_grad():
        wanted = model.eval()(*(torch.from_numpy(array) for array in inputs)).numpy()
    return _largest_gap(lambda *arrays: [compiled(list(arrays))[0]], inputs, wanted, f"the IR {xml.name}")


def export_ir(file: Path, folder: Path) -> Path:
    """Write an ONNX file as OpenVINO IR, `folder`/model.xml with its weights in model.bin; returns the XML file."""
    folder.mkdir(parents=True, exist_ok=True)
    # Compressed to f16, which is the default, it would not be the network that was measured.
    openvino.save_model(openvino.convert_model(file), folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


def _largest_gap(
    network: Callable[..., Sequence[np.ndarray]], inputs: list[np.ndarray], wanted: np.ndarray, name: str
) -> float:
    starts = [(i, i + 1) for i in range(min(20, len(wanted)))] + [(i, i + 50) for i in range(0, len(wanted), 50)]
    gaps = [np.abs(network(*(array[a:b] for array in inputs))[0] - wanted[a:b]).max() for a, b in starts]
    gap = float(np.max(gaps))  # of which `max` would leave out what is no number
    if not gap <= PARITY_BOUND:
        raise RuntimeError(f"{name} differs from torch by {gap:.1e}; the export is faulty")
    return gap


def write_card(
    folder: Path,
    classes: ClassFile,
    temperature: float,
    threshold: float,
    data: str,
    metrics: dict[str, Any],
    notes: str,
    trained: Mapping[str, Any],
    has_pictures: bool = True,
    file: str = "model.onnx",
) -> None:
    """Write the card beside the model's `file`, and `classes.toml` where the classes are not the shipped ones; what
    else lies there, an IR's weights and those to begin with, is told by its own hash in `made_with`.

    `trained` is the checkpoint, of which the network, the settings and the data's hash are told; a network that sees no
    pictures has no backbone, whatever the settings say.
    """
    settings = trained["settings"]
    backbone = settings["backbone"] if has_pictures else ""
    begun = f"ImageNet weights of {backbone}" if backbone and settings["pretrained"] else "random weights"
    if settings.get("start"):
        begun += f" by way of {settings['start']}"
    made_with = {name: version(name) for name in ("torch", "torchvision", "onnx")} | {"revision": git_revision()}
    made_with["data_sha256"] = trained["data_sha256"]
    for weights in ((folder / file).with_suffix(".bin"), folder / WEIGHTS_FILE):
        if weights.is_file():
            made_with[f"{weights.suffix[1:]}_sha256"] = sha256_of(weights)
    card = Card(
        task="pose_classifier",
        architecture="_".join(filter(None, (trained["network"], backbone))),
        file=file,
        sha256=sha256_of(folder / file),
        inputs=tuple(CardInput(name, dtype, shape, *_layout(name)) for name, (dtype, shape) in INPUTS.items()),
        outputs=("logits",),
        licence="AGPL-3.0-or-later",
        source=f"training/geopose, from {begun}",
        data=data,
        metrics=metrics,
        threshold=threshold,
        temperature=temperature,
        classes=classes.names,
        classes_sha256=classes.digest(),
        notes=notes,
        made_with=made_with,
    )
    save_card(card, folder)
    # The shipped list stands in one place; a list that is already here is left as its author wrote it.
    if load_model_classes(folder) != classes:
        (folder / CLASSES_FILE).write_text("\n".join(map(_class_text, classes.classes)), encoding="utf-8")


def _class_text(pose: PoseClass) -> str:
    """One entry of a class file."""
    values = msgspec.structs.asdict(pose).items()
    return "[[class]]\n" + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values)


def _layout(name: str) -> tuple[str, str]:
    return ("NHWC", "RGB") if name == "crop" else ("", "")
