"""Networks run on either runtime with the same result, and on the faster one by themselves."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.errors import UserError
from stages import runtime
from stages.classes import models_folder
from stages.runtime import cache_folder, default_threads, load_network

MOVENET = models_folder() / "movenet_lightning" / "model.onnx"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that no other test and no user knows of."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A network with a free batch dimension that doubles its input, with a note in its metadata."""
    helper = pytest.importorskip("onnx.helper")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", 1, ["batch", 3])],
        [helper.make_tensor_value_info("y", 1, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"note": "twice"})
    path = tmp_path / "doubling.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_both_runtimes_give_the_same_keypoints() -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 192, 192, 3)).astype(np.int32)
    first, second = (load_network(MOVENET, name, threads=1)(image)[0] for name in runtime.RUNTIMES)
    assert first.shape == (1, 1, 17, 3)
    assert np.abs(first - second).max() < 1e-3


@pytest.mark.parametrize("backend", [*runtime.RUNTIMES, "auto"])
def test_the_batch_may_have_any_size(backend: runtime.Backend, doubling: Path) -> None:
    network = load_network(doubling, backend, threads=1)
    assert network.inputs[0].shape == (0, 3)
    assert network.inputs[0].dtype == np.float32
    assert network.metadata["note"] == "twice"
    for size in (1, 4, 2):
        batch = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
        batch.flags.writeable = False  # as arrays are that come out of a packet
        assert np.array_equal(network(batch)[0], 2 * batch)


def test_an_answer_is_not_changed_by_the_next_call(doubling: Path) -> None:
    for backend in runtime.RUNTIMES:
        network = load_network(doubling, backend, threads=1)
        first = network(np.ones((1, 3), np.float32))[0]
        network(np.zeros((1, 3), np.float32))
        assert first.tolist() == [[2, 2, 2]]


def test_it_says_what_it_runs_on(doubling: Path) -> None:
    text = load_network(doubling, "openvino", threads=2).describe()
    assert text.startswith("openvino 20") and text.endswith("on CPU, 2 threads, f32")


def test_auto_times_both_says_so_and_remembers(doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network = load_network(doubling, "auto", threads=1)
    assert f"runs on {network.backend}" in caplog.text and "openvino 0." in caplog.text
    assert len(list(cache.iterdir())) == 1
    caplog.clear()
    assert load_network(doubling, "auto", threads=1).backend == network.backend
    assert not caplog.text


@pytest.mark.parametrize("chosen", runtime.RUNTIMES)
def test_only_the_remembered_runtime_is_imported(chosen: str, doubling: Path, cache: Path) -> None:
    load_network(doubling, "auto", threads=1)
    (remembered,) = cache.iterdir()
    answer = msgspec.json.decode(remembered.read_bytes()) | {"backend": chosen}
    remembered.write_bytes(msgspec.json.encode(answer))
    code = (
        "import sys, pathlib; from stages.runtime import load_network\n"
        f"print(load_network(pathlib.Path({str(doubling)!r}), 'auto', 1).backend)\n"
        "print([name for name in ('onnxruntime', 'openvino') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [chosen, f"['{chosen}']"]


def test_another_number_of_threads_is_timed_anew(doubling: Path, cache: Path) -> None:
    load_network(doubling, "auto", threads=1)
    load_network(doubling, "auto", threads=2)
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_memory_is_made_anew(doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_network(doubling, "auto", threads=1)
    (remembered,) = cache.iterdir()
    remembered.write_text('{"backend": "abacus"}')
    load_network(doubling, "auto", threads=1)
    assert "damaged" in caplog.text
    assert b"abacus" not in remembered.read_bytes()


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert load_network(doubling, "auto", threads=1).backend in runtime.RUNTIMES
    assert "cannot be remembered" in caplog.text


def test_a_missing_model_is_named() -> None:
    with pytest.raises(UserError, match=r"none\.onnx does not exist"):
        load_network(Path("none.onnx"))


@pytest.mark.parametrize("backend", [*runtime.RUNTIMES, "auto"])
def test_a_broken_model_is_named(backend: runtime.Backend, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"cannot load the model .*broken\.onnx"):
        load_network(tmp_path / "broken.onnx", backend)


@pytest.mark.parametrize("backend", runtime.RUNTIMES)
def test_a_model_that_reads_another_file_is_refused(backend: runtime.Backend, tmp_path: Path) -> None:
    helper = pytest.importorskip("onnx.helper")
    (tmp_path / "secret").write_bytes(np.ones(3, np.float32).tobytes())
    weight = helper.make_tensor("w", 1, [3], np.ones(3, np.float32))
    weight.ClearField("float_data")
    weight.data_location = 1
    weight.external_data.add(key="location", value="secret")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "reader",
        [helper.make_tensor_value_info("x", 1, [1, 3])],
        [helper.make_tensor_value_info("y", 1, [1, 3])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "reader.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="cannot load"):
        load_network(tmp_path / "reader.onnx", backend)


def test_a_runtime_that_is_not_installed_is_named(doubling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = importlib.util.find_spec
    monkeypatch.setattr(runtime, "find_spec", lambda name: None if name == "openvino" else present(name))
    with pytest.raises(UserError, match="pip install openvino"):
        load_network(doubling, "openvino")
    assert load_network(doubling, "auto").backend == "onnxruntime"


@pytest.mark.parametrize("backend", runtime.RUNTIMES)
def test_a_gpu_that_cannot_be_used_is_an_error_not_a_fallback(backend: runtime.Backend, doubling: Path) -> None:
    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() or "GPU" in openvino.Core().available_devices:
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match='device = "cpu"'):
        load_network(doubling, backend, device="gpu")


def test_threads_are_limited_by_default() -> None:
    assert 1 <= default_threads() <= 4
