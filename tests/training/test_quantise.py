"""INT8 is judged by the answers it gives, and an IR is the network that was measured."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402

from engine.errors import UserError  # noqa: E402
from stages.cards import load_card  # noqa: E402
from stages.classes import load_classes  # noqa: E402
from stages.classify import INPUTS  # noqa: E402
from training.geopose import export, export_command, quantise  # noqa: E402
from training.geopose.data import PoseTable  # noqa: E402

CLASSES = load_classes()
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(0, 0.2, (13, 3, 8, 8)).astype(np.float32)
HEAD = RNG.normal(0, 0.1, (INPUTS["nodes"][1][2], 13)).astype(np.float32)


class Small(torch.nn.Module):
    """A convolution over the crop plus a matrix over the nodes, with the inputs of a pose classifier."""

    def forward(self, nodes, edges, mask, crop, crop_present):  # type: ignore[no-untyped-def]
        picture = crop.permute(0, 3, 1, 2).float() / 255
        seen = torch.nn.functional.conv2d(picture, torch.from_numpy(KERNEL), stride=8).mean((2, 3))
        body = nodes.sum(1) @ torch.from_numpy(HEAD) + edges.sum((1, 2)).unsqueeze(-1) * mask.sum(1, keepdim=True)
        return seen * crop_present.unsqueeze(-1) + body


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by hand: torch's exporter would take most of the test's time."""
    constants = {"kernel": KERNEL, "head": HEAD, "scale": np.float32(255), "one": np.array([1], np.int64),
                 "both": np.array([1, 2], np.int64)}  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["crop"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["small"]),
        helper.make_node("Transpose", ["small"], ["picture"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["picture", "kernel"], ["map"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["seen"]),
        helper.make_node("Unsqueeze", ["crop_present", "one"], ["present"]),
        helper.make_node("Mul", ["seen", "present"], ["kept"]),
        helper.make_node("ReduceSum", ["nodes", "one"], ["summed"], keepdims=0),
        helper.make_node("MatMul", ["summed", "head"], ["read"]),
        helper.make_node("ReduceSum", ["edges", "both"], ["flat"], keepdims=0),
        helper.make_node("Unsqueeze", ["flat", "one"], ["joined"]),
        helper.make_node("ReduceSum", ["mask", "one"], ["there"], keepdims=1),
        helper.make_node("Mul", ["joined", "there"], ["same"]),
        helper.make_node("Add", ["read", "same"], ["body"]),
        helper.make_node("Add", ["kept", "body"], ["logits"]),
    ]
    kinds = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8}
    inputs = [
        helper.make_tensor_value_info(name, kinds[dtype], ["batch", *shape[1:]])
        for name, (dtype, shape) in INPUTS.items()
    ]
    outputs = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 13])]
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initial)
    file = tmp_path_factory.mktemp("fp32") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


def people(count: int) -> PoseTable:
    keypoints = RNG.uniform(0, 1, (count, 19, 3)).astype(np.float32)
    crops = RNG.integers(0, 256, (count, 128, 128, 3), np.uint8)
    return PoseTable(
        keypoints, RNG.integers(0, 13, count), np.array([f"p{i // 3}" for i in range(count)]), np.full(count, "front"),
        crops, np.ones(count, np.float32), np.full(count, ""), np.zeros(count, bool), np.arange(count),
    )  # fmt: skip


