"""The program as a user runs it: `arnis-stream` in a process of its own, on real files.

Where only input and output matter, a configuration without the models keeps the tests quick.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import cv2
import jsonschema
import numpy as np
import psutil
import pytest
from program_runs import ENVIRONMENT, command, frames_of, lines_of, make_clip, run, running, segments, wait_for

from stages.classes import models_folder
from stages.result import SCHEMA_FILE


def test_every_frame_of_a_file_becomes_one_valid_line(tmp_path: Path, light: Path, clip: Path) -> None:
    done = run("--config", light, "--source", clip, "--results", tmp_path / "out.jsonl", "--stats", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    assert frames_of(tmp_path / "out.jsonl") == list(range(30))
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for line in lines_of(tmp_path / "out.jsonl"):
        validator.validate(line)
    assert "30 frames, 30 results" in done.stdout
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["frames_in"] == 30
    assert stats["versions"].keys() >= {"arnis-stream", "opencv", "pyav", "python", "zeromq"}


def test_the_demo_is_recognised_by_the_whole_program(tmp_path: Path) -> None:
    results, record = tmp_path / "out.jsonl", tmp_path / "out.mkv"
    arguments = ["--fast", "--max-frames", 300, "--publish", "off", "--view", "none"]
    page = tmp_path / "session.html"
    done = run("--source", "demo", *arguments, "--results", results, "--record", record, "--report", page)
    assert done.returncode == 0, done.stderr
    lines = lines_of(results)
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for line in lines:
        validator.validate(line)
    holds = [h for h in json.loads((models_folder() / "demo.json").read_text())["holds"] if h["last_frame"] < 300]
    named = [Counter(line["pose"]["label"] for line in lines[h["first_frame"] : h["last_frame"]] if line["pose"])
             for h in holds]  # fmt: skip
    right = [hold for hold, counts in zip(holds, named, strict=True)
             if [label for label, _ in counts.most_common(1)] == [hold["label"]]]  # fmt: skip
    assert len(right) >= len(holds) / 2, (named, holds)
    assert "poses: " in done.stdout and f"report: {page}" in done.stdout
    assert any(f"<td>{hold['label'].replace('_', ' ')}</td>" in page.read_text() for hold in right)
    with av.open(str(record)) as container:
        assert len(list(container.decode(video=0))) == 300


def test_one_process_gives_the_same_results_as_many(tmp_path: Path, light: Path, clip: Path) -> None:
    for name, workers in (("one", ["--workers", "1"]), ("many", [])):
        done = run("--config", light, "--source", clip, "--results", tmp_path / name, *workers)
        assert done.returncode == 0, done.stderr
    one, many = ([(line["sequence"], line["pts"], line["status"]) for line in lines_of(tmp_path / name)]
                 for name in ("one", "many"))  # fmt: skip
    assert one == many


def test_a_recording_has_the_times_of_its_source(tmp_path: Path, light: Path, clip: Path) -> None:
    done = run("--config", light, "--source", clip, "--record", tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([i / 10 for i in range(30)], abs=2e-3)
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at what Linux' runtimes write")
def test_nothing_of_a_run_is_kept_at_home_but_its_own_cache(tmp_path: Path) -> None:
    """The runtimes would keep a number there by which they report how they are used; `CI` keeps one from it too."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    kept = {name: value for name, value in ENVIRONMENT.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    words = command("--source", "demo", "--max-frames", 20, "--publish", "off")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=kept | home)
    assert done.returncode == 0, done.stderr
    written = [file.relative_to(tmp_path).parts for file in tmp_path.rglob("*") if file.is_file()]
    assert written and {parts[:2] for parts in written} == {(".cache", "arnis-stream")}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_played_folder_may_rest_longer_on_a_picture_than_a_camera_may_be_silent(
    tmp_path: Path, light: Path, workers: int
) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((48, 64, 3), np.uint8))
    patience = ["--set", "engine.silent_s=2", "--set", "engine.heartbeat_s=0.2", "--set", "capture.fps=0.3"]
    done = run("--config", light, "--source", tmp_path, "--realtime", "--workers", workers, *patience)
    assert done.returncode == 0, done.stderr
    assert "2 frames, 2 results" in done.stdout and "restarts" not in done.stdout


