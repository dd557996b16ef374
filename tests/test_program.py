"""The program as a user runs it: `arnis-stream` in a process of its own, on real files.

Where only input and output matter, a configuration without the models keeps the tests quick.
"""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import jsonschema
import numpy as np
import psutil
import pytest

from stages.cards import sha256_of
from stages.classes import models_folder
from stages.result import SCHEMA_FILE

ROOT = Path(__file__).parents[1]
CLIPS = Path(__file__).with_name("clips")
OUTPUT = ["publish:Results", "publish:Publish", "overlay:Overlay", "record:Record", "preview:Preview"]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")},
    "PYTHONPATH": str(ROOT),
}


def write_config(path: Path, **workers: Sequence[str]) -> Path:
    """A pipeline of these workers, their stages by `module:Class`."""
    text = ""
    for name, stages in workers.items():
        text += f'[[worker]]\nname = "{name}"\nstages = {json.dumps([f"stages.{stage}" for stage in stages])}\n'
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration without models."""
    return write_config(tmp_path_factory.mktemp("config") / "light.toml", gate=["gate:MotionGate"], output=OUTPUT)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of 160x120 at 10 FPS, in which a square moves."""
    return make_clip(tmp_path_factory.mktemp("clip") / "square.mkv", frames=30)


def make_clip(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"g": "5", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 60, (120, 160, 3), np.uint8)
        for i in range(frames):
            picture = noise.copy()
            picture[40:80, (5 * i) % 120 : (5 * i) % 120 + 40] = 230
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stages", *map(str, arguments)]


def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT)


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The program in the background; ended at the end of the block if it still runs."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*arguments), text=True, env=ENVIRONMENT, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.05)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def frames_of(file: Path, stream: str = "0") -> list[int]:
    """Sequences of the frames of a stream in a results file."""
    return [line["sequence"] for line in lines_of(file) if line["stream"] == stream and line["status"] != "end"]


