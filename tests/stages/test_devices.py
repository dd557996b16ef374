"""The best device that works and beats the CPU is taken; why each better one was not is said."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from stages.devices import ORDER, Backend, Candidate, CannotLoad, Machine, choose, hardware, in_short, survey
from stages.sessions import Device, How, Network, Place, Precision, TensorSpec

HOW = How(threads=1, precision="f32", cache=Path(os.devnull) / "none")
EVERYTHING = [place.key for place in ORDER if place.runtime == "onnxruntime"]
PLAIN = ["AzureExecutionProvider", "CPUExecutionProvider"]


class Bench:
    """A made-up machine: places cost so many milliseconds, or fail with what they are given instead."""

    def __init__(
        self, costs: Mapping[str, float | str], providers: Sequence[str] = PLAIN, openvino: Sequence[str] = ("CPU",)
    ) -> None:
        self.costs = costs
        self.now_ms = 0.0
        self.loaded: list[str] = []
        self.machine = Machine(
            installed=lambda: ["onnxruntime", "openvino"],
            providers=lambda: providers,
            openvino_devices=lambda: openvino,
            load=self.load,
            clock=lambda: round(self.now_ms * 1e6),
        )

    def load(self, place: Place, data: bytes, how: How) -> Network:
        self.loaded.append(str(place))
        cost = self.costs[str(place)]
        if isinstance(cost, str):
            raise RuntimeError(f"Exception from somewhere:\n{cost}\n\n")

        def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            self.now_ms += cost
            return list(inputs)

        specs = (TensorSpec("x", np.dtype(np.float32), (1, 3)),)
        return Network(run, place.runtime, place.title, "0", specs, specs, {})

    def candidates(
        self, device: Device = "auto", backend: Backend = "auto", precision: Precision = "f32"
    ) -> list[Candidate]:
        return survey(self.machine, device, backend, precision)


def places(candidates: Sequence[Candidate]) -> list[str]:
    return [str(candidate.place) for candidate in candidates if not candidate.missing]


def test_everything_there_is_tried_best_first() -> None:
    found = Bench({}, EVERYTHING, ["CPU", "GPU", "NPU"]).candidates(precision="f16")
    assert places(found) == [
        "onnxruntime TensorRT", "onnxruntime CUDA", "onnxruntime MIGraphX", "openvino GPU", "openvino NPU",
        "onnxruntime DirectML", "onnxruntime CoreML", "onnxruntime CPU", "openvino CPU"]  # fmt: skip


def test_what_is_missing_is_said_in_a_line() -> None:
    found = Bench({}).candidates()
    assert places(found) == ["onnxruntime CPU", "openvino CPU"]
    assert in_short(found) == [
        "this build of ONNX Runtime has no TensorRT, CUDA, MIGraphX, DirectML or CoreML",
        "OpenVINO finds no GPU or NPU",
    ]


def test_a_discrete_gpu_comes_before_the_integrated_one() -> None:
    found = Bench({}, PLAIN, ["CPU", "GPU.0", "GPU.1"]).candidates("openvino-gpu")
    assert [candidate.place.key for candidate in found] == ["GPU.1", "GPU.0"]


def test_what_computes_in_16_bits_is_not_taken_for_32() -> None:
    (npu,) = Bench({}, PLAIN, ["CPU", "NPU"]).candidates("openvino-npu")
    assert "16-bit" in npu.why() and npu.mend == 'set precision = "f16", which only [detect] has'


def test_a_runtime_that_is_not_asked_for_is_not_asked() -> None:
    def refuse() -> Sequence[str]:
        raise AssertionError("asked")

    machine = Machine(lambda: ["onnxruntime", "openvino"], lambda: PLAIN, refuse)
    assert places(survey(machine, "auto", "onnxruntime", "f32")) == ["onnxruntime CPU"]
    assert places(survey(machine, "cpu", "auto", "f32")) == ["onnxruntime CPU", "openvino CPU"]


def test_a_broken_runtime_does_not_keep_the_other_from_running() -> None:
    def fail() -> Sequence[str]:
        raise ImportError("libtbb.so: {no} such file")

    bench = Bench({"onnxruntime CPU": 5.0, "openvino CPU": "libtbb.so"})
    machine = msgspec.structs.replace(bench.machine, openvino_devices=fail)
    chosen = choose(survey(machine, "auto", "auto", "f32"), b"", HOW, machine)
    assert str(chosen.decision.place) == "onnxruntime CPU"
    assert "openvino cannot say what there is: libtbb.so: {no} such file" in chosen.decision.passed_over


def test_a_runtime_that_is_not_installed_is_named() -> None:
    machine = Machine(lambda: ["onnxruntime"], lambda: PLAIN)
    assert "openvino is not installed" in in_short(survey(machine, "auto", "auto", "f32"))


def test_the_first_device_that_works_and_beats_the_cpu_wins() -> None:
    costs = {"onnxruntime CUDA": 2.0, "openvino GPU": 1.0, "onnxruntime CPU": 5.0, "openvino CPU": 4.0}
    bench = Bench(costs, [*PLAIN, "CUDAExecutionProvider"], ["CPU", "GPU"])
    chosen = choose(bench.candidates(), b"", HOW, bench.machine)
    assert str(chosen.decision.place) == "onnxruntime CUDA"
    assert chosen.steady and not chosen.failures
    assert "openvino GPU" not in bench.loaded
    assert "no TensorRT" in str(chosen.decision) and "onnxruntime CUDA 2.00 ms" in str(chosen.decision)


def test_a_device_whose_inference_fails_is_passed_over_with_its_reason() -> None:
    costs = {"onnxruntime CUDA": "driver is too old", "openvino GPU": 1.0, "onnxruntime CPU": 5.0, "openvino CPU": 4.0}
    bench = Bench(costs, [*PLAIN, "CUDAExecutionProvider"], ["CPU", "GPU"])
    chosen = choose(bench.candidates(), b"", HOW, bench.machine)
    assert str(chosen.decision.place) == "openvino GPU"
    assert [(str(place), why) for place, why in chosen.failures.items()] == [("onnxruntime CUDA", "driver is too old")]


def test_a_device_that_fails_at_a_later_inference_is_passed_over() -> None:
    def load(place: Place, data: bytes, how: How) -> Network:
        def fail(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            raise RuntimeError("out of memory")

        network = bench.load(place, data, how)
        return msgspec.structs.replace(network, run=fail) if place.device != "cpu" else network

    bench = Bench({"openvino GPU": 1.0, "onnxruntime CPU": 5.0, "openvino CPU": 4.0}, PLAIN, ["CPU", "GPU"])
    machine = msgspec.structs.replace(bench.machine, load=load)
    chosen = choose(bench.candidates(), b"", HOW, machine)
    assert str(chosen.decision.place) == "openvino CPU"
    assert list(chosen.failures.values()) == ["out of memory"]


def test_a_file_that_no_runtime_loads_is_an_error() -> None:
    bench = Bench({"onnxruntime CPU": "no network", "openvino CPU": "nonsense"})
    with pytest.raises(CannotLoad, match="no network"):
        choose(bench.candidates(), b"", HOW, bench.machine)


def test_a_device_that_is_slower_than_the_cpu_does_not_win() -> None:
    bench = Bench({"openvino GPU": 4.0, "onnxruntime CPU": 5.0, "openvino CPU": 4.0}, PLAIN, ["CPU", "GPU"])
    chosen = choose(bench.candidates(), b"", HOW, bench.machine)
    assert str(chosen.decision.place) == "openvino CPU"
    assert "openvino GPU gains nothing (4.00 ms, the CPU 4.00 ms)" in str(chosen.decision)


@pytest.mark.parametrize(("openvino_ms", "taken"), [(4.4, "openvino CPU"), (4.6, "onnxruntime CPU")])
def test_on_the_cpu_openvino_must_gain_a_tenth(openvino_ms: float, taken: str) -> None:
    bench = Bench({"onnxruntime CPU": 5.0, "openvino CPU": openvino_ms})
    assert str(choose(bench.candidates(), b"", HOW, bench.machine).decision.place) == taken


def test_a_file_that_only_one_runtime_loads_runs_there() -> None:
    bench = Bench({"onnxruntime CPU": "no such operation", "openvino CPU": 4.0})
    chosen = choose(bench.candidates(), b"", HOW, bench.machine)
    assert str(chosen.decision.place) == "openvino CPU"
    assert list(chosen.failures.values()) == ["no such operation"]


def test_the_hardware_reads_the_same_twice() -> None:
    assert hardware() == hardware()


@pytest.mark.skipif(sys.platform == "win32", reason="there the folder of the drivers tells")
def test_devices_that_are_hidden_are_other_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hardware()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert hardware() != before
