"""`arnis-bench` as a user runs it: real parts, short; no test says how fast anything must be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.app import PARTS
from benchmarks.hop import WAYS
from benchmarks.running import environment
from engine.config import EngineSettings


def bench(*arguments: object, timeout_s: float = 170) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment())


def report_of(folder: Path) -> dict[str, Any]:
    """The only report in a folder, which also has its table and its chart."""
    (file,) = folder.glob("*.json")
    assert file.with_suffix(".md").read_text().startswith("# ")
    ElementTree.fromstring(file.with_suffix(".svg").read_text())
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def check_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one sentence that holds all the words."""
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("arnis-bench: ")
    assert not [word for word in words if word not in last], last


def test_a_hop_is_measured_every_way_and_reported(tmp_path: Path) -> None:
    done = bench("hop", "--quick", "--out-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path)
    (part,) = report["parts"]
    assert {row["way"] for row in part["rows"]} == set(WAYS)
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"] for row in part["rows"])
    assert report["quick"] and report["machine"]["cores"] >= 1
    assert "our ring" in done.stdout


def test_the_program_and_the_networks_alone_are_compared(tmp_path: Path) -> None:
    done = bench("program", "--quick", "--out-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path)
    rows = {row["way"]: row for row in report["parts"][0]["rows"]}
    fast = rows["fast, gate off"]
    assert fast["dropped"] == 0 and fast["fps"] > 0 and fast["of_bare"] > 0
    assert fast["first_result_s"] > 0
    if sys.platform == "linux":
        assert fast["memory_mb"] > 50 and fast["cpu_ms_per_frame"] > 0
    devices = report["machine"]["devices"]
    assert devices["30 fps, geopose"] and devices["fast, gate off, geopose"]
    assert "1 thread," in devices["networks alone, threads 1, movenet_lightning"]
    assert rows["networks alone, threads 1"].keys() == {"way", "fps", "cpu_ms_per_frame", "of_bare"}


def test_every_stage_that_has_something_to_do_is_timed(tmp_path: Path) -> None:
    done = bench("stages", "--quick", "--out-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["stage"]: row for row in report_of(tmp_path)["parts"][0]["rows"]}
    assert {row["frames"] for row in rows.values()} == {30 - EngineSettings().warm_up_frames}
    assert {"decode (720p)", "encode (720p)", "detect", "publish", "overlay"} <= rows.keys()
    assert not {"record", "preview"} & rows.keys()
    assert rows["overlay"]["p50_ms"] > 5 * rows["stand_in"]["p50_ms"], "what is not drawn takes no time"


def test_overload_drops_under_latest_and_loses_nothing_under_every(tmp_path: Path) -> None:
    done = bench("overload", "--quick", "--out-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    latest, every = report_of(tmp_path)["parts"][0]["rows"]
    assert latest["replaced"] > 0
    assert every["replaced"] == 0


def spawned_by(pid: int) -> list[psutil.Process]:
    """A process's descendants, once `multiprocessing` has spawned one of them and that has begun to work."""
    children = psutil.Process(pid).children(recursive=True)
    try:
        at_work = any("spawn_main" in str(child.cmdline()) and child.num_threads() > 1 for child in children)
        return children if at_work else []
    except psutil.Error:  # it has just ended
        return []


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A path that leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        yield Path(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals as a terminal and a service do")
@pytest.mark.parametrize(
    ("part", "number", "whole_group"), [("overload", signal.SIGTERM, False), ("hop", signal.SIGINT, True)]
)
def test_what_is_stopped_leaves_no_process_no_file_and_no_traceback(
    tmp_path: Path, short_folder: Path, part: str, number: signal.Signals, whole_group: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.app", part, "--out-dir", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {"TMPDIR": str(short_folder)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    ) as program:
        until = time.monotonic() + 60
        while not (children := spawned_by(program.pid)) and time.monotonic() < until:
            time.sleep(0.02)
        (os.killpg if whole_group else os.kill)(program.pid, number)
        _, said = program.communicate(timeout=60)
    assert program.returncode == 130 and "Traceback" not in said, said
    assert not psutil.wait_procs(children, timeout=20)[1] and not list(short_folder.iterdir())


def test_devices_are_tried_with_every_shipped_model() -> None:
    done = bench("--devices")
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| cpu | onnxruntime | CPU")]
    assert {line[4].strip() for line in lines} == {"yes"}
    assert len(lines) >= 3


def test_the_list_names_every_part() -> None:
    done = bench("--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [*PARTS, "latency"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hopp"], ("hopp", "did you mean hop")),
        (["--devices", "hop"], ("by themselves",)),
        (["--list", "hop"], ("by themselves",)),
        (["--list", "--quick"], ("--quick", "for list")),
        (["--tune", "--out", "nowhere/tuned.toml"], ("--out", "folder")),
        (["--tune", "--loss", "-1"], ("--loss", "0 or more")),
        (["--tune", "--out", "/proc/tuned.toml"], ("--out", "choose another place")),
        (["--peers", "--frames", "5000"], ("--frames", "from 20 to 1,065")),
        (["overload", "--quick", "--long"], ("not allowed",)),
        (["hop", "--long"], ("--long", "overload")),
        (["--peers", "--loss", "1"], ("--loss", "for tune")),
        (["--devices", "--out-dir", "x"], ("--out-dir", "for devices")),
    ],
)
def test_a_mistake_gets_one_sentence(arguments: list[str], words: tuple[str, ...]) -> None:
    check_sentence(bench(*arguments), *words)


def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured() -> None:
    done = bench("hop", "--quick", "--out-dir", "/proc/nowhere")
    check_sentence(done, "--out-dir", "choose another place")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there is always a display here")
def test_glass_to_glass_says_what_it_needs() -> None:
    check_sentence(bench("latency"), "display", "camera")
