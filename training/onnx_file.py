"""Networks to ONNX files, proven equal, without what PyTorch's exporter leaves in them and nobody else should see."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from stages.cards import CardInput

log = logging.getLogger(__name__)

_OPSET = 18
_LARGEST_BATCH = 256


class Form(NamedTuple):
    """What goes into a graph and comes out of it."""

    inputs: tuple[CardInput, ...]
    outputs: tuple[str, ...]
    parity: float
    """Largest difference of an output from torch's that is let through."""

    @property
    def free_batch(self) -> bool:
        """Whether a call takes any number of pictures."""
        return self.inputs[0].shape[0] == 0

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """Noise of the inputs' shapes; `batch` counts when the first dimension is free."""
        noise = [torch.randint(0, 256, (item.shape[0] or batch, *item.shape[1:])) for item in self.inputs]
        return tuple(
            values.byte() if item.dtype == "uint8" else values.float() / 255
            for item, values in zip(self.inputs, noise, strict=True)
        )


def export_onnx(network: nn.Module, file: Path, form: Form) -> None:
    """Write a network as one ONNX file, with a free batch dimension where the form has one, and prove it equal."""
    names = [item.name for item in form.inputs]
    write_onnx(network, form.example(2), file, names, form.outputs, form.free_batch)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for batch in (1, 3) if form.free_batch else (1,):
        example = form.example(batch)
        with torch.no_grad():
            wanted = network(*example)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        feed = {name: values.numpy() for name, values in zip(names, example, strict=True)}
        answers = session.run(None, feed)
        worst = float(np.max([np.abs(a - w.numpy()).max() for a, w in zip(answers, wanted, strict=True)]))
        if not worst <= form.parity:
            raise RuntimeError(f"the exported graph differs from torch by {worst:.4f}")
    log.info("exported %s, parity %.1e", file.name, worst)


def write_onnx(
    network: nn.Module,
    example: tuple[Tensor, ...],
    file: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    free_batch: bool = True,
) -> None:
    """Write a network as one ONNX file without outside data, with inputs like the example; the first dimension of all
    is free, or as there."""
    _quieten_exporter()
    file.parent.mkdir(parents=True, exist_ok=True)
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    torch.onnx.export(
        network, example, str(file), input_names=list(inputs), output_names=list(outputs),
        dynamic_shapes=({0: batch},) * len(inputs) if free_batch else None, opset_version=_OPSET, dynamo=True,
        external_data=False, verbose=False,
    )  # fmt: skip
    strip_traces(file)


def _quieten_exporter() -> None:
    """It logs a line for each constant that it folds, and warns of inputs whose batch has one name."""
    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*axis name: batch will not be used", category=UserWarning)


def strip_traces(path: Path) -> None:
    """Take the notes of the exporter (stack traces, with paths of this machine) out of an ONNX file."""
    model = onnx.load(path)
    for graph in (model.graph, *model.functions):
        for part in (graph, *graph.node, *graph.value_info):
            part.ClearField("metadata_props")
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        part.ClearField("metadata_props")
    onnx.save(model, path)
