"""Model files tell nothing of the machine on which they were made."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from stages.classes import models_folder
from training.onnx_file import strip_traces


@pytest.mark.parametrize("file", sorted(models_folder().glob("*/*.onnx")), ids=lambda file: file.parent.name)
def test_a_shipped_model_names_no_path(file: Path) -> None:
    data = file.read_bytes()
    assert not any(trace in data for trace in (b'.py"', b"/home/", b"/tmp/", b"/root/", b"Traceback"))


def test_the_exporters_notes_are_taken_out_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()).eval()
    torch.onnx.export(network, (torch.zeros(1, 3),), str(file), dynamo=True, external_data=False, verbose=False)
    assert any(node.metadata_props for node in onnx.load(file).graph.node), "the exporter leaves notes"
    before = [node.op_type for node in onnx.load(file).graph.node]
    strip_traces(file)
    after = onnx.load(file)
    assert [node.op_type for node in after.graph.node] == before
    assert not any(node.metadata_props for node in after.graph.node)
    onnx.checker.check_model(after)