def check_sentence(process: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one sentence on stderr that holds all the words."""
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    said = [line for line in process.stderr.splitlines() if line.startswith("arnis-stream: ")]
    assert len(said) == 1, process.stderr
    for word in words:
        assert word in said[0]


def segments(program_pid: int) -> list[str]:
    """Shared memory of one run; other programs of the machine may have their own."""
    return [file.name for file in Path("/dev/shm").glob(f"*-{program_pid}-*")]


def test_every_frame_of_a_file_becomes_one_valid_line(tmp_path: Path, light: Path, clip: Path) -> None:
    done = run("--config", light, "--source", clip, "--results", tmp_path / "out.jsonl", "--stats", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    assert frames_of(tmp_path / "out.jsonl") == list(range(30))
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for line in lines_of(tmp_path / "out.jsonl"):
        validator.validate(line)
    assert "30 frames, 30 results" in done.stdout
    assert json.loads((tmp_path / "s.json").read_text())["frames_in"] == 30


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


def test_a_missing_file_is_named(light: Path) -> None:
    check_sentence(run("--config", light, "--source", "nowhere.mp4"), "nowhere.mp4", "does not exist")


def test_a_file_that_is_no_video_is_named(tmp_path: Path, light: Path) -> None:
    (tmp_path / "notes.mp4").write_text("these are notes")
    check_sentence(run("--config", light, "--source", tmp_path / "notes.mp4"), "notes.mp4")


def test_an_empty_file_is_named(tmp_path: Path, light: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    check_sentence(run("--config", light, "--source", tmp_path / "empty.mp4"), "empty.mp4 is empty")


def test_a_camera_that_is_not_there_is_named(light: Path) -> None:
    check_sentence(run("--config", light, "--source", 97, "--publish", "off"), "camera 97")


def test_a_stream_that_nobody_serves_is_named_without_its_password(light: Path, free_port: int) -> None:
    url = f"rtsp://me:secret@127.0.0.1:{free_port}/door"
    done = run("--config", light, "--source", url, "--publish", "off")
    check_sentence(done, f"127.0.0.1:{free_port}/door")
    assert "secret" not in done.stderr


def test_no_source_is_told_what_to_give() -> None:
    check_sentence(run(), "--source")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("record.qualiti=3", ("record.qualiti", "unknown")),
        ("recrod.crf=3", ("recrod", "did you mean 'record'")),
        ("record.crf=300", ("record.crf", "300", "0 to 51")),
        ("record.preset=slowest", ("record.preset", "'slowest'", "'ultrafast'")),
        ("crf=3", ("crf", "section.key")),
    ],
)
def test_a_setting_that_cannot_be_is_explained(light: Path, clip: Path, setting: str, words: tuple[str, ...]) -> None:
    check_sentence(run("--config", light, "--source", clip, "--set", setting), *words)


def test_a_broken_configuration_is_named(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "own.toml").write_text("[record\ncrf = 3")
    check_sentence(run("--config", tmp_path / "own.toml", "--source", clip), "own.toml", "TOML")
    check_sentence(run("--config", tmp_path / "none.toml", "--source", clip), "none.toml")


def test_a_missing_model_is_named(tmp_path: Path, clip: Path) -> None:
    config = write_config(tmp_path / "own.toml", detect=["detect:Detect"], output=OUTPUT)
    done = run("--config", config, "--source", clip, "--set", "detect.body=models/nothing")
    check_sentence(done, "models/nothing", "card.toml")


@pytest.mark.parametrize("section", ["detect", "classify"])
def test_a_named_device_that_is_missing_is_an_error_not_a_surprise(section: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build may really use it")
    done = run("--source", "demo", "--publish", "off", "--view", "none", "--set", f"{section}.device=cuda")
    check_sentence(done, 'device = "cuda"', "no CUDA", "onnxruntime-gpu", 'device = "auto"')


def test_a_model_file_that_was_changed_is_refused(tmp_path: Path, clip: Path) -> None:
    model = shutil.copytree(models_folder() / "movenet_lightning", tmp_path / "changed")
    data = bytearray((model / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (model / "model.onnx").write_bytes(data)
    config = write_config(tmp_path / "own.toml", detect=["detect:Detect"], output=OUTPUT)
    check_sentence(run("--config", config, "--source", clip, "--set", f"detect.body={model}"), "SHA-256")


def test_a_classifier_for_other_classes_is_refused(tmp_path: Path, clip: Path) -> None:
    shipped = models_folder() / "geopose"
    if not (shipped / "card.toml").is_file():
        pytest.skip("the classifier is not shipped")
    model = shutil.copytree(shipped, tmp_path / "other")
    card = (model / "card.toml").read_text()
    assert '"crown_thrust"' in card
    (model / "card.toml").write_text(card.replace('"crown_thrust"', '"crown_strike"'))
    assert sha256_of(model / "model.onnx") in card
    config = write_config(tmp_path / "own.toml", classify=["classify:Classify"], output=OUTPUT)
    check_sentence(run("--config", config, "--source", clip, "--set", f"classify.model={model}"), "class")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_in_use_is_named_with_the_way_out(light: Path, clip: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        check_sentence(run("--config", light, "--source", clip, "--publish", url), url, "in use", "--publish")


def test_publishing_to_the_world_without_keys_is_refused(light: Path, clip: Path) -> None:
    check_sentence(run("--config", light, "--source", clip, "--publish", "tcp://*:5570"), "CURVE")


@pytest.mark.parametrize(
    ("flag", "name", "words"),
    [
        ("--results", "missing/out.jsonl", ("results.path", "no folder")),
        ("--results", ".", ("results.path", "is a folder")),
        ("--record", "missing/out.mkv", ("record.path", "no folder")),
        ("--record", "out.avi", ("record.path", ".mkv or .mp4")),
        ("--stats", "missing/stats.json", ("--stats", "no folder")),
        ("--report", "missing/page.html", ("results.report", "no folder")),
    ],
)
def test_an_output_that_cannot_be_written_is_named(
    tmp_path: Path, light: Path, clip: Path, flag: str, name: str, words: tuple[str, ...]
) -> None:
    check_sentence(run("--config", light, "--source", clip, flag, tmp_path / name), *words)


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
    done = run(*words, "--profile", "/dev/full")
    assert done.returncode == 0 and "engine.profile: cannot write /dev/full" in done.stderr
    done = run(*words, "--record", recording)
    assert done.returncode == 1 and ", stopped: " in done.stdout and len(lines_of(results)) == 31
    with open("/dev/full", "w") as full:
        done = subprocess.run(command(*words), stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 2 and "cannot write to the standard output: No space left" in done.stderr
    assert "Traceback" not in done.stderr and len(lines_of(results)) == 31


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


def test_an_output_that_no_worker_makes_is_refused(tmp_path: Path, clip: Path) -> None:
    config = write_config(tmp_path / "c.toml", gate=["gate:MotionGate"])
    for flag, name, stage in (
        ("--results", "out.jsonl", "Results"), ("--report", "out.html", "Results"), ("--record", "out.mkv", "Record"),
    ):  # fmt: skip
        said = run("--config", config, "--source", clip, flag, tmp_path / name)
        check_sentence(said, f"has the stage \"stages.{'record' if stage == 'Record' else 'publish'}:{stage}\"")
    check_sentence(run("--config", config, "--source", clip, "--report", tmp_path / "out.txt"), "no [[worker]]")


def test_a_report_is_a_page(tmp_path: Path, light: Path, clip: Path) -> None:
    check_sentence(run("--config", light, "--source", clip, "--report", tmp_path / "out.txt"), "must end in .html")


def test_a_single_picture_is_a_folder_of_one(tmp_path: Path, light: Path) -> None:
    picture, results = tmp_path / "a.png", tmp_path / "out.jsonl"
    cv2.imwrite(str(picture), np.full((48, 64, 3), 90, np.uint8))
    assert run("--config", light, "--source", picture, "--results", results).returncode == 0
    assert [(line["status"], line["picture"]) for line in lines_of(results)][0][1] == "a.png"


def test_two_outputs_do_not_share_a_file(tmp_path: Path, light: Path, clip: Path) -> None:
    file = tmp_path / "out.mkv"
    check_sentence(run("--config", light, "--source", clip, "--record", file, "--results", file), "out.mkv", "what re")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there is always a display here")
def test_a_window_without_a_display_is_refused(light: Path, clip: Path) -> None:
    check_sentence(run("--config", light, "--source", clip, "--view", "window"), "no display", "--view none")


def test_a_dry_run_checks_and_leaves_nothing(tmp_path: Path, light: Path, clip: Path) -> None:
    results, record = tmp_path / "out.jsonl", tmp_path / "out.mkv"
    arguments = ["--config", light, "--source", clip, "--results", results, "--record", record, "--dry-run"]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "160x120" in done.stdout and "all is well" in done.stdout
    assert not list(tmp_path.iterdir())
    results.write_text("earlier results\n")
    run(*arguments)
    assert results.read_text() == "earlier results\n"


def test_a_dry_run_names_an_address_without_its_password(light: Path, clip: Path) -> None:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(clip.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}/{clip.name}"
        done = run("--config", light, "--source", f"http://user:secret@{address}?key=secret", "--dry-run")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert f"source 0: http://***@{address}?***: 160x120" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_a_dry_run_finds_a_missing_file(light: Path) -> None:
    check_sentence(run("--config", light, "--source", "nowhere.mp4", "--dry-run"), "nowhere.mp4")
