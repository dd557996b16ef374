"""`arnis-bench --peers`: `arnis-stream` and other loops over the same clip, one after the other on the same cores."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.demo import GATE_OFF, load_holds, named_share, published
from benchmarks.figures import Chart, Part, Row, Session, ratio
from benchmarks.peers import blazepose, sequential, supervised, yolo
from benchmarks.peers.loop import Job, Loop
from benchmarks.running import Run, run_program
from engine.clock import NS_PER_MS, NS_PER_S
from engine.errors import UserError
from stages.capture import DEMO
from stages.classes import models_folder

FRAMES = 300
QUICK_FRAMES = 24
WARM_UP_FRAMES = 10
LEAST_FRAMES = 2 * WARM_UP_FRAMES

Lacks = Callable[[Job], str | None]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One loop."""

    title: str
    loop: Loop
    package: str = ""
    """That it needs beside what `arnis-stream` needs."""
    lacks: Lacks = lambda job: None
    """What else is missing, as the end of a sentence."""
    sees: bool = True
    """False: its networks have random weights."""


PEERS = {
    "sequential": Peer(title="plain loop, ONNX Runtime", loop=sequential.answers),
    "ultralytics": Peer(
        title="ultralytics, 2 x YOLO11n of random weights", loop=yolo.answers, package="ultralytics", sees=False
    ),
    "mediapipe": Peer(
        title="MediaPipe pose in a loop", loop=blazepose.answers, package="mediapipe", lacks=blazepose.lacks
    ),
    "supervision": Peer(title="supervision's frames, plain loop", loop=supervised.answers, package="supervision"),
}

SAME_WORK = "arnis-stream, gate off"
OURS: dict[str, tuple[str, ...]] = {
    "arnis-stream": (),
    SAME_WORK: GATE_OFF,
    f"{SAME_WORK}, one frame in flight": (*GATE_OFF, "--set", "engine.in_flight=1"),
}
"""Ways to run our program, as fast as it goes; the second does the same work as a peer."""

WINS = f"`wins` names what a peer does better than {SAME_WORK}."
HIGHER_IS_BETTER = {"fps": True, "p50_ms": False, "p95_ms": False, "cpu_ms_per_frame": False, "memory_mb": False}


def measure(session: Session, frames: int = FRAMES, task: Path | None = None) -> Part:
    """All of them, over the first `frames` of the demo clip. Raises UserError when ours fails."""
    if task is not None and not task.is_file():
        raise UserError(f"--task {task} is no file; give the path of a PoseLandmarker .task file")
    frames = min(frames, QUICK_FRAMES) if session.quick else frames
    rows: list[Row] = []
    devices: dict[str, str] = {}
    for name, settings in OURS.items():
        session.say(f"{name}, {frames} frames")
        arguments = ["--source", DEMO, "--fast", "--max-frames", str(frames), *settings, *published()]
        run = run_program(arguments, session.folder)
        rows.append(row_of(name, run, frames))
        devices |= run.devices
    others, notes = measure_peers(session, frames, Job(clip=models_folder() / "demo.mp4", task=task))
    reference = next(row for row in rows if row["loop"] == SAME_WORK)
    for row in others:
        row["wins"] = wins(row, reference)
    return Part(
        name="peers",
        title=f"Peers on the demo clip, {frames} frames",
        rows=[*rows, *others],
        notes=[WINS, *(against(row, reference) for row in others), *notes],
        chart=Chart(("loop",), "fps"),
        devices=devices,
    )


def measure_peers(session: Session, frames: int, job: Job) -> tuple[list[Row], list[str]]:
    """A row for each peer that can be run here, and a sentence for each that can't or has random weights."""
    rows, notes = [], []
    for name, peer in PEERS.items():
        reason = missing(peer, job)
        if reason is None:
            session.say(f"{peer.title}, {frames} frames")
            task = ["--task", str(job.task)] if job.task else []
            arguments = ["--peer", name, "--clip", str(job.clip), "--frames", str(frames), *task]
            try:
                run = run_program(arguments, session.folder, "benchmarks.peers")
            except UserError as error:
                reason = str(error).partition(" failed: ")[2] or str(error)
            else:
                rows.append(row_of(peer.title, run, frames, peer.sees))
                notes += [] if peer.sees else [f"{peer.title}: they cost what trained ones do, and name nothing."]
        if reason is not None:
            notes.append(f"{name} was skipped: {reason.rstrip('.')}.")
    return rows, notes


def missing(peer: Peer, job: Job) -> str | None:
    """Why a peer can't be run here, as the end of a sentence; None when nothing is known to be missing."""
    if peer.package and find_spec(peer.package) is None:
        return f"the package {peer.package} is not installed; run `pip install '.[peers]'`"
    return peer.lacks(job)


def row_of(name: str, run: Run, frames: int, sees: bool = True) -> Row:
    """What a run gave and took. Times are those of the frames after warm-up, the same for ours and for others."""
    done = [r for r in run.results if r["latency_ms"] is not None]
    latencies_ms = [r["latency_ms"] for r in done[WARM_UP_FRAMES:]]
    p50, p95 = np.percentile(latencies_ms, [50, 95]).tolist()
    seconds = (_ready_ns(done[-1]) - _ready_ns(done[WARM_UP_FRAMES - 1])) / NS_PER_S
    holds = [hold for hold in load_holds() if hold.last_frame < frames]
    return {
        "loop": name,
        "fps": round(len(latencies_ms) / seconds, 2),
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "cpu_ms_per_frame": run.cpu_ms_per_frame,
        "memory_mb": run.peak_mb,
        "named": sum(named_share(run.results, hold) > 0.5 for hold in holds) if sees and holds else None,
        "wins": None,
    }


def wins(peer: Row, ours: Row) -> str:
    """Names of the figures in which a peer is better than we are; `-` where in none."""
    better = []
    for figure, higher in HIGHER_IS_BETTER.items():
        share = ratio(peer[figure], ours[figure], 6)
        if share is not None and (share > 1 if higher else share < 1):
            better.append(figure)
    return ", ".join(figure.removesuffix("_ms").replace("_", " ") for figure in better) or "-"


def against(peer: Row, ours: Row) -> str:
    """How much faster ours is, in a sentence."""
    frames, latency = ratio(ours["fps"], peer["fps"]), ratio(ours["p95_ms"], peer["p95_ms"])
    return f"{ours['loop']} does {frames} times the frames of {peer['loop']}, at {latency} of its p95 latency."


def _ready_ns(result: dict[str, Any]) -> float:
    return float(result["captured_at_ns"] + result["latency_ms"] * NS_PER_MS)
