"""`arnis-train halve`: a model's weights as float16, where that holds them exactly.

Networks converted from another format often have weights that were float16 there: half of their file is zeros. What
they answer stays the same to the last bit, as runtimes make float32 of them once, when they load them.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import msgspec
import numpy as np
import onnx

from engine.errors import UserError
from stages.cards import load_card, sha256_of
from training.card_file import save_card
from training.files import whole_model

log = logging.getLogger(__name__)

_FEWEST = 256
"""Numbers of a tensor; of fewer nothing is won."""


def halved(model: onnx.ModelProto) -> int:
    """Store the tensors that lose nothing by it as float16, each with a node that makes float32 of it again; returns
    how many that were."""
    graph, casts = model.graph, []
    replaceable = {item.name for item in graph.input}  # by whoever calls it, in old files
    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _FEWEST or tensor.name in replaceable:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        graph.initializer.remove(tensor)
        graph.initializer.append(onnx.numpy_helper.from_array(half, f"{tensor.name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]  # what is read comes before who reads it
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return len(casts)


def halve(folder: Path) -> int:
    """Halve the model of a folder, and tell its card; returns how many tensors that concerned. Raises UserError when
    there is no sound model, or none of its weights are float16."""
    card, file = load_card(str(folder))
    model = onnx.load(file)
    count = halved(model)
    if not count:
        raise UserError(f"{file} has no weights that float16 holds exactly; nothing was changed")
    with whole_model(folder) as part:
        onnx.save(model, part / file.name)
        save_card(msgspec.structs.replace(card, sha256=sha256_of(part / file.name)), part)
    return count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `halve`."""
    parser.add_argument("folder", type=Path, help="of the model and its card")


def run(args: argparse.Namespace) -> int:
    """Halve; 0 on success."""
    log.info("%d tensors of %s are float16 now", halve(args.folder), args.folder)
    return 0
