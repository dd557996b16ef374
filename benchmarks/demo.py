"""The whole program on the demo clip: `python -m benchmarks.demo [--runs n]` prints a Markdown table for this machine.

Three ways of running it: at the clip's own 30 fps, as fast as it goes, and as fast as it goes in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from stages.classes import models_folder

WAYS = {"30 fps": ["--realtime"], "fast": ["--fast"], "fast, one process": ["--fast", "--workers", "1"]}


class Hold(msgspec.Struct, frozen=True):
    """One pose of the demo clip; frames count from 0, both ends belong to the hold."""

    label: str
    first_frame: int
    last_frame: int


class DemoTruth(msgspec.Struct, frozen=True):
    """What the person in the demo clip does, as the clip's renderer wrote it down."""

    holds: list[Hold]


def load_holds() -> list[Hold]:
    """The twelve held poses of the demo clip, without the neutral ones."""
    truth = msgspec.json.decode((models_folder() / "demo.json").read_bytes(), type=DemoTruth)
    return [hold for hold in truth.holds if hold.label != "neutral"]


def named_share(results: list[dict[str, Any]], hold: Hold) -> float:
    """Share of a hold's frames whose result is the right pose, accepted (`ok` or `held`)."""
    frames = [r for r in results if hold.first_frame <= r["sequence"] <= hold.last_frame and r["status"] != "end"]
    right = [r for r in frames if r["status"] in ("ok", "held") and r["pose"]["label"] == hold.label]
    return len(right) / (hold.last_frame - hold.first_frame + 1)


def run_demo(arguments: list[str], folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run `arnis-stream` on the demo clip; returns its statistics and its results in order."""
    stats, results = folder / "stats.json", folder / "results.jsonl"
    command = [sys.executable, "-m", "stages.app", "--source", "demo", "--view", "none", "--publish", "off"]
    command += ["--stats", str(stats), "--results", str(results), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(stats.read_text()), [json.loads(line) for line in results.read_text().splitlines()]


def measure(arguments: list[str], runs: int) -> dict[str, float]:
    """Medians over runs: results per second, latency percentiles, dropped frames, poses named most of their hold."""
    rows = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            stats, results = run_demo(arguments, Path(folder))
        named = sum(named_share(results, hold) > 0.5 for hold in load_holds())
        latency = stats["latency_ms"]
        dropped = sum(stats["dropped"].values())
        rows.append((stats["fps_out"], latency["p50"], latency["p95"], dropped, named))
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    return dict(zip(("fps", "p50_ms", "p95_ms", "dropped", "named"), medians, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3, help="runs of each way; the table shows medians (default 3)")
    runs = parser.parse_args().runs
    print("| way | FPS | latency p50 ms | p95 ms | dropped | poses named |\n|---|---|---|---|---|---|")
    for way, arguments in WAYS.items():
        row = measure(arguments, runs)
        print(f"| {way} | {row['fps']:.1f} | {row['p50_ms']:.1f} | {row['p95_ms']:.1f} | {row['dropped']:.0f} ", end="")
        print(f"| {row['named']:.0f} of {len(load_holds())} |", flush=True)


if __name__ == "__main__":
    main()
