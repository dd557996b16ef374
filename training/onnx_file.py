"""What PyTorch's exporter leaves in an ONNX file and nobody else should see."""

from __future__ import annotations

from pathlib import Path

import onnx


def strip_traces(path: Path) -> None:
    """Take the notes of the exporter (stack traces, with paths of this machine) out of an ONNX file."""
    model = onnx.load(path)
    for graph in (model.graph, *model.functions):
        for part in (graph, *graph.node, *graph.value_info):
            part.ClearField("metadata_props")
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        part.ClearField("metadata_props")
    onnx.save(model, path)
