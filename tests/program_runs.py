"""Runs `arnis-stream` in a process of its own, as a user does, and reads what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).parents[1]
CLIPS = Path(__file__).with_name("clips")
OUTPUT = ["publish:Results", "publish:Publish", "overlay:Overlay", "record:Record", "preview:Preview"]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")},
    "PYTHONPATH": str(ROOT),
}


def write_config(path: Path, **workers: Sequence[str]) -> Path:
    """A pipeline of these workers, their stages by `module:Class`."""
    text = ""
    for name, stages in workers.items():
        text += f'[[worker]]\nname = "{name}"\nstages = {json.dumps([f"stages.{stage}" for stage in stages])}\n'
    path.write_text(text)
    return path


def make_clip(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"g": "5", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 60, (120, 160, 3), np.uint8)
        for i in range(frames):
            picture = noise.copy()
            picture[40:80, (5 * i) % 120 : (5 * i) % 120 + 40] = 230
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stages", *map(str, arguments)]


def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT)


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The program in the background; ended at the end of the block if it still runs."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*arguments), text=True, env=ENVIRONMENT, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.05)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def frames_of(file: Path, stream: str = "0") -> list[int]:
    """Sequences of the frames of a stream in a results file."""
    return [line["sequence"] for line in lines_of(file) if line["stream"] == stream and line["status"] != "end"]


def check_sentence(process: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one sentence on stderr that holds all the words."""
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    said = [line for line in process.stderr.splitlines() if line.startswith("arnis-stream: ")]
    assert len(said) == 1, process.stderr
    for word in words:
        assert word in said[0]


def segments(program_pid: int) -> list[str]:
    """Shared memory of one run; other programs of the machine may have their own."""
    return [file.name for file in Path("/dev/shm").glob(f"*-{program_pid}-*")]
