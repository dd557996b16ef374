"""The devices on which networks may run, best first, and which of them to take: one real inference decides.

A device that works but is no quicker than the CPU is passed over too: small networks often lose more on the way to a
GPU than they gain there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from engine.clock import now_ns
from stages.sessions import Device, How, Loader, Network, Place, Precision, RuntimeName, load, trial_inputs
from stages.trial import Trial, alone, by_turns

Backend = Literal["auto", "onnxruntime", "openvino"]

RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "openvino")

ORDER: tuple[Place, ...] = (
    Place("tensorrt", "onnxruntime", "TensorRT", "TensorrtExecutionProvider"),
    Place("cuda", "onnxruntime", "CUDA", "CUDAExecutionProvider"),
    Place("migraphx", "onnxruntime", "MIGraphX", "MIGraphXExecutionProvider"),
    Place("openvino-gpu", "openvino", "GPU", "GPU"),
    Place("openvino-npu", "openvino", "NPU", "NPU"),
    Place("directml", "onnxruntime", "DirectML", "DmlExecutionProvider"),
    Place("coreml", "onnxruntime", "CoreML", "CoreMLExecutionProvider"),
    Place("cpu", "onnxruntime", "CPU", "CPUExecutionProvider"),
    Place("cpu", "openvino", "CPU", "CPU"),
)
"""Best first; on the CPU the order only says which runtime the other has to beat."""

WORTHWHILE = 0.9
"""What follows must need less than this share of the time of ONNX Runtime on the CPU, which starts soonest."""

LACKS = {"onnxruntime": "this build of ONNX Runtime has no {}", "openvino": "OpenVINO finds no {}"}

MENDS: dict[Device, str] = {
    "tensorrt": "put onnxruntime-gpu in the place of onnxruntime and install TensorRT",
    "cuda": "put onnxruntime-gpu[cuda,cudnn] in the place of onnxruntime",
    "migraphx": "put onnxruntime-migraphx in the place of onnxruntime",
    "openvino-gpu": "install the GPU's driver",
    "openvino-npu": "install the NPU's driver",
    "directml": "put onnxruntime-directml in the place of onnxruntime",
    "coreml": "use onnxruntime on macOS",
}


class Machine(msgspec.Struct, frozen=True):
    """What the choice asks of this machine; a test answers in its stead."""

    installed: Callable[[], Sequence[RuntimeName]] = lambda: [name for name in RUNTIMES if find_spec(name)]
    providers: Callable[[], Sequence[str]] = lambda: _providers()
    """Those that ONNX Runtime was built with."""
    openvino_devices: Callable[[], Sequence[str]] = lambda: _openvino_devices()
    load: Loader = load
    clock: Callable[[], int] = now_ns


class Candidate(msgspec.Struct, frozen=True):
    """A place, and why it can't even be tried."""

    place: Place
    missing: str = ""
    """With `{}` for the place's title; empty: it can be tried."""
    mend: str = ""
    """What to do about it."""

    def why(self) -> str:
        return self.missing.format(self.place.title)


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """Where a network runs, and why not elsewhere."""

    place: Place
    milliseconds: dict[str, float]
    """Of an inference, by place; empty where there was nothing to compare with."""
    passed_over: list[str]
    """Why better places were not taken, in short sentences."""

    def __str__(self) -> str:
        times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in self.milliseconds.items())
        return "; ".join([f"{self.place}{f' ({times})' if times else ''}", *self.passed_over])


class Choice(msgspec.Struct, frozen=True):
    """A network on the place that was decided on."""

    network: Network
    decision: Decision
    failures: dict[Place, str]
    """Places that are there and do not work, with the reason."""
    steady: bool
    """Whether the times could be trusted."""


class CannotLoad(Exception):
    """The first runtime that could not load the file, when none could; the text says why."""

    def __init__(self, place: Place, error: Exception) -> None:
        super().__init__(reason_of(error))
        self.place = place


def allowed(device: Device, backend: Backend) -> list[Place]:
    """The places that these settings leave to choose from, best first."""
    return [place for place in ORDER if device in ("auto", place.device) and backend in ("auto", place.runtime)]


def survey(machine: Machine, device: Device, backend: Backend, precision: Precision) -> list[Candidate]:
    """Every place that these settings allow, best first. Nothing is imported for the CPU alone."""
    wanted = allowed(device, backend)
    asks: dict[RuntimeName, Callable[[], Sequence[str]]] = {
        "onnxruntime": machine.providers,
        "openvino": machine.openvino_devices,
    }
    installed = machine.installed()
    asked = {place.runtime for place in wanted if place.device != "cpu"}
    there = {name: _listed(asks[name]) for name in RUNTIMES if name in asked and name in installed}
    found: list[Candidate] = []
    for place in wanted:
        if place.runtime not in installed:
            found.append(Candidate(place, f"{place.runtime} is not installed", f"run `pip install {place.runtime}`"))
        elif place.device == "cpu":
            found.append(Candidate(place))
        else:
            found += _there(place, there[place.runtime], precision)
    return found


def in_short(candidates: Sequence[Candidate]) -> list[str]:
    """Why places are missing, a sentence for each reason."""
    titles: dict[str, list[str]] = {}
    for candidate in candidates:
        if candidate.missing and candidate.place.device != "cpu":
            titles.setdefault(candidate.missing, []).append(candidate.place.title)
    return [reason.format(", ".join(names[:-2] + [" or ".join(names[-2:])])) for reason, names in titles.items()]


