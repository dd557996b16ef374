"""What a user can get wrong is told in one sentence, with exit code 2."""

from __future__ import annotations

import http.server
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from program_runs import ENVIRONMENT, OUTPUT, check_sentence, command, run, write_config

from stages.cards import sha256_of
from stages.classes import models_folder


def test_code_that_lies_among_the_videos_is_not_run(tmp_path: Path, light: Path, clip: Path) -> None:
    start, videos = tmp_path / "bin" / "start.py", tmp_path / "videos"
    start.parent.mkdir()
    start.write_text('if __name__ == "__main__":\n    from stages.__main__ import main\n    raise SystemExit(main())\n')
    videos.mkdir()
    (videos / "pickle.py").write_text("open('was_run', 'w').close()\n")
    words = map(str, [sys.executable, start, "--config", light, "--source", clip, "--max-frames", 2])
    done = subprocess.run(list(words), cwd=videos, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert not (videos / "was_run").exists()
    assert done.returncode == 0, done.stderr


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


def test_arguments_that_cannot_be_are_one_sentence() -> None:
    done = run("--source", "demo", "--duration", "soon")
    check_sentence(done, "--duration", "'soon'")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
@pytest.mark.parametrize("flag", ["--source", "--record"])
def test_a_name_that_is_no_text_is_refused(light: Path, clip: Path, flag: str) -> None:
    check_sentence(run("--config", light, "--source", clip, flag, "caf\udce9.mkv"), r"'caf\xe9.mkv'", "UTF-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_exit_code_tells_a_mistake_that_nobody_can_be_told(light: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("--config", light, "--source", "nowhere.mp4"), stderr=full, env=ENVIRONMENT)
        assert done.returncode == 2
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("--print-config"), stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert done.returncode == 2 and b"cannot write to the standard output" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_too_few_open_files_are_named_with_the_way_out(light: Path, clip: Path) -> None:
    words = shlex.join(command("--config", light, "--source", clip))
    done = subprocess.run(["sh", "-c", f"ulimit -n 16; exec {words}"], capture_output=True, text=True, env=ENVIRONMENT)
    check_sentence(done, "Too many open files", "ulimit -n", "--workers 1")


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
    reason="needs a file system of its own",
)
@pytest.mark.parametrize(
    ("options", "folder", "words"),
    [
        ("size=64k", "{tmp}", ("{tmp}", "No space left on device", "TMPDIR")),
        ("nr_inodes=1", "{tmp}", ("{tmp}", "No space left on device", "XDG_RUNTIME_DIR")),
        ("ro", "/dev/shm", ("shared memory", "Read-only", "engine.transport to copy")),
    ],
)
def test_memory_that_the_system_does_not_give_is_named(
    tmp_path: Path, light: Path, clip: Path, options: str, folder: str, words: tuple[str, ...]
) -> None:
    """Of files that have no room, a process would otherwise learn by a bus error."""
    mount = f"mount -t tmpfs -o {options} none {folder.format(tmp=tmp_path)}"
    program = shlex.join(command("--config", light, "--source", clip, "--set", "engine.links=tcp"))
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    shell = ["unshare", "-rm", "sh", "-c", f"{mount} && exec {program}"]
    done = subprocess.run(shell, capture_output=True, text=True, env=environment)
    check_sentence(done, *(word.format(tmp=tmp_path) for word in words))


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
        ("detect.hand=", ("--set detect.hand=", "not empty")),
        ("feedback.errors=", ("--set feedback.errors=", "not empty")),
        ("classify.model=", ("--set classify.model=", "not empty")),
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


@pytest.mark.parametrize("setting", ["detect.hand", "detect.body", "feedback.bands", "feedback.errors"])
def test_what_a_settings_file_names_is_told_with_the_place_where_it_was_sought(tmp_path: Path, setting: str) -> None:
    section, key = setting.split(".")
    (tmp_path / "own.toml").write_text(f'[{section}]\n{key} = "mine.task"\n')
    done = run("--config", tmp_path / "own.toml", "--source", "demo", "--view", "none", "--dry-run")
    check_sentence(done, str(Path("mine.task").absolute()))


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


def test_a_port_in_use_is_named_with_the_way_out(light: Path, clip: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        check_sentence(run("--config", light, "--source", clip, "--publish", url), url, "in use", "--publish")


def test_publishing_to_the_world_without_keys_is_refused(light: Path, clip: Path) -> None:
    check_sentence(run("--config", light, "--source", clip, "--publish", "tcp://*:5570"), "CURVE")


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


@pytest.mark.parametrize(("flags", "told"), [([], False), (["--debug"], True)])
def test_a_stage_of_ones_own_that_fails_in_its_worker_is_told_and_with_debug_where(
    tmp_path: Path, clip: Path, flags: list[str], told: bool
) -> None:
    (tmp_path / "stumbling.py").write_text(
        "from stages.correct import Correct\n"
        "class Stumbling(Correct):\n    def process(self, packet):\n        return packet.nothing\n"
    )
    config = tmp_path / "own.toml"
    config.write_text(
        '[[worker]]\nname = "own"\nstages = ["stumbling:Stumbling"]\n'
        '[[worker]]\nname = "output"\nstages = ["stages.publish:Results"]\n'
    )
    path = f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{tmp_path}"
    line = command("--config", config, "--source", clip, "--workers", 2, "--max-frames", 3, *flags)
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=120, env={**ENVIRONMENT, "PYTHONPATH": path}, check=True
    )
    assert "own: stage stumbling failed on a packet: AttributeError" in done.stderr
    assert ("stumbling.py" in done.stderr) is told
