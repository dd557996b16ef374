"""The whole program on the demo clip: in real time, as fast as it goes, with one to eight streams, and against the
same networks called back to back in one bare process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks.bare import Bare, measure_bare
from benchmarks.clips import at_twice_the_rate, every_third_frame
from benchmarks.demo import GATE_OFF, load_truth, named_holds, published
from benchmarks.figures import Chart, Part, Row, Session, of_row, ratio
from benchmarks.running import Run, run_program
from engine.config import EngineSettings
from stages.capture import DEMO
from stages.gate import MOVING, STILL
from stages.runtime import usable_cores

STREAMS = (1, 2, 4, 8)
STREAMS_S = 20
WARM_UP_FRAMES = EngineSettings().warm_up_frames
LIVE, SAME_WORK = "30 fps", "fast, gate off"
"""The rows of which most is said: as in use, and with the work of the bare networks."""


class Way(msgspec.Struct, frozen=True):
    """One way to run the program."""

    name: str
    arguments: tuple[str, ...]
    clip: str = DEMO


def ways(folder: Path) -> list[Way]:
    """All of them, with what they need in `folder`."""
    twice = str(at_twice_the_rate(folder / "twice.mkv"))
    record = ("--record", str(folder / "record.mkv"))
    return [
        Way(LIVE, ("--realtime",)),
        Way("30 fps, gate off", ("--realtime", *GATE_OFF)),
        Way("60 fps", ("--realtime",), twice),
        Way("fast", ("--fast",)),
        Way(SAME_WORK, ("--fast", *GATE_OFF)),
        Way("fast, gate off, recording", ("--fast", *GATE_OFF, *record)),
        Way("fast, gate off, one process", ("--fast", *GATE_OFF, "--workers", "1")),
    ]


def measure(session: Session) -> Part:
    """Every way, then the networks alone, then several streams."""
    chosen = ways(session.folder)
    limit = ["--max-frames", "60"] if session.quick else []
    rows: list[Row] = []
    devices: dict[str, str] = {}
    for way in [chosen[0], chosen[4]] if session.quick else chosen:
        session.say(f"the program, {way.name}")
        run = run_program(["--source", way.clip, *way.arguments, *limit, *published()], session.folder)
        devices |= of_row(way.name, run.devices) if way.name in (LIVE, SAME_WORK) else {}
        rows.append(program_row(way.name, run))
    session.say("the networks alone")
    bare = measure_bare(60 if session.quick else load_truth().frames, sorted({1, usable_cores()}))
    fastest = max(bare, key=lambda figures: figures.fps)
    for figures in bare:
        rows.append(bare_row(figures))
        devices |= of_row(str(rows[-1]["way"]), figures.devices)
    rows += [] if session.quick else _streams(session)
    for row in rows:
        row["of_bare"] = ratio(row["fps"], fastest.fps) if str(row["way"]).startswith("fast") else None
    return Part(
        name="program",
        title="The whole program, publishing, no window; poses are named of 12",
        rows=rows,
        notes=[bare_note(fastest)],
        chart=Chart(("way",), "fps"),
        devices=devices,
    )


def program_row(name: str, run: Run) -> Row:
    """What a run gave and took. `cpu_ms_per_frame` is that of all processes, after the start."""
    latency = run.stats["latency_ms"] or {}
    return {
        "way": name,
        "fps": run.stats["fps_out"],
        **{f"{key}_ms": latency.get(key) for key in ("p50", "p95", "p99", "max")},
        "skipped_p50_ms": median_latency_ms(run, skipped=True),
        "detected_p50_ms": median_latency_ms(run, skipped=False),
        "dropped": sum(run.stats["dropped"].values()),
        "named": named_holds(run.results) if run.frames >= load_truth().frames else None,
        "cpu_ms_per_frame": run.cpu_ms_per_frame,
        "memory_mb": run.peak_mb,
        "first_result_s": run.first_result_s,
        "slowest_stream": None,
    }


def bare_row(bare: Bare) -> Row:
    """The networks alone, in the same columns."""
    name = f"networks alone, threads {bare.threads}"
    return {"way": name, "fps": bare.fps, "cpu_ms_per_frame": bare.cpu_ms_per_frame}


def bare_note(bare: Bare) -> str:
    """What an average frame asks of the networks."""
    calls = (f"{model} {count} x {bare.ms_per_call[model]} ms" for model, count in bare.calls_per_frame.items())
    return f"Networks alone, threads {bare.threads}, an average frame: {', '.join(calls)}."


def median_latency_ms(run: Run, skipped: bool) -> float | None:
    """From capture to the result being ready, of the frames that the gate kept from the networks, or of the others.

    The former is our own share alone, as long as they don't have to wait for one that the networks still look at.
    """
    done = [r for r in run.results if r["latency_ms"] is not None and r["sequence"] >= WARM_UP_FRAMES]
    times = [r["latency_ms"] for r in done if _is_skipped(r) == skipped]
    return round(median(times), 2) if times else None


def _is_skipped(result: Mapping[str, Any]) -> bool:
    """Whether the gate kept a frame from the networks; where it repeats a doubt, its reason is that of the doubt."""
    repeated = result["status"] == "unsure" and result["person"] is not None and result["person"]["age_frames"] > 0
    return repeated or result["reason"] in (STILL, MOVING)


def slowest_share(run: Run) -> float | None:
    """Results of the stream that got fewest, as a share of the mean of all streams."""
    done = Counter(r["stream"] for r in run.results if r["status"] not in ("dropped", "end", "source_lost"))
    counts = [done[stream] for stream in run.stats["streams"]]
    return ratio(min(counts, default=0), sum(counts) / len(counts)) if counts else None


def _streams(session: Session) -> list[Row]:
    """Several streams of 10 frames a second at once."""
    clip = str(every_third_frame(session.folder / "third.mkv"))
    rows = []
    for count in STREAMS:
        session.say(f"{count} stream{'s' if count > 1 else ''} of 10 fps for {STREAMS_S} s")
        sources = [argument for _ in range(count) for argument in ("--source", clip)]
        run = run_program([*sources, "--realtime", "--duration", str(STREAMS_S), *published()], session.folder)
        row = program_row(f"{count} x 10 fps", run)
        rows.append({**row, "named": None, "slowest_stream": slowest_share(run)})
    return rows