def choose(candidates: Sequence[Candidate], data: bytes, how: How, machine: Machine) -> Choice:
    """The first place that does an inference and beats the CPU, else the quicker runtime on the CPU.

    Raises CannotLoad when no runtime can load the file on the CPU.
    """
    there = [candidate.place for candidate in candidates if not candidate.missing]
    cpu, failed = load_each([place for place in there if place.device == "cpu"], data, how, machine)
    if not cpu:
        raise CannotLoad(*next(iter(failed.items())))
    passed_over, steady = in_short(candidates), True
    for place in (place for place in there if place.device != "cpu"):
        networks, more_failed = load_each([place], data, how, machine)
        failed |= more_failed
        if not networks:
            continue
        try:
            trial = _time(cpu | networks, how, machine)
        except Exception as error:  # a device may also fail later than at the first inference
            failed[place] = error
            continue
        steady = steady and trial.steady
        own, least = trial.milliseconds[str(place)], min(trial.milliseconds[str(p)] for p in cpu)
        if own < WORTHWHILE * least:
            return Choice(networks[place], Decision(place, trial.milliseconds, passed_over), _reasons(failed), steady)
        passed_over.append(f"{place} gains nothing ({own:.2f} ms, the CPU {least:.2f} ms)")
    trial = _time(cpu, how, machine) if len(cpu) > 1 else Trial({}, steady=True)
    first, *rest = cpu
    limit = WORTHWHILE * trial.milliseconds.get(str(first), 0.0)
    best = next((place for place in rest if trial.milliseconds[str(place)] < limit), first)
    decision = Decision(best, trial.milliseconds, passed_over)
    return Choice(cpu[best], decision, _reasons(failed), steady and trial.steady)


def load_each(
    places: Sequence[Place], data: bytes, how: How, machine: Machine
) -> tuple[dict[Place, Network], dict[Place, Exception]]:
    """The file on each place that can load it, and what went wrong on the others."""
    networks: dict[Place, Network] = {}
    failed: dict[Place, Exception] = {}
    for place in places:
        try:
            networks[place] = machine.load(place, data, how)
        except Exception as error:  # the runtimes' own errors share no base class but this
            failed[place] = error
    return networks, failed


def reason_of(error: Exception) -> str:
    """The last line of an error, where OpenVINO puts the reason; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def hardware() -> str:
    """Changes when an accelerator or its driver comes or goes; found out without any runtime, in a millisecond."""
    if sys.platform == "win32":  # every driver that is installed adds a folder here
        drivers = Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32/DriverStore/FileRepository"
        return str(drivers.stat().st_mtime_ns) if drivers.is_dir() else ""
    patterns = ("dev/dri/render*", "dev/nvidia[0-9]*", "dev/accel/*", "dev/kfd",
                "etc/OpenCL/vendors/*.icd", "usr/lib/*-linux-gnu/libze_loader.so.1")  # fmt: skip
    files = sorted(file for pattern in patterns for file in Path("/").glob(pattern))
    nvidia = Path("/proc/driver/nvidia/version")
    return repr((
        [(str(file), os.access(file, os.R_OK)) for file in files],
        nvidia.read_text() if nvidia.is_file() else "",
        os.environ.get("CUDA_VISIBLE_DEVICES"),
    ))  # fmt: skip


def _listed(ask: Callable[[], Sequence[str]]) -> Sequence[str] | Exception:
    """What the runtime lists, or why it doesn't: one that is broken must not keep the other from running."""
    try:
        return ask()
    except Exception as error:
        return error


def _there(place: Place, listed: Sequence[str] | Exception, precision: Precision) -> list[Candidate]:
    """The place by each name in its runtime's list: OpenVINO numbers GPUs, and the first is the integrated one."""
    if isinstance(listed, Exception):
        reason = reason_of(listed).replace("{", "{{").replace("}", "}}")
        return [
            Candidate(place, f"{place.runtime} cannot say what there is: {reason}", f"install {place.runtime} anew")
        ]
    keys = [key for key in reversed(listed) if key == place.key or key.startswith(f"{place.key}.")]
    if not keys:
        return [Candidate(place, LACKS[place.runtime], MENDS[place.device])]
    if place.device == "openvino-npu" and precision != "f16":
        reason = f"the {{}} computes in 16-bit floats, and {precision} is asked for"
        return [Candidate(place, reason, 'set precision = "f16", which only [detect] has')]
    if keys == [place.key]:
        return [Candidate(place)]
    return [Candidate(msgspec.structs.replace(place, title=key, key=key)) for key in keys]


def _time(networks: Mapping[Place, Network], how: How, machine: Machine) -> Trial:
    inputs = trial_inputs(next(iter(networks.values())).inputs, how.shapes)
    with alone(how.cache):
        return by_turns({str(place): partial(network, *inputs) for place, network in networks.items()}, machine.clock)


def _reasons(failed: Mapping[Place, Exception]) -> dict[Place, str]:
    return {place: reason_of(error) for place, error in failed.items()}


def _providers() -> Sequence[str]:
    import onnxruntime

    providers: Sequence[str] = onnxruntime.get_available_providers()
    return providers


def _openvino_devices() -> Sequence[str]:
    import openvino

    devices: Sequence[str] = openvino.Core().available_devices
    return devices
