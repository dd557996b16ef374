"""The shipped models name what the person in the shipped demo clip does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo import QUIET, load_holds, named_share
from benchmarks.running import run_program

Run = tuple[dict[str, Any], list[dict[str, Any]]]

SAME_NETWORKS = ("--fast", "--set", "detect.backend=onnxruntime", "--set", "classify.backend=onnxruntime")
"""The faster runtime is found anew while the machine is busy, and the two differ in the last digits."""


def run_demo(folder: Path, *arguments: str) -> Run:
    """Statistics of a run on the demo clip, and its results in order."""
    run = run_program(["--source", "demo", *QUIET, *SAME_NETWORKS, *arguments], folder)
    return run.stats, run.results


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_demo(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_demo(tmp_path_factory.mktemp("one"), "--workers", "1")


def test_at_least_ten_of_the_twelve_poses_are_named_most_of_their_hold(processes: Run) -> None:
    shares = {hold.label: round(named_share(processes[1], hold), 2) for hold in load_holds()}
    assert sum(share > 0.5 for share in shares.values()) >= 10, shares


def test_every_frame_gets_one_result_and_none_is_dropped(processes: Run) -> None:
    stats, results = processes
    frames = [result for result in results if result["status"] != "end"]
    assert [result["sequence"] for result in frames] == list(range(stats["frames_in"]))
    assert not stats["dropped"] and results[-1]["status"] == "end"


def test_one_process_names_the_same_poses(processes: Run, one_process: Run) -> None:
    labels = [[r["pose"] and r["pose"]["label"] for r in results] for results in (processes[1], one_process[1])]
    same = sum(a == b for a, b in zip(*labels, strict=True))
    assert same == len(labels[0])
