"""Overload: a source twice as fast as the pipeline, under both policies. Frames may get lost, but they must not age,
and memory must not grow. The engine's real processes and links, with a stage that sleeps in place of networks.

Runs itself as `python -m benchmarks.overload`, so that the processes can be looked at from outside.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import msgspec

from benchmarks.figures import Chart, Part, Row, Session
from benchmarks.running import Run, run_program
from engine.config import load_config
from engine.run import run_pipeline

FPS = 50.0
SERVICE_MS = 40.0
BOUND_MS = SERVICE_MS + 1000 / FPS
"""One service time and one frame period: a frame that came just after another was taken waits for all of it."""
_TELLING_S = 20

PIPELINE = f"""
[engine]
packet = "engine.packet:Packet"
source = "benchmarks.overload_parts:Ticker"

[ticker]
fps = {FPS}

[sleeper]
service_ms = {SERVICE_MS}

[[worker]]
name = "slow"
stages = ["benchmarks.overload_parts:Sleeper"]

[[worker]]
name = "sink"
stages = ["benchmarks.overload_parts:Sink"]
"""


def measure(session: Session) -> Part:
    """Both policies, one after the other."""
    duration_s = 600 if session.long else 3 if session.quick else 30
    config = session.folder / "overload.toml"
    config.write_text(PIPELINE)
    rows = []
    for policy, live in (("latest", "true"), ("every", "false")):
        session.say(f"policy {policy} for {duration_s} s")
        settings = ["--set", f"engine.policy={policy}", "--set", f"ticker.live={live}"]
        arguments = ["--config", str(config), "--duration", str(duration_s), *settings]
        run = run_program(arguments, session.folder, "benchmarks.overload")
        rows.append({"policy": policy, **overload_row(run)})
    return Part(
        name="overload",
        title=f"Source at {FPS:.0f} frames a second, stage of {SERVICE_MS:.0f} ms, 720p, {duration_s} s",
        rows=rows,
        notes=[f"Bound of the age under `latest`: {BOUND_MS:.0f} ms (one service time and one frame period)."],
        chart=Chart(("policy",), "age_p99_ms"),
    )


def overload_row(run: Run) -> Row:
    """Rates, ages of what came out, losses, and how memory went on."""
    age = run.stats["latency_ms"]
    return {
        "fps_out": run.stats["fps_out"],
        "frames": run.frames,
        "replaced": run.stats["dropped"].get("replaced", 0),
        "lost_otherwise": sum(n for reason, n in run.stats["dropped"].items() if reason != "replaced"),
        "age_p50_ms": age["p50"],
        "age_p95_ms": age["p95"],
        "age_p99_ms": age["p99"],
        "age_max_ms": age["max"],
        "memory_mb": run.peak_mb,
        "memory_growth_mb": memory_growth_mb(run),
    }


def memory_growth_mb(run: Run) -> float | None:
    """Median memory of the last quarter of a run less that of its second quarter; None of a run of seconds, in which
    the start shows, and where memory can't be read."""
    values = [memory_mb for _, memory_mb in run.memory]
    quarter = len(values) // 4
    if run.stats["duration_s"] < _TELLING_S or not quarter:
        return None
    return round(statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter]), 1)


def main() -> int:
    """Run the pipeline of a configuration and write its statistics."""
    parser = argparse.ArgumentParser()
    for name in ("--config", "--stats", "--results"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--duration", type=float, required=True)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    summary = run_pipeline(load_config(options.config, None, options.set), ["ticker"], duration_s=options.duration)
    options.stats.write_bytes(msgspec.json.encode(summary.stats))
    if summary.error:
        sys.stderr.write(f"{summary.error}\n")
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
