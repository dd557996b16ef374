"""A network that says it runs on a device has run there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.classes import models_folder
from stages.devices import ORDER
from stages.sessions import How, NotThere, Place, load, providers_for, providers_used

STICK = models_folder() / "stick_heatmap" / "model.onnx"


def place_of(device: str) -> Place:
    return next(place for place in ORDER if place.device == device)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_not_there_is_no_silent_fallback(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may have it")
    with pytest.raises(NotThere, match="CPUExecutionProvider instead"):
        load(place_of("cuda"), STICK.read_bytes(), How(1, "f32", tmp_path))


def test_a_provider_that_takes_no_operation_is_no_silent_fallback(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    idle = "AzureExecutionProvider"  # in the plain builds, first in the session's list, and computes nothing
    if idle not in onnxruntime.get_available_providers():
        pytest.skip("this build has no provider that does nothing")
    with pytest.raises(NotThere, match="CPUExecutionProvider instead"):
        load(Place("directml", "onnxruntime", "Azure", idle), STICK.read_bytes(), How(1, "f32", tmp_path))


def test_a_network_that_was_proven_computes_on(tmp_path: Path) -> None:
    stand_in = Place("directml", "onnxruntime", "stand-in", "CPUExecutionProvider")
    network = load(stand_in, STICK.read_bytes(), How(1, "f32", tmp_path))
    assert network.describe().startswith("onnxruntime ") and "stand-in, f32" in network.device
    inputs = [np.zeros([size or 1 for size in spec.shape], spec.dtype) for spec in network.inputs]
    assert len(network(*inputs)) == len(network.outputs)


@pytest.mark.parametrize("threads", [1, 2])
def test_onnxruntime_takes_as_many_threads_as_it_is_told_and_they_wait_without_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    onnxruntime, asked = pytest.importorskip("onnxruntime"), []
    session_type = onnxruntime.InferenceSession

    def noted(data: bytes, options: Any, **how: Any) -> Any:
        spins = options.get_session_config_entry("session.intra_op.allow_spinning")
        asked.append((options.intra_op_num_threads, spins))
        return session_type(data, options, **how)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    load(Place("cpu", "onnxruntime", "CPU", "CPUExecutionProvider"), STICK.read_bytes(), How(threads, "f32", tmp_path))
    assert asked == [(threads, "0")]


@pytest.mark.parametrize("threads", [1, 2])
def test_openvino_takes_as_many_threads_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    openvino, made = pytest.importorskip("openvino"), []
    compile_model = openvino.Core.compile_model

    def noted(*given: Any) -> Any:
        made.append(compile_model(*given))
        return made[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", noted)
    load(Place("cpu", "openvino", "CPU", "CPU"), STICK.read_bytes(), How(threads, "f32", tmp_path))
    assert [compiled.get_property("INFERENCE_NUM_THREADS") for compiled in made] == [threads]


def test_the_profile_tells_who_computed() -> None:
    profile = [
        {"cat": "Session", "args": {}},
        {"cat": "Node", "args": {"provider": "CUDAExecutionProvider"}},
        {"cat": "Node", "args": {"provider": "CPUExecutionProvider"}},
        {"cat": "Node", "args": {"thread_scheduling_stats": ""}},
    ]
    assert providers_used(profile) == Counter(CUDAExecutionProvider=1, CPUExecutionProvider=1)


def test_nvidia_computes_in_32_bits(tmp_path: Path) -> None:
    how = How(1, "f32", tmp_path / "cache")
    (tensorrt, options), cuda = providers_for(place_of("tensorrt"), how, ["CUDAExecutionProvider"])
    assert tensorrt == "TensorrtExecutionProvider" and not [name for name in options if "fp16" in name]
    assert cuda == ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert (tmp_path / "cache").is_dir()


def test_an_openvino_device_that_is_not_there_says_why(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    if "GPU" in str(openvino.Core().available_devices):
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match="(?i)gpu"):
        load(place_of("openvino-gpu"), STICK.read_bytes(), How(1, "f32", tmp_path))
