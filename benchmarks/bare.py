"""The networks alone: what the program asked of them on the demo clip, called again back to back in one bare process.

No capture, no decoding, no preparation of inputs, no other process: nothing can be faster with these networks in one
process. Runs as `python -m benchmarks.bare FRAMES THREADS...` and prints its figures as JSON.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import stages.classify
import stages.detectors
from benchmarks.running import environment
from engine.clock import NS_PER_MS, now_ns
from engine.config import load_config
from engine.errors import UserError
from engine.run import run_pipeline
from stages.app import default_config
from stages.capture import DEMO
from stages.runtime import Network, load_network

SETTINGS = ["gate.motion=false", "capture.realtime=false", "overlay.view=none", "overlay.live_line=none"]
SETTINGS += ["publish.url=off"]
BLOCK, ONE_IN = 30, 5
"""Inputs are kept of so many calls in a row, of every fifth such block: those of the whole clip take a gigabyte."""

_MODULES = (stages.detectors, stages.classify)


class Bare(msgspec.Struct, kw_only=True):
    """Figures of one bare process with one number of threads."""

    threads: int
    fps: float
    """Frames a second, with the calls of an average frame."""
    ms_per_frame: float
    cpu_ms_per_frame: float
    calls_per_frame: dict[str, float]
    ms_per_call: dict[str, float]
    """By the model's name."""
    devices: dict[str, str]
    """What each ran on."""


class _Call(msgspec.Struct):
    model: str
    inputs: list[np.ndarray]


class _Recorder:
    """Stands between the stages and the networks: counts the calls, and keeps the inputs of some."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.calls: list[_Call] = []
        self.files: dict[str, Path] = {}

    def load(self, model_file: Path, *how: Any, **more: Any) -> Network:
        """In place of `load_network`."""
        network = load_network(model_file, *how, **more)
        model = model_file.parent.name
        self.files[model] = model_file

        def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            block = self.counts.total() // BLOCK
            self.counts[model] += 1
            if block % ONE_IN == 0:
                self.calls.append(_Call(model, [array.copy() for array in inputs]))
            return network.run(inputs)

        return msgspec.structs.replace(network, run=run)


def measure_bare(frames: int, threads: Sequence[int]) -> list[Bare]:
    """Figures for each number of threads, from a process of its own; raises UserError when it fails."""
    command = [sys.executable, "-m", "benchmarks.bare", *map(str, [frames, *threads])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"the networks could not be measured alone: {lines[-1]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Bare])


def record(frames: int) -> _Recorder:
    """Run the program's stages over the demo clip's first frames in this process, gate open, and note all calls."""
    recorder = _Recorder()
    config = load_config(default_config(), overrides=SETTINGS)
    with _replaced("load_network", recorder.load):
        summary = run_pipeline(config, [DEMO], workers=1, max_frames=frames)
    if summary.error is not None:
        raise UserError(summary.error)
    return recorder


def replay(recorder: _Recorder, frames: int, threads: int) -> Bare:
    """Call the networks again with what was kept, in the same order."""
    networks = {
        model: load_network(
            file, threads=threads, device="auto", shapes=[array.shape for array in _first_inputs(recorder, model)]
        )
        for model, file in recorder.files.items()
        if recorder.counts[model]
    }
    for call in recorder.calls[:BLOCK]:
        networks[call.model](*call.inputs)
    spent: dict[str, list[int]] = {model: [] for model in networks}
    cpu_ns = time.process_time_ns()
    for call in recorder.calls:
        started = now_ns()
        networks[call.model](*call.inputs)
        spent[call.model].append(now_ns() - started)
    cpu_ns = time.process_time_ns() - cpu_ns
    per_frame = {model: recorder.counts[model] / frames for model in networks}
    ms_per_call = {model: sum(times) / len(times) / NS_PER_MS for model, times in spent.items()}
    ms_per_frame = sum(per_frame[model] * ms_per_call[model] for model in networks)
    busy_ns = sum(map(sum, spent.values()))
    return Bare(
        threads=threads,
        fps=round(1000 / ms_per_frame, 2),
        ms_per_frame=round(ms_per_frame, 3),
        cpu_ms_per_frame=round(ms_per_frame * cpu_ns / busy_ns, 3),
        calls_per_frame={model: round(count, 3) for model, count in per_frame.items()},
        ms_per_call={model: round(ms, 3) for model, ms in ms_per_call.items()},
        devices={model: network.describe() for model, network in networks.items()},
    )


def _first_inputs(recorder: _Recorder, model: str) -> list[np.ndarray]:
    return next((call.inputs for call in recorder.calls if call.model == model), [])


@contextmanager
def _replaced(name: str, other: Callable[..., Network]) -> Iterator[None]:
    """The modules that load networks use another function for the while."""
    before = [getattr(module, name) for module in _MODULES]
    for module in _MODULES:
        setattr(module, name, other)
    try:
        yield
    finally:
        for module, function in zip(_MODULES, before, strict=True):
            setattr(module, name, function)


if __name__ == "__main__":
    frame_count, *thread_counts = map(int, sys.argv[1:])
    recorded = record(frame_count)
    found = [replay(recorded, frame_count, threads) for threads in thread_counts]
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
