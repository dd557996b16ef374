"""Networks run on either runtime with the same result, and on the faster one by themselves."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.errors import UserError
from stages import runtime
from stages.classes import models_folder
from stages.devices import ORDER, Machine
from stages.runtime import cache_folder, default_threads, load_network
from stages.sessions import How, Network, Place, load

MOVENET = models_folder() / "movenet_lightning" / "model.onnx"
SHIPPED = ("movenet_lightning", "stick_heatmap", "geopose")


def steady_machine() -> Machine:
    """This machine, but on its clock every run takes a millisecond: ONNX Runtime is taken, and remembered."""
    return Machine(clock=count(step=1_000_000).__next__)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that no other test and no user knows of."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


def memories(cache: Path) -> list[Path]:
    """Files in which choices are remembered."""
    return list(cache.glob("runtime-*"))


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
        batch = np.arange(size * 3, dtype=np.float32).reshape(3, size).T  # some are in this order
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


@pytest.mark.parametrize(("backend", "device"), [("onnxruntime", "auto"), ("onnxruntime", "cpu"), ("auto", "cuda")])
def test_a_precision_that_the_runtime_does_not_know_is_refused(
    doubling: Path, backend: runtime.Backend, device: runtime.Device
) -> None:
    with pytest.raises(UserError, match=r'precision = "f16" is for OpenVINO only, not for (onnxruntime|cuda)'):
        load_network(doubling, backend, 1, "f16", device)
    assert load_network(doubling, "auto", 1, "f16").describe()


def test_auto_times_both_says_so_and_remembers(doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network = load_network(doubling, "auto", threads=1, machine=steady_machine())
    assert network.backend == "onnxruntime"
    assert "runs on onnxruntime CPU (onnxruntime CPU 1.00 ms, openvino CPU 1.00 ms)" in caplog.text
    assert len(memories(cache)) == 1
    caplog.clear()
    assert load_network(doubling, "auto", threads=1).backend == network.backend
    assert "as remembered" in caplog.text and len(caplog.records) == 1


def test_why_no_better_device_was_taken_is_said_at_every_start(
    doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plain = Machine(providers=lambda: ["CPUExecutionProvider"], openvino_devices=lambda: ["CPU"])
    machine = msgspec.structs.replace(plain, clock=steady_machine().clock)
    for _ in range(2):
        caplog.clear()
        assert load_network(doubling, device="auto", threads=1, machine=machine).device.startswith("CPU")
        assert "no TensorRT, CUDA, MIGraphX, DirectML or CoreML; OpenVINO finds no GPU or NPU" in caplog.text
        assert {record.levelname for record in caplog.records} == {"INFO"}


def test_what_was_timed_on_a_busy_machine_is_used_and_not_remembered(doubling: Path, cache: Path) -> None:
    ticks = count()
    machine = Machine(clock=lambda: next(ticks) ** 2 * 1_000_000)  # every run takes longer than the one before
    assert load_network(doubling, threads=1, machine=machine).backend in runtime.RUNTIMES
    assert not memories(cache)


def test_a_device_that_fails_is_tried_anew_at_each_start(
    doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_on_cuda(place: Place, data: bytes, how: How) -> Network:
        if place.device == "cuda":
            raise RuntimeError("driver is too old")
        return load(place, data, how)

    machine = msgspec.structs.replace(
        steady_machine(), load=fail_on_cuda, providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    for _ in range(2):
        caplog.clear()
        assert load_network(doubling, device="auto", threads=1, machine=machine).device.startswith("CPU")
        assert "cannot run on onnxruntime CUDA: driver is too old" in caplog.text
    assert not memories(cache)


def test_a_device_that_crashes_the_process_is_left_out_at_the_restart(
    doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "import os, pathlib; from stages.devices import Machine; from stages.sessions import load\n"
        "from stages.runtime import load_network\n"
        "machine = Machine(providers=lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider'],\n"
        "    load=lambda place, *rest: os._exit(9) if place.device == 'cuda' else load(place, *rest))\n"
        f"print(load_network(pathlib.Path({str(doubling)!r}), device='auto', threads=1, machine=machine).device)"
    )
    for died in (True, False, True):  # the start after that tries it again: it may have been mended
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == (9 if died else 0), done.stderr
        assert died or "CPU" in done.stdout and 'did not survive that; device = "cpu"' in done.stderr
    assert not memories(cache)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can ask whether a process runs")
@pytest.mark.parametrize(("pid", "tried"), [(os.getppid(), True), (2**22 + 1, False)])
def test_a_device_is_tried_while_another_process_that_runs_tries_it(
    doubling: Path, cache: Path, pid: int, tried: bool
) -> None:
    marks: list[Path] = []

    def note(place: Place, data: bytes, how: How) -> Network:
        if place.device == "cuda":
            marks.append(how.cache / next(how.cache.glob(f"trying-*-{os.getpid()}")))
            raise RuntimeError("no driver")
        return load(place, data, how)

    machine = msgspec.structs.replace(
        steady_machine(), load=note, providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    load_network(doubling, device="auto", threads=1, machine=machine)
    (mark,) = marks
    mark.with_name(f"{mark.name.rpartition('-')[0]}-{pid}").touch()
    load_network(doubling, device="auto", threads=1, machine=machine)
    assert len(marks) == (2 if tried else 1)


def test_a_remembered_device_that_fails_is_chosen_anew(
    doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_network(doubling, threads=1, machine=steady_machine())

    def fail(place: Place, data: bytes, how: How) -> Network:
        if place.runtime == "onnxruntime":
            raise RuntimeError("gone")
        return load(place, data, how)

    machine = msgspec.structs.replace(steady_machine(), load=fail)
    assert load_network(doubling, threads=1, machine=machine).backend == "openvino"
    assert "no longer runs on onnxruntime CPU (gone)" in caplog.text


@pytest.mark.parametrize("model", SHIPPED)
def test_shipped_networks_run_on_the_best_device_here(model: str) -> None:
    file = models_folder() / model / "model.onnx"
    network = load_network(file, device="auto", threads=1)
    inputs = [np.zeros([size or 1 for size in spec.shape], spec.dtype) for spec in network.inputs]
    expected = load_network(file, "onnxruntime", threads=1)(*inputs)
    for ours, theirs in zip(network(*inputs), expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-2)


@pytest.mark.parametrize("chosen", runtime.RUNTIMES)
def test_only_the_remembered_runtime_is_imported(chosen: str, doubling: Path, cache: Path) -> None:
    load_network(doubling, "auto", threads=1, device="auto", machine=steady_machine())
    (remembered,) = memories(cache)
    place = next(place for place in ORDER if place.device == "cpu" and place.runtime == chosen)
    answer = msgspec.json.decode(remembered.read_bytes()) | {"place": msgspec.to_builtins(place)}
    remembered.write_bytes(msgspec.json.encode(answer))
    code = (
        "import sys, pathlib; from stages.runtime import load_network\n"
        f"print(load_network(pathlib.Path({str(doubling)!r}), 'auto', 1, device='auto').backend)\n"
        "print([name for name in ('onnxruntime', 'openvino') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [chosen, f"['{chosen}']"]


def test_another_number_of_threads_is_timed_anew(doubling: Path, cache: Path) -> None:
    load_network(doubling, "auto", threads=1, machine=steady_machine())
    load_network(doubling, "auto", threads=2, machine=steady_machine())
    assert len(memories(cache)) == 2


def test_a_damaged_memory_is_made_anew(doubling: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_network(doubling, "auto", threads=1, machine=steady_machine())
    (remembered,) = memories(cache)
    remembered.write_text('{"place": "abacus"}')
    load_network(doubling, "auto", threads=1, machine=steady_machine())
    assert "damaged" in caplog.text
    assert b"abacus" not in remembered.read_bytes()


@pytest.mark.parametrize("name", ["file", "x" * 300], ids=["a file where the folder should be", "not even a look"])
def test_a_cache_that_cannot_be_used_is_no_obstacle(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doubling: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    assert load_network(doubling, "auto", threads=1, machine=steady_machine()).backend in runtime.RUNTIMES
    assert "cannot be remembered" in caplog.text


def test_a_system_without_a_library_that_has_no_name_loads_networks_too(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: None) -> None:
        raise TypeError("argument of type 'NoneType' is not iterable")

    load_network(doubling, "onnxruntime")  # imports the runtime before the system seems another
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert load_network(doubling, "onnxruntime").backend == "onnxruntime"


def test_a_missing_model_is_named_and_one_for_other_programs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.onnx does not exist"):
        load_network(Path("none.onnx"))
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(UserError, match="which is for other programs"):
        load_network(tmp_path / "model.xml")


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


def test_a_runtime_that_is_not_installed_is_named(doubling: Path) -> None:
    machine = Machine(installed=lambda: ["onnxruntime"])
    with pytest.raises(UserError, match="pip install openvino"):
        load_network(doubling, "openvino", machine=machine)
    assert load_network(doubling, "auto", machine=machine).backend == "onnxruntime"


@pytest.mark.parametrize(
    ("device", "mend"),
    [("cuda", "onnxruntime-gpu"), ("tensorrt", "onnxruntime-gpu"), ("openvino-gpu", "driver"), ("coreml", "macOS")],
)
def test_a_named_device_that_is_missing_is_an_error_not_a_fallback(
    device: runtime.Device, mend: str, doubling: Path
) -> None:
    machine = Machine(providers=lambda: ["CPUExecutionProvider"], openvino_devices=lambda: ["CPU"])
    with pytest.raises(UserError, match=f'device = "{device}" cannot be used.*{mend}.*or set device = "auto"'):
        load_network(doubling, device=device, machine=machine)


def test_a_named_device_that_falls_back_to_the_cpu_is_an_error(doubling: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build may really use it")
    machine = Machine(providers=lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="Specified provider"),
        pytest.raises(UserError, match="computed on CPUExecutionProvider instead"),
    ):
        load_network(doubling, device="cuda", machine=machine)


def test_a_named_device_whose_runtime_is_not_installed_says_what_to_install(doubling: Path) -> None:
    with pytest.raises(UserError, match="openvino is not installed; run `pip install openvino`"):
        load_network(doubling, device="openvino-gpu", machine=Machine(installed=lambda: ["onnxruntime"]))


def test_a_runtime_that_fails_on_the_cpu_can_be_left_untried(doubling: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail_in_openvino(place: Place, data: bytes, how: How) -> Network:
        if place.runtime == "openvino":
            raise RuntimeError("libtbb is missing")
        return load(place, data, how)

    load_network(doubling, machine=Machine(load=fail_in_openvino))
    assert 'libtbb is missing; backend = "onnxruntime" leaves it untried' in caplog.text


def test_a_device_of_the_other_runtime_is_an_error(doubling: Path) -> None:
    with pytest.raises(UserError, match='"cuda" does not go with backend = "openvino"'):
        load_network(doubling, "openvino", device="cuda")


@pytest.mark.parametrize(
    ("cores", "threads", "overlapping"), [(1, 1, 1), (2, 2, 1), (3, 2, 1), (4, 2, 2), (8, 4, 4), (64, 4, 4)]
)
def test_threads_are_limited_by_default(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, overlapping: int
) -> None:
    monkeypatch.setattr("stages.runtime.usable_cores", lambda: cores)
    assert (default_threads(), default_threads(overlapping=True)) == (threads, overlapping)