def test_convolutions_become_int8_and_the_graph_does_not(model_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    table = people(24)
    out = tmp_path / "int8" / "model.onnx"
    quantise.quantise(model_file, export.table_inputs(table, 12), out)
    producers = {name: node.op_type for node in onnx.load(out).graph.node for name in node.output}
    fed_by = {node.op_type: {producers.get(n) for n in node.input} for node in onnx.load(out).graph.node}
    assert "DequantizeLinear" in fed_by["Conv"] and "DequantizeLinear" not in fed_by["MatMul"]
    rows = quantise.compare_precisions({"FP32": model_file, "INT8": out}, table, 1.0, 0.1)
    assert [(row.precision, row.runtime) for row in rows] == [
        ("FP32", "onnxruntime"), ("FP32", "openvino"), ("INT8", "onnxruntime"), ("INT8", "openvino"),
    ]  # fmt: skip
    assert rows[1].same_answer == 1 and min(row.same_answer for row in rows) >= 0.9
    assert rows[1].largest_logit_gap < export.PARITY_BOUND < rows[2].largest_logit_gap
    assert rows[2].mean_logit_gap < quantise.LOGIT_BOUND
    assert all(0 < row.best_ms <= row.median_ms for row in rows)
    settings = {"backbone": "mobilenet_v3_small", "pretrained": False}
    trained = {"network": "geopose", "settings": settings, "data_sha256": "ab" * 32}
    export.write_card(out.parent, CLASSES, 1.0, 0.5, "noise", quantise.by_precision(rows), "", trained)
    assert load_card(out.parent)[0].metrics["int8_openvino"]["same_answer"] == rows[3].same_answer
    text = quantise.table_text(rows).splitlines()
    assert len(text) == 5 and len({len(line) for line in text[1:]}) == 1


def test_an_int8_model_that_answers_otherwise_is_not_kept(tmp_path: Path) -> None:
    row = quantise.PrecisionRow("INT8", "openvino", 0.6, (0.5, 0.7), 0.4, 0.9, 0.9, 1.0, 1.0, 1.0, 0.1)
    folder = tmp_path / "int8"
    folder.mkdir()
    assert not export_command.refused(folder, [row]) and folder.is_dir()
    far = msgspec.structs.replace(row, mean_logit_gap=0.9)
    assert "0.90" in export_command.refused(folder, [row, far]) and not folder.exists()


def test_a_network_without_convolutions_is_quantised_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf")
    node = [helper.make_node("MatMul", ["nodes", "head"], ["logits"])]
    inputs = [helper.make_tensor_value_info("nodes", onnx.TensorProto.FLOAT, ["batch", *INPUTS["nodes"][1][1:]])]
    outputs = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(node, "graph", inputs, outputs, [numpy_helper.from_array(HEAD, "head")])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "model.onnx")
    monkeypatch.setattr(quantise, "INPUTS", {"nodes": INPUTS["nodes"]})
    others = logging.NullHandler()  # such as pytest's, which would hear no warning in later tests
    logging.getLogger("nncf").addHandler(others)
    quantise.quantise(tmp_path / "model.onnx", export.table_inputs(people(8), 8)[:1], tmp_path / "int8.onnx")
    logging.getLogger("nncf").removeHandler(others)
    assert any(n.op_type == "QuantizeLinear" for n in onnx.load(tmp_path / "int8.onnx").graph.node)
    assert others.level == logging.NOTSET


def test_without_nncf_it_says_how_to_get_it(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UserError, match=r"pip install '.\[train\]'"):
        quantise.quantise(model_file, export.table_inputs(people(2), 2), tmp_path / "model.onnx")


def test_the_ir_equals_torch_and_its_card_covers_the_weights(model_file: Path, tmp_path: Path) -> None:
    inputs = export.table_inputs(people(60), 60)
    xml = export.export_ir(model_file, tmp_path / "ir")
    assert export.parity_of_ir(Small(), xml, inputs) <= export.PARITY_BOUND
    settings = {"backbone": "mobilenet_v3_small", "pretrained": True}
    trained = {"network": "geopose", "settings": settings, "data_sha256": "ab" * 32}
    export.write_card(tmp_path / "ir", CLASSES, 1.0, 0.5, "noise", {}, "", trained, file="model.xml")
    card, file = load_card(tmp_path / "ir")
    assert file.name == "model.xml" and len(card.made_with["bin_sha256"]) == 64
    assert card.architecture == "geopose_mobilenet_v3_small" and "ImageNet weights" in card.source


def test_an_export_that_differs_from_torch_is_not_let_through(model_file: Path, tmp_path: Path) -> None:
    class Other(Small):
        def forward(self, *inputs):  # type: ignore[no-untyped-def]
            return super().forward(*inputs) + 0.01

    inputs = export.table_inputs(people(7), 200)
    assert len(inputs[0]) == 7  # nobody twice, though there are fewer than were asked for
    assert max(export.parity(Small(), model_file, inputs).values()) <= export.PARITY_BOUND
    with pytest.raises(RuntimeError, match="differs from torch"):
        export.parity(Other(), model_file, inputs)


def test_inputs_that_the_network_does_not_read_are_kept(tmp_path: Path) -> None:
    """Without that, OpenVINO drops them, and the classifier's arrays end up in the wrong places."""

    class Graph(torch.nn.Module):
        def forward(self, nodes, edges, mask, crop, crop_present):  # type: ignore[no-untyped-def]
            return nodes.sum(1) @ torch.from_numpy(HEAD)

    node = [
        helper.make_node("ReduceSum", ["nodes", "one"], ["summed"], keepdims=0),
        helper.make_node("MatMul", ["summed", "head"], ["logits"]),
    ]
    kinds = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8}
    values = [
        helper.make_tensor_value_info(name, kinds[dtype], ["batch", *shape[1:]])
        for name, (dtype, shape) in INPUTS.items()
    ]
    out = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 13])]
    constants = [numpy_helper.from_array(HEAD, "head"), numpy_helper.from_array(np.array([1]), "one")]
    graph = helper.make_graph(node, "graph", values, out, constants)
    file = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    export.use_all_inputs(file)
    onnx.checker.check_model(onnx.load(file))
    for table in (people(60), people(60).without_crops()):
        assert max(export.parity(Graph(), file, export.table_inputs(table, 60)).values()) <= export.PARITY_BOUND
    before = file.read_bytes()
    export.use_all_inputs(file)
    assert file.read_bytes() == before


def test_samples_without_crops_are_judged_by_the_graph_alone(model_file: Path) -> None:
    table = people(10).without_crops()
    rows = quantise.compare_precisions({"FP32": model_file}, table, 1.0, 0.1)
    assert rows[0].same_answer == 1
