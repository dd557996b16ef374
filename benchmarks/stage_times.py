"""Each stage alone: the demo clip in one process, gate computed but never closed, everything drawn and published.

Decoding and encoding go on beside the stages in the program, so they are timed in loops of their own. Runs itself as
`python -m benchmarks.stage_times`, which is `arnis-stream` that draws for nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.demo import published
from benchmarks.figures import Chart, Part, Row, Session, of_row, percentiles_ms
from benchmarks.running import run_program
from engine.clock import now_ns
from engine.config import EngineSettings
from stages.app import main
from stages.capture import DEMO, make_reader
from stages.record import RecordSettings, VideoWriter
from stages.sources import CaptureSettings
from stages.view import CANVAS_DEMAND

OPEN_GATE = ("--set", "gate.motion_threshold=0", "--set", "gate.moving_rest_s=0")
IDLE = ("record", "preview")
"""Stages that have nothing to do here."""
WARM_UP_FRAMES = EngineSettings().warm_up_frames


def measure(session: Session) -> Part:
    """Decoding and encoding by themselves, then all the stages on the same frames."""
    frames = 30 if session.quick else 600
    session.say(f"decoding and encoding {frames} frames")
    alone = {"decode (720p)": decode_times(frames), "encode (720p)": encode_times(frames, session.folder / "out.mkv")}
    rows: list[Row] = [{"stage": name, "frames": len(times), **percentiles_ms(times)} for name, times in alone.items()]
    session.say(f"all stages on {frames} frames, one after the other")
    arguments = ["--source", DEMO, "--fast", "--workers", "1", "--max-frames", str(frames), *OPEN_GATE, *published()]
    run = run_program(arguments, session.folder, "benchmarks.stage_times")
    for stage, times in run.stats["stages_ms"].items():
        if stage not in IDLE:
            percentiles = {f"{name}_ms": times[name] for name in ("p50", "p95", "p99", "max")}
            rows.append({"stage": stage, "frames": times["count"], **percentiles})
    return Part(
        name="stages",
        title="Each stage alone, on the demo clip's frames",
        rows=rows,
        chart=Chart(("stage",), "p50_ms"),
        devices=of_row("stages", run.devices),
    )


def decode_times(frames: int) -> list[int]:
    """Nanoseconds that each of the demo clip's first frames took to be decoded into a given array, after warm-up."""
    return [taken_ns for taken_ns, _ in decoded(frames)][WARM_UP_FRAMES:]


def encode_times(frames: int, path: Path) -> list[int]:
    """Nanoseconds that each of them, with nothing drawn, took to be encoded and written, after warm-up."""
    writer, durations = None, []
    for number, (_, picture) in enumerate(decoded(frames)):
        writer = writer or VideoWriter(path, RecordSettings(), picture.shape[1], picture.shape[0])
        started = now_ns()
        writer.write(picture, number / 30)
        durations.append(now_ns() - started)
    if writer is not None:
        writer.close()
    return durations[WARM_UP_FRAMES:]


def decoded(frames: int) -> Iterator[tuple[int, np.ndarray]]:
    """The demo clip's first frames, in the same array, with the nanoseconds that each took."""
    reader = make_reader(CaptureSettings(), DEMO)
    info = reader.open(0)
    slot = np.zeros((info.height, info.width, 3), np.uint8)
    for _ in range(frames):
        started = now_ns()
        if reader.read(lambda height, width: slot) is None:
            break
        yield now_ns() - started, slot
    reader.close()


if __name__ == "__main__":
    CANVAS_DEMAND.add("benchmark")
    sys.exit(main())
