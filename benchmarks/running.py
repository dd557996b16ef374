"""Runs `arnis-stream` in processes of its own and looks on: results, time to the first one, processor time, memory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import zmq

import stages
from benchmarks.tree import children_cpu_s, cpu_s_of, memory_mb_of, tree_of
from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError

_LOOK_S = 0.01
"""How exact the time of the first result is."""
_MEMORY_EVERY_S = 0.5
_LIMIT_S = 1800.0


class Run(msgspec.Struct, kw_only=True):
    """What one run of the program gave and took."""

    stats: dict[str, Any]
    """As of `--stats`."""
    results: list[dict[str, Any]]
    """As of `--results`, in the order of their lines."""
    first_result_s: float | None = None
    """From the command to the first line of results."""
    cpu_s: float | None = None
    """Processor time of all processes, from the first result to the end; from the start where that is not known."""
    frames_before: int = 0
    """Frames that were done when that time began."""
    memory: list[tuple[float, float]] = []
    """Seconds since the command, and megabytes then, of all processes, shared pages counted once."""
    messages: int = 0
    """Results that came on the socket."""

    @property
    def frames(self) -> int:
        return int(self.stats["frames_in"])

    @property
    def cpu_ms_per_frame(self) -> float | None:
        frames = self.frames - self.frames_before
        return None if self.cpu_s is None or frames <= 0 else round(1000 * self.cpu_s / frames, 2)

    @property
    def peak_mb(self) -> float | None:
        """Most memory at any time."""
        return max((memory_mb for _, memory_mb in self.memory), default=None)

    @property
    def devices(self) -> dict[str, str]:
        """Networks and what they really ran on."""
        said = [stage for stage in self.stats["stages"].values() if isinstance(stage, dict)]
        networks = ("body", "closer", "stick", "fused")
        devices = {key: value for stage in said for key, value in stage.items() if key in networks}
        return devices | {stage["model"]: stage["runtime"] for stage in said if "runtime" in stage}


def run_program(arguments: Sequence[str], folder: Path, module: str = "stages") -> Run:
    """Run `arnis-stream`, or another module, with these arguments; `--stats` and `--results` go into `folder`.

    What is published has one subscriber, for without any nothing would be encoded or sent.
    Raises UserError with what the program said when it fails.
    """
    stats, results, said = folder / "stats.json", folder / "results.jsonl", folder / "said.txt"
    for file in (stats, results):
        file.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, "--stats", str(stats), "--results", str(results), *arguments]
    cpu_before_s = children_cpu_s()
    with said.open("wb") as errors, zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.subscribe(b"result.")
        for option, url in pairwise(arguments):
            if option == "--publish" and url != "off":
                subscriber.connect(url)
        watched = _Watched(now_ns(), results, subscriber)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment())
        try:
            watched.watch(process)
        finally:
            _stop(process)
    if process.returncode != 0:
        lines = said.read_text(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise UserError(f"{module} {' '.join(arguments)} failed: {lines[-1]}")
    cpu_after_s = children_cpu_s()
    used_s = None if cpu_before_s is None or cpu_after_s is None else cpu_after_s - cpu_before_s
    return Run(
        stats=json.loads(stats.read_text()),
        results=[json.loads(line) for line in results.read_text().splitlines()] if results.exists() else [],
        first_result_s=watched.first_result_s,
        cpu_s=None if used_s is None else used_s - watched.cpu_at_first_s,
        frames_before=watched.frames_at_first,
        memory=watched.memory,
        messages=watched.messages,
    )


def environment() -> dict[str, str]:
    """Variables under which another process finds the packages that this one runs, and opens no window."""
    root = str(Path(stages.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    # Else a file of the folder that this is called in could take the place of a package.
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def free_url() -> str:
    """A loopback address to publish on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{held.getsockname()[1]}"


class _Watched:
    """What can be seen of a running program from outside."""

    def __init__(self, started_ns: int, results: Path, subscriber: zmq.Socket[bytes]) -> None:
        self._started_ns = started_ns
        self._results = results
        self._subscriber = subscriber
        self.first_result_s: float | None = None
        self.cpu_at_first_s = 0.0
        self.frames_at_first = 0
        self.messages = 0
        self.memory: list[tuple[float, float]] = []

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Return when it has ended; raises UserError when it does not."""
        memory_at_s = 0.0
        while process.poll() is None:
            passed_s = (now_ns() - self._started_ns) / NS_PER_S
            if passed_s > _LIMIT_S:
                raise UserError(f"the program did not end within {_LIMIT_S:.0f} s; run it by hand with --verbose")
            if self.first_result_s is None and self._has_result():
                self.first_result_s = round(passed_s, 2)
                if (cpu_s := cpu_s_of(tree_of(process.pid))) is not None:
                    self.cpu_at_first_s, self.frames_at_first = cpu_s, self._results.read_bytes().count(b"\n")
            if passed_s >= memory_at_s:
                memory_at_s = passed_s + _MEMORY_EVERY_S
                if (memory_mb := memory_mb_of(tree_of(process.pid))) is not None:
                    self.memory.append((round(passed_s, 1), memory_mb))
            self._take_messages()
            time.sleep(_LOOK_S if self.first_result_s is None else _MEMORY_EVERY_S / 5)

    def _take_messages(self) -> None:
        """As a reader that keeps up."""
        while self._subscriber.poll(0):
            self._subscriber.recv()
            self.messages += 1

    def _has_result(self) -> bool:
        try:
            return self._results.stat().st_size > 0
        except OSError:
            return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End our own program if it still runs: in order, or at once when that takes too long."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
    if process.poll() is None:
        process.kill()
        process.wait()
