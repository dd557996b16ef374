"""Which devices each runtime has here, and which of them really run one inference of each shipped model.

A runtime's list says what it was built with; only an inference says what works.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.figures import Part, Row, Session
from benchmarks.networks import random_inputs, shipped_models
from stages.cards import load_card

ONNXRUNTIME = {
    "TensorRT": "TensorrtExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "MIGraphX": "MIGraphXExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
    "CPU": "CPUExecutionProvider",
}
OPENVINO = ("NPU", "GPU", "CPU")

Infer = Callable[[bytes, list[np.ndarray]], None]
"""One inference of a model (the ONNX file's bytes) on these inputs; raises what the runtime raises."""


class Device(msgspec.Struct, frozen=True):
    """A runtime's device, and how to try it."""

    runtime: str
    name: str
    infer: Infer | None
    missing: str = ""
    """Why it can't even be tried."""


def measure(session: Session) -> Part:
    """Every device that there could be, with every model."""
    return try_devices([*onnxruntime_devices(), *openvino_devices()], session.say)


def try_devices(devices: Sequence[Device], say: Callable[[str], None]) -> Part:
    """One inference of each shipped model on each device; a row for each, with the reason where it fails."""
    rows: list[Row] = []
    for device in devices:
        if device.infer is None:
            rows.append({"runtime": device.runtime, "device": device.name, "model": "", "runs": "no"})
            rows[-1]["reason"] = device.missing
            continue
        for model in shipped_models():
            say(f"{model} on {device.runtime} {device.name}")
            reason = why_not(device.infer, model)
            row: Row = {"runtime": device.runtime, "device": device.name, "model": model}
            rows.append({**row, "runs": "no" if reason else "yes", "reason": reason})
    return Part(name="devices", title="Devices: one real inference decides", rows=rows)


def why_not(infer: Infer, model: str) -> str | None:
    """The first line of what went wrong, or None when an inference worked."""
    card, file = load_card(model)
    try:
        infer(file.read_bytes(), random_inputs(card, 1))
    except Exception as error:  # the runtimes' own errors share no base class but this
        lines = [line for line in str(error).splitlines() if line.strip()]
        return _without_paths(lines[0]) if lines else type(error).__name__
    return None


def onnxruntime_devices(available: Sequence[str] | None = None) -> list[Device]:
    """Best first; `available` are the providers of this build, asked of it when None."""
    if available is None:
        if not find_spec("onnxruntime"):
            return [Device("onnxruntime", "any", None, "ONNX Runtime is not installed")]
        import onnxruntime

        available = onnxruntime.get_available_providers()
    return [
        Device("onnxruntime", name, _on_provider(provider))
        if provider in available
        else Device("onnxruntime", name, None, f"this build of ONNX Runtime has no {provider}")
        for name, provider in ONNXRUNTIME.items()
    ]


def openvino_devices(available: Sequence[str] | None = None) -> list[Device]:
    """Best first; `available` are the devices that OpenVINO finds, asked of it when None."""
    if available is None:
        if not find_spec("openvino"):
            return [Device("openvino", "any", None, "OpenVINO is not installed")]
        import openvino

        available = openvino.Core().available_devices
    found = []
    for kind in OPENVINO:
        names = [name for name in available if name.split(".")[0] == kind]
        found += [Device("openvino", name, _on_openvino(name)) for name in names]
        if not names:
            found.append(Device("openvino", kind, None, f"OpenVINO finds no {kind}, or no driver for it"))
    return found


def _on_provider(provider: str) -> Infer:
    def infer(model: bytes, inputs: list[np.ndarray]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
        if (used := session.get_providers()[0]) != provider:
            raise RuntimeError(f"ONNX Runtime fell back to {used}; its libraries or driver are missing")
        session.run(None, {item.name: array for item, array in zip(session.get_inputs(), inputs, strict=True)})

    return infer


def _on_openvino(device: str) -> Infer:
    def infer(model: bytes, inputs: list[np.ndarray]) -> None:
        import openvino

        core: Any = openvino.Core()
        request = core.compile_model(core.read_model(model=io.BytesIO(model)), device).create_infer_request()
        request.infer(inputs)

    return infer


def _without_paths(text: str) -> str:
    """The text without where things lie on this machine: a report may be published."""
    words = (Path(word).name if word.count("/") > 1 else word for word in text.split(" "))
    return " ".join(words)
