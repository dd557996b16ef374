"""What the program writes: nothing of an earlier or another run is lost, and one that fails costs no other."""

from __future__ import annotations

import array
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import pytest
from program_runs import (
    ENVIRONMENT,
    check_sentence,
    command,
    frames_of,
    lines_of,
    make_clip,
    run,
    running,
    wait_for,
    write_config,
)

if sys.platform != "win32":
    import fcntl
    import termios


def test_an_mp4_that_cannot_be_made_is_named_with_what_is_there_instead(
    tmp_path: Path, light: Path, clip: Path
) -> None:
    (tmp_path / ".out.mp4.part").mkdir()  # in the way, as a full disk would be
    done = run("--config", light, "--source", clip, "--record", tmp_path / "out.mp4")
    left = tmp_path / "out.recording.mkv"
    assert done.returncode == 1 and f"recorded: {left} 30 frames" in done.stdout
    assert done.stderr.count("cannot make") == 1 and f"the recording is in {left}" in done.stderr
    with av.open(str(left)) as container:
        assert len(list(container.decode(video=0))) == 30


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_a_killed_writer_loses_no_line_and_no_recording(tmp_path: Path, light: Path) -> None:
    clip = make_clip(tmp_path / "long.mkv", frames=120)
    results, record = tmp_path / "out.jsonl", tmp_path / "out.mkv"
    speed = ["--set", "capture.realtime=true", "--set", "engine.policy=every"]
    with running("--config", light, "--source", clip, *speed, "--results", results, "--record", record) as program:
        wait_for(lambda: results.exists() and len(frames_of(results)) > 30)
        writer = next(child for child in psutil.Process(program.pid).children(recursive=True)
                      if any(file.path == str(results) for file in child.open_files()))  # fmt: skip
        writer.kill()
        out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    assert frames_of(results) == list(range(120))
    assert f"recorded: {record} kept" in out
    for part in ("out.mkv", "out.1.mkv"):
        with av.open(str(tmp_path / part)) as container:
            assert len(list(container.decode(video=0))) > 5


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_in_mid_run_costs_neither_recording_nor_account(tmp_path: Path, light: Path, workers: int) -> None:
    pictures, record, stats = tmp_path / "pictures", tmp_path / "out.mp4", tmp_path / "stats.json"
    pictures.mkdir()
    for number in range(20):
        cv2.imwrite(str(pictures / f"{number}.png"), np.full((48, 64, 3), 10 * number, np.uint8))
    cv2.imwrite(str(pictures / "20.png"), np.zeros((1, 20_000, 3), np.uint8))
    done = run("--config", light, "--source", pictures, "--record", record, "--stats", stats, "--workers", workers)
    check_sentence(done, "20000x1")
    assert f"recorded: {record}" in done.stdout
    assert json.loads(stats.read_text())["frames_in"] > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.mp4", "pictures", "stats.json"]
    with av.open(str(record)) as container:
        assert list(container.decode(video=0))


@pytest.mark.parametrize(
    ("flag", "name", "words"),
    [
        ("--results", "missing/out.jsonl", ("results.path", "no folder")),
        ("--results", ".", ("results.path", "is a folder")),
        ("--report", ".", ("results.report", "is a folder")),
        ("--record", ".", ("record.path", "is a folder")),
        ("--record", "missing/out.mkv", ("record.path", "no folder")),
        ("--record", "out.avi", ("record.path", ".mkv or .mp4")),
        ("--stats", "missing/stats.json", ("--stats", "no folder")),
        ("--report", "missing/page.html", ("results.report", "no folder")),
    ],
)
def test_an_output_that_cannot_be_written_is_named(
    tmp_path: Path, light: Path, clip: Path, flag: str, name: str, words: tuple[str, ...]
) -> None:
    # A lone point stands for the folder that one is in, and has no name of its own.
    path = name if name == "." else tmp_path / name
    check_sentence(run("--config", light, "--source", clip, flag, path), *words)


def test_statistics_of_an_earlier_run_are_kept(tmp_path: Path, light: Path, clip: Path) -> None:
    stats = tmp_path / "s.json"
    stats.write_text("yesterday")
    done = run("--config", light, "--source", clip, "--stats", stats)
    assert done.returncode == 0 and "s.json of an earlier run is now called s.earlier-1.json" in done.stderr
    assert json.loads(stats.read_text())["frames_in"] and (tmp_path / "s.earlier-1.json").read_text() == "yesterday"


