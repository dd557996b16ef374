"""Each stage alone: the demo clip in one process, gate computed but never closed, everything drawn and recorded."""

from __future__ import annotations

import numpy as np

from benchmarks.figures import Chart, Part, Row, Session, percentiles_ms
from benchmarks.running import run_program
from engine.clock import now_ns
from stages.capture import DEMO, make_reader
from stages.sources import CaptureSettings

OPEN_GATE = ("--set", "gate.motion_threshold=0", "--set", "gate.moving_rest_s=0")


def measure(session: Session) -> Part:
    """Decoding by itself, then all the stages on the same frames."""
    frames = 30 if session.quick else 600
    session.say(f"decoding {frames} frames")
    rows: list[Row] = [{"stage": "decode (720p)", "frames": frames, **percentiles_ms(decode_times(frames))}]
    session.say(f"all stages on {frames} frames, one after the other")
    drawn = ["--record", str(session.folder / "stages.mkv")]
    alone = ["--fast", "--workers", "1", "--max-frames", str(frames), "--view", "none", "--publish", "off"]
    run = run_program(["--source", DEMO, *alone, *OPEN_GATE, *drawn], session.folder)
    for stage, times in run.stats["stages_ms"].items():
        percentiles = {f"{name}_ms": times[name] for name in ("p50", "p95", "p99", "max")}
        rows.append({"stage": stage, "frames": times["count"], **percentiles})
    return Part(
        name="stages",
        title="Each stage alone, on the demo clip's frames",
        rows=rows,
        chart=Chart(("stage",), "p50_ms"),
        devices=run.devices,
    )


def decode_times(frames: int) -> list[int]:
    """Nanoseconds that each of the demo clip's first frames took to be decoded into a given array."""
    reader = make_reader(CaptureSettings(), DEMO)
    info = reader.open(0)
    slot = np.zeros((info.height, info.width, 3), np.uint8)
    durations = []
    for _ in range(frames):
        started = now_ns()
        if reader.read(lambda height, width: slot) is None:
            break
        durations.append(now_ns() - started)
    reader.close()
    return durations
