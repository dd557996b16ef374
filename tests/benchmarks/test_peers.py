"""`arnis-bench --peers`: what needs no further package is really run, on few frames; the rest is told of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from benchmarks.demo import load_holds, named_in
from benchmarks.figures import Row
from benchmarks.peers import blazepose, sequential
from benchmarks.peers.__main__ import write
from benchmarks.peers.compare import OURS, PEERS, WARM_UP_FRAMES, Peer, missing, row_of, wins
from benchmarks.peers.loop import Answer, Job, frames_of
from benchmarks.running import Run, environment
from engine.clock import NS_PER_MS
from stages.classes import models_folder

JOB = Job(clip=models_folder() / "demo.mp4")


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, env=environment())


def test_the_plain_loop_names_the_pose_that_is_held() -> None:
    labels = [answer.label for answer in sequential.over(islice(frames_of(JOB.clip), 95, 110))]
    assert len(labels) == 15
    assert labels.count("crown_thrust") > 10


def test_ours_and_the_plain_loop_stand_in_one_table_and_who_is_missing_is_told(tmp_path: Path) -> None:
    done = bench("--peers", "--quick", "--out-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*-peers-quick.json")
    (part,) = msgspec.json.decode(file.read_bytes())["parts"]
    rows = {row["loop"]: row for row in part["rows"]}
    assert {*OURS, PEERS["sequential"].title} <= set(rows)
    assert all(row["fps"] > 0 and 0 < row["p50_ms"] <= row["p95_ms"] for row in rows.values())
    assert all(row["wins"] for name, row in rows.items() if name not in OURS)
    for name in ("ultralytics", "mediapipe", "supervision"):
        if find_spec(name) is None:
            (note,) = [note for note in part["notes"] if note.startswith(f"{name} was skipped: ")]
            assert note.endswith("not installed; run `pip install '.[peers]'`.")


def test_a_peer_is_missing_only_when_its_package_is() -> None:
    peer = Peer(title="A loop", loop=sequential.answers, package="no_such_package")
    assert "no_such_package is not installed" in (missing(peer, JOB) or "")
    assert missing(PEERS["sequential"], JOB) is None


def test_mediapipe_without_a_model_asks_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mediapipe"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "--task" in (blazepose.lacks(JOB) or "")
    assert blazepose.lacks(Job(clip=JOB.clip, task=tmp_path / "pose.task")) is None
    model = package / "modules" / "pose_landmark" / "pose_landmark_full.tflite"
    model.parent.mkdir(parents=True)
    model.touch()
    assert blazepose.lacks(JOB) is None


def test_warm_up_is_left_out_of_the_figures() -> None:
    lines, at_ns = [], 0
    for i in range(WARM_UP_FRAMES + 20):
        took_ms = 500.0 if i < WARM_UP_FRAMES else 5.0
        lines.append({"sequence": i, "captured_at_ns": at_ns, "latency_ms": took_ms})
        at_ns += int((took_ms + 5.0) * NS_PER_MS)
    row = row_of("a loop", Run(stats={"frames_in": 20}, results=lines), len(lines))
    assert row["p50_ms"] == row["p95_ms"] == 5.0
    assert row["fps"] == 100.0


def test_results_are_held_back_until_warm_up_is_over(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    sizes: list[int] = []

    def answers() -> Iterator[Answer]:
        for i in range(WARM_UP_FRAMES + 3):
            sizes.append(path.stat().st_size)
            yield Answer(i, None)

    assert write(answers(), path) == WARM_UP_FRAMES + 3
    assert not any(sizes[:WARM_UP_FRAMES]) and sizes[WARM_UP_FRAMES] > 0
    assert [msgspec.json.decode(line)["sequence"] for line in path.read_bytes().splitlines()] == [*range(len(sizes))]


def test_a_frame_that_a_peer_is_unsure_of_names_nothing(tmp_path: Path) -> None:
    path, hold = tmp_path / "results.jsonl", load_holds()[0]
    write(iter([Answer(i, hold.label if i % 2 else None) for i in range(hold.last_frame + 1)]), path)
    named = named_in([msgspec.json.decode(line) for line in path.read_bytes().splitlines()], hold)
    assert set(named) == {hold.label, ""}


def test_the_table_says_where_a_peer_wins() -> None:
    figures = ("fps", "p50_ms", "p95_ms", "cpu_ms_per_frame", "memory_mb")
    ours: Row = dict(zip(figures, (40.0, 60.0, 70.0, 40.0, 500.0), strict=True))
    peer: Row = dict(zip(figures, (20.0, 50.0, 75.0, 60.0, 300.0), strict=True))
    assert wins(peer, ours) == "p50, memory mb"
    assert wins({**peer, "p50_ms": 90.0, "memory_mb": None}, ours) == "-"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["hop"], "by themselves"), (["--frames", "3"], "--frames"), (["--task", os.curdir], ". is no file")],
)
def test_a_mistake_gets_one_sentence(arguments: list[str], word: str) -> None:
    done = bench("--peers", *arguments)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("arnis-bench: ") and word in last