def test_a_report_without_a_file_of_results_is_refused(tmp_path: Path, light: Path, clip: Path) -> None:
    words = ["--config", light, "--source", clip, "--report", tmp_path / "page.html", "--results"]
    check_sentence(run(*words, "-"), "results.report", "give --results a file")
    check_sentence(run(*words, os.devnull), "results.report", os.devnull)


@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl-C as a terminal does")
def test_a_run_without_results_makes_no_page_of_an_earlier_ones(tmp_path: Path, light: Path, clip: Path) -> None:
    page, results = tmp_path / "s.html", tmp_path / "s.jsonl"
    page.write_text("yesterday")
    results.write_text('{"stream": "0", "pts": 0.0, "status": "no_person"}\n')
    words = ["--config", light, "--source", clip, "--report", page]
    with running(*words) as program:
        wait_for(lambda: psutil.Process(program.pid).children())
        program.send_signal(signal.SIGINT)  # while the workers start
        out, _ = program.communicate(timeout=30)
    assert "0 frames, 0 results" in out and "report:" not in out
    assert page.read_text() == "yesterday"
    again = run(*words)
    assert again.returncode == 0 and "s.html of an earlier run is now called s.earlier-1.html" in again.stderr
    assert len(lines_of(results)) > 1 and "yesterday" not in page.read_text()
    assert (tmp_path / "s.earlier-1.html").read_text() == "yesterday"
    assert len(lines_of(tmp_path / "s.earlier-1.jsonl")) == 1


@pytest.mark.parametrize("flag", ["--results", "--record", "--stats", "--report"])
def test_a_source_is_never_overwritten(tmp_path: Path, light: Path, clip: Path, flag: str) -> None:
    source = Path(shutil.copy(clip, tmp_path / "lesson.mkv"))
    check_sentence(run("--config", light, "--source", source, flag, source), "lesson.mkv", "the source")
    check_sentence(run("--config", light, "--source", source.as_uri(), flag, source), "lesson.mkv", "the source")
    assert source.read_bytes() == clip.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="kills as Linux does where memory ends")
def test_an_mp4_is_made_though_the_program_itself_was_killed(tmp_path: Path, light: Path) -> None:
    raw, movie = tmp_path / "o.recording.mkv", tmp_path / "o.mp4"
    with running("--config", light, "--source", "demo", "--publish", "off", "--record", movie) as program:
        wait_for(lambda: raw.exists() and raw.stat().st_size > 50_000)
        program.kill()
        wait_for(movie.exists)
    wait_for(lambda: not raw.exists())
    with av.open(str(movie)) as container:
        assert len(list(container.decode(video=0))) > 10


@pytest.mark.skipif(sys.platform == "win32", reason="files are locked otherwise there")
def test_a_second_program_of_the_same_outputs_leaves_the_first_ones_alone(tmp_path: Path, light: Path) -> None:
    words = ["--config", light, "--source", "demo", "--publish", "off", "--report", tmp_path / "s.html", "--record"]
    with running(*words, tmp_path / "o.mp4", "--duration", "6") as first:
        wait_for(lambda: (tmp_path / "s.jsonl").exists() and (tmp_path / "s.jsonl").stat().st_size)
        check_sentence(run(*words, tmp_path / "o.mp4"), "another run is writing", "s.jsonl")
        check_sentence(run("--config", light, "--source", "demo", "--publish", "off", "--record", tmp_path / "o.mp4"),
                       "another run is writing", "o.recording.mkv")  # fmt: skip
        out, err = first.communicate(timeout=60)
    assert first.returncode == 0 and "report: " in out, err
    assert {path.name for path in tmp_path.iterdir()} == {"s.jsonl", "s.html", "o.mp4"}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes with names")
def test_results_go_into_a_pipe_that_somebody_reads(tmp_path: Path, light: Path, clip: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ["--config", light, "--source", clip, "--results", pipe]
    check_sentence(run(*words), str(pipe), "start its reader first")
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        time.sleep(0.3)
        done = run(*words)
        out, _ = reader.communicate(timeout=30)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["sequence"] for line in out.splitlines()] == list(range(31))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes with names")