def test_of_two_sources_one_may_end_early(tmp_path: Path, light: Path, clip: Path) -> None:
    short = make_clip(tmp_path / "short.mkv", frames=5)
    results, record = tmp_path / "out.jsonl", tmp_path / "out.mkv"
    done = run("--config", light, "--source", clip, "--source", short, "--results", results, "--record", record)
    assert done.returncode == 0, done.stderr
    assert frames_of(results, "0") == list(range(30))
    assert frames_of(results, "1") == list(range(5))
    assert (tmp_path / "out-0.mkv").exists() and (tmp_path / "out-1.mkv").exists()


def test_a_truncated_video_gives_the_frames_it_has_and_says_so(tmp_path: Path, light: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", frames=60)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = run("--config", light, "--source", cut, "--results", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert 5 < len(frames_of(tmp_path / "out.jsonl")) < 60
    assert "cut.mkv" in done.stderr


def test_results_can_be_piped(light: Path, clip: Path) -> None:
    done = run("--config", light, "--source", clip, "--results", "-")
    assert [json.loads(line)["sequence"] for line in done.stdout.splitlines()][:30] == list(range(30))
    assert "30 frames" in done.stderr


def test_a_number_of_frames_can_be_asked_for(tmp_path: Path, light: Path, clip: Path) -> None:
    run("--config", light, "--source", clip, "--max-frames", 7, "--results", tmp_path / "out.jsonl")
    assert frames_of(tmp_path / "out.jsonl") == list(range(7))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has loaded")
def test_ctrl_c_while_it_still_loads_is_no_traceback() -> None:
    process = subprocess.Popen(
        command("--source", "demo", "--view", "none", "--publish", "off"), env=ENVIRONMENT, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )  # fmt: skip
    while process.poll() is None and "numpy" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert "Traceback" not in errors
    assert process.returncode in (0, 130)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT for one process on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order(tmp_path: Path, light: Path, number: signal.Signals) -> None:
    clip = make_clip(tmp_path / "long.mkv", frames=600)
    results, record = tmp_path / "out.jsonl", tmp_path / "out.mkv"
    files = ["--results", results, "--record", record]
    with running("--config", light, "--source", clip, "--realtime", *files) as program:
        wait_for(lambda: results.exists() and len(frames_of(results)) > 10)
        children = psutil.Process(program.pid).children(recursive=True)
        assert segments(program.pid) or sys.platform == "darwin"
        program.send_signal(number)
        out, err = program.communicate(timeout=30)
    assert (program.returncode, "Traceback" in err) == (0, False), err
    assert "frames" in out.splitlines()[-2] + out.splitlines()[-1]
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert not segments(program.pid)
    assert frames_of(results) == list(range(len(frames_of(results))))
    with av.open(str(record)) as container:
        assert len(list(container.decode(video=0))) > 10


@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl-C to a group as a terminal does")
@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.2])
def test_ctrl_c_while_the_workers_start_is_quiet(after_s: float, light: Path, clip: Path) -> None:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command("--config", light, "--source", clip), text=True, env=ENVIRONMENT, **pipes) as program:
        wait_for(lambda: psutil.Process(program.pid).children())
        time.sleep(after_s)
        os.killpg(program.pid, signal.SIGINT)
        _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (0, "")


def test_a_single_picture_is_a_folder_of_one(tmp_path: Path, light: Path) -> None:
    picture, results = tmp_path / "a.png", tmp_path / "out.jsonl"
    cv2.imwrite(str(picture), np.full((48, 64, 3), 90, np.uint8))
    assert run("--config", light, "--source", picture, "--results", results).returncode == 0
    assert [(line["status"], line["picture"]) for line in lines_of(results)][0][1] == "a.png"
