"""A network that says it runs on a device has run there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

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
