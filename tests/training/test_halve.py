"""Weights that float16 holds are stored so, and nothing that a model answers changes by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from engine.errors import UserError
from stages.cards import Card, CardInput, load_card, sha256_of
from training.card_file import save_card
from training.halve import halve

SIDE = 40


def model_of(folder: Path, weights: list[np.ndarray]) -> None:
    """Multiplies what it is given with one after the other."""
    helper, numbers = onnx.helper, range(len(weights))
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in numbers]
    names = ("x0", nodes[-1].output[0])
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, SIDE]) for name in names]
    held = [onnx.numpy_helper.from_array(weights[n], f"w{n}") for n in numbers]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    card = Card(
        task="body", architecture="movenet", file="model.onnx", sha256=sha256_of(folder / "model.onnx"),
        inputs=(CardInput("x0", "float32", (1, SIDE)),), outputs=("x2",), licence="none", source="a test", data="none",
    )  # fmt: skip
    save_card(card, folder)


def answer(folder: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x0": np.linspace(-1, 1, SIDE, dtype=np.float32)[None]})[0])


def test_a_halved_model_is_smaller_answers_the_same_and_is_known_by_its_card(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    exact, other = (rng.normal(size=(SIDE, SIDE)).astype(kind).astype(np.float32) for kind in (np.float16, np.float32))
    model_of(tmp_path, [exact, other])
    before, size = answer(tmp_path), (tmp_path / "model.onnx").stat().st_size
    assert halve(tmp_path) == 1
    np.testing.assert_array_equal(answer(tmp_path), before)
    assert (tmp_path / "model.onnx").stat().st_size < size - 1.8 * SIDE**2
    assert load_card(str(tmp_path))[0].source == "a test"  # whose digest is right, else it would be refused


def test_a_model_that_would_lose_something_stays(tmp_path: Path) -> None:
    model_of(tmp_path, [np.full((SIDE, SIDE), 1e9, np.float32), np.full((SIDE, SIDE), 0.1, np.float32)])
    kept = (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(UserError, match="no weights that float16 holds exactly; nothing was changed"):
        halve(tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == kept