def test_a_reader_that_leaves_a_pipe_ends_the_run_which_still_gives_its_account(tmp_path: Path, light: Path) -> None:
    pipe, clip = tmp_path / "pipe", make_clip(tmp_path / "long.mkv", frames=600)
    os.mkfifo(pipe)
    with subprocess.Popen(["head", "-n", "1", pipe], stdout=subprocess.PIPE) as reader:
        time.sleep(0.3)
        done = run("--config", light, "--source", clip, "--realtime", "--results", pipe, "--workers", 1)
        reader.communicate(timeout=30)
    assert done.returncode == 0 and "frames, " in done.stdout, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell when a pipe is full")
def test_a_reader_that_pauses_costs_no_line_and_no_worker(tmp_path: Path, light: Path) -> None:
    clip = make_clip(tmp_path / "long.mkv", frames=600)
    silent = ["--set", "engine.silent_s=1.5", "--set", "engine.heartbeat_s=0.2"]
    with running("--config", light, "--source", clip, "--results", "-", *silent) as program:
        time.sleep(5)  # the pipe is full long before
        out, err = program.communicate(timeout=60)
    assert [json.loads(line)["sequence"] for line in out.splitlines()] == list(range(601))
    assert "restarts" not in err and "started again" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_of_each_output_and_costs_no_other(tmp_path: Path, light: Path, clip: Path) -> None:
    results, recording = tmp_path / "out.jsonl", tmp_path / "out.mkv"
    recording.symlink_to("/dev/full")
    words = ["--config", light, "--source", clip, "--results", results]
    done = run(*words, "--stats", "/dev/full")
    assert done.returncode == 1 and "--stats: cannot write /dev/full: No space left" in done.stderr
    assert "30 frames, 30 results" in done.stdout and len(lines_of(results)) == 31
    done = run(*words, "--record", recording)
    assert done.returncode == 1 and ", stopped: " in done.stdout and len(lines_of(results)) == 31
    with open("/dev/full", "w") as full:
        done = subprocess.run(command(*words), stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 2 and "cannot write to the standard output: No space left" in done.stderr
    assert "Traceback" not in done.stderr and len(lines_of(results)) == 31


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_where_the_room_ends_within_a_line_the_results_end_with_a_whole_one(
    tmp_path: Path, light: Path, clip: Path
) -> None:
    results = tmp_path / "out.jsonl"
    words = shlex.join(command("--config", light, "--source", clip, "--results", results, "--workers", 1))
    done = subprocess.run(["sh", "-c", f"ulimit -f 4; exec {words}"], capture_output=True, text=True, env=ENVIRONMENT)
    check_sentence(done, f"results.path: cannot write to {results} any more: File too large")
    assert results.read_bytes()[-1:] == b"\n" and 1 < len(lines_of(results)) < 30


@pytest.mark.skipif(sys.platform == "win32", reason="closes what it inherits")
@pytest.mark.parametrize("closed", [[1], [2], [0, 1, 2]])
def test_a_service_may_have_closed_what_is_printed_to(
    tmp_path: Path, light: Path, clip: Path, closed: list[int]
) -> None:
    results = tmp_path / "out.jsonl"
    words = command("--config", light, "--source", clip, "--results", results, "--report", tmp_path / "a.html")
    shell = f"exec {shlex.join(words)} {' '.join(f'{number}>&-' for number in closed)}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert len(lines_of(results)) == 31 and "Session" in (tmp_path / "a.html").read_text()


def test_a_trace_goes_into_a_file(light: Path, clip: Path) -> None:
    words = ["--config", light, "--source", clip, "--profile", "/dev/stdout" if os.name == "posix" else "."]
    check_sentence(run(*words), "engine.profile", "give the name of a file")


def test_a_trace_and_the_settings_are_not_overwritten(tmp_path: Path, light: Path, clip: Path) -> None:
    settings, trace = Path(shutil.copy(light, tmp_path / "mine.toml")), tmp_path / "trace.json"
    words = ["--config", settings, "--source", clip, "--profile"]
    check_sentence(run(*words, settings), "engine.profile", "would overwrite the settings of --config")
    assert settings.read_text() == light.read_text()
    trace.write_text("yesterday")
    assert run(*words, trace).returncode == 0
    assert (tmp_path / "trace.earlier-1.json").read_text() == "yesterday"
    assert len(json.loads(trace.read_text())) > 30


def pipe_is_full(program: subprocess.Popen[str]) -> bool:
    """Whether the program has filled its standard output, which nobody reads."""
    assert program.stdout is not None
    waiting = array.array("i", [0])
    fcntl.ioctl(program.stdout, termios.FIONREAD, waiting)
    return waiting[0] > 50_000


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell when a pipe is full")
def test_a_reader_that_never_reads_costs_neither_recording_nor_account(tmp_path: Path, light: Path) -> None:
    clip, record = make_clip(tmp_path / "long.mkv", frames=600), tmp_path / "out.mp4"
    with running("--config", light, "--source", clip, "--results", "-", "--record", record) as program:
        wait_for(lambda: pipe_is_full(program))
        program.send_signal(signal.SIGINT)
        program.wait(timeout=30)
        assert program.stderr is not None
        assert f"recorded: {record}" in program.stderr.read()
    with av.open(str(record)) as container:
        assert list(container.decode(video=0))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell when a pipe is full")
def test_a_run_in_one_process_ends_in_its_time_though_nobody_reads(tmp_path: Path, light: Path) -> None:
    clip = make_clip(tmp_path / "long.mkv", frames=600)
    words = ["--config", light, "--source", clip, "--results", "-", "--duration", 2, "--workers", 1]
    with running(*words) as program:
        assert program.wait(timeout=60) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl-C as a terminal does")
def test_signals_while_the_mp4_is_made_cost_neither_account_nor_pictures(tmp_path: Path, light: Path) -> None:
    clip, record, stats = make_clip(tmp_path / "long.mkv", frames=600), tmp_path / "out.mp4", tmp_path / "stats.json"
    words = ["--config", light, "--source", clip, "--realtime", "--record", record, "--stats", stats]
    with running(*words) as program:
        raw = tmp_path / "out.recording.mkv"
        wait_for(lambda: raw.exists() and raw.stat().st_size > 20_000)
        workers = [child for child in psutil.Process(program.pid).children() if "spawn_main" in str(child.cmdline())]
        program.send_signal(signal.SIGINT)
        psutil.wait_procs(workers)
        while program.poll() is None and not stats.exists():
            program.send_signal(signal.SIGINT)
            time.sleep(0.002)
        out, err = program.communicate(timeout=30)
    assert "recorded: " in out and json.loads(stats.read_text())["frames_in"], err
    assert record.exists() or f"the recording is in {raw}" in err
    with av.open(str(record if record.exists() else raw)) as container:
        assert list(container.decode(video=0))


def test_an_output_that_no_worker_makes_is_refused(tmp_path: Path, clip: Path) -> None:
    config = write_config(tmp_path / "c.toml", gate=["gate:MotionGate"])
    for flag, name, stage in (
        ("--results", "out.jsonl", "Results"), ("--report", "out.html", "Results"), ("--record", "out.mkv", "Record"),
    ):  # fmt: skip
        said = run("--config", config, "--source", clip, flag, tmp_path / name)
        check_sentence(said, f"has the stage \"stages.{'record' if stage == 'Record' else 'publish'}:{stage}\"")
    check_sentence(run("--config", config, "--source", clip, "--report", tmp_path / "out.txt"), "no [[worker]]")


def test_a_recording_of_what_no_worker_draws_is_refused(tmp_path: Path, clip: Path) -> None:
    config = write_config(tmp_path / "c.toml", output=["record:Record", "overlay:Overlay"])
    arguments = ["--config", config, "--source", clip, "--record", tmp_path / "out.mkv"]
    check_sentence(run(*arguments), "record.picture", '"stages.overlay:Overlay" before "stages.record:Record"')
    assert run(*arguments, "--set", "record.picture=source").returncode == 0
    assert (tmp_path / "out.mkv").is_file()


def test_a_report_is_a_page(tmp_path: Path, light: Path, clip: Path) -> None:
    check_sentence(run("--config", light, "--source", clip, "--report", tmp_path / "out.txt"), "must end in .html")


def test_two_outputs_do_not_share_a_file(tmp_path: Path, light: Path, clip: Path) -> None:
    file = tmp_path / "out.mkv"
    check_sentence(run("--config", light, "--source", clip, "--record", file, "--results", file), "out.mkv", "what re")
