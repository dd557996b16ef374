"""What the command line means."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.client import DEFAULT_URL
from engine.config import import_name, load_config
from stages.app import (
    SourceKind,
    check_patience,
    decide,
    default_config,
    flags_of,
    kind_of,
    main,
    parse,
    suitable_workers,
    summary_text,
    with_threads,
)
from stages.packets import ArnisPacket, GateDecision

CLOSER = ["--set", "detect.closer=movenet_thunder"]


def decided(*sources: str, **flags: Any) -> dict[str, Any]:
    return decide(load_config(default_config(), flags=flags), sources).sections


def test_the_default_configuration_is_found() -> None:
    assert tomllib.loads(default_config().read_text())["engine"]["source"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("0", SourceKind.CAMERA),
        ("/dev/video2", SourceKind.CAMERA),
        ("rtsp://host/door", SourceKind.NETWORK),
        ("http://host/lesson.mp4?key=1", SourceKind.FILE),
        ("http://host/video.mjpg", SourceKind.NETWORK),
        ("rtsp://host/live.mp4", SourceKind.NETWORK),
        ("rtsp://admin:pa[ss@host/stream", SourceKind.NETWORK),
        ("demo", SourceKind.DEMO),
        ("file:///films/lesson.mp4", SourceKind.FILE),
        ("lesson 3.mp4", SourceKind.FILE),
        ("2024.mp4", SourceKind.FILE),
    ],
)
def test_the_kind_of_a_source_is_known_by_its_name(source: str, kind: SourceKind) -> None:
    assert kind_of(source) is kind


def test_a_frame_that_the_gate_skips_is_no_work_for_what_judges_frames() -> None:
    skipped = ArnisPacket(stream="0", sequence=1, pts=0.0, captured_at_ns=1, gate=GateDecision(detect=False))
    config = load_config(default_config())
    stages = [import_name(name, "") for worker in config.workers for name in worker.stages]
    judging = [kind for kind in stages if hasattr(kind, "has_work")]
    assert not [kind for kind in judging if kind(kind.settings_type()).has_work(skipped)]
    assert {kind.__name__ for kind in stages if not hasattr(kind, "has_work")} == {
        "MotionGate", "StandIn", "Results", "Publish", "Overlay", "Record", "Preview",
    }  # fmt: skip


def test_flags_stand_for_settings() -> None:
    options = parse(["--source", "0", "--record", "a.mkv", "--results", "-", "--publish", "off", "--fast"])
    assert flags_of(options) == {
        "record.path": "a.mkv", "results.path": "-", "publish.url": "off", "capture.realtime": False,
    }  # fmt: skip


def test_a_camera_is_watched_in_a_mirror_and_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.app.has_display", lambda: True)
    sections = decided("0")
    assert (sections["overlay"].view, sections["overlay"].mirror) == ("window", "on")
    assert sections["publish"].url == DEFAULT_URL


@pytest.mark.parametrize(("source", "view"), [("rtsp://host/door", "none"), ("demo", "window")])
def test_what_is_live_is_published_and_a_demo_is_watched(
    source: str, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.app.has_display", lambda: True)
    sections = decided(source)
    assert sections["publish"].url == DEFAULT_URL
    assert (sections["overlay"].view, sections["overlay"].mirror) == (view, "off")


def test_a_file_is_worked_through_without_window_or_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.app.has_display", lambda: True)
    sections = decided("clip.mp4")
    assert (sections["overlay"].view, sections["overlay"].mirror) == ("none", "off")
    assert sections["publish"].url == "off"


def test_without_a_display_the_camera_has_a_line_in_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.app.has_display", lambda: False)
    assert decided("0")["overlay"].view == "none"


def test_one_live_stream_is_answered_by_one_process_and_shown_by_another(tmp_path: Path) -> None:
    config = load_config(default_config())
    assert [suitable_workers(config, [source]) for source in ("0", "rtsp://host/door", "demo")] == [2, 2, 2]
    assert suitable_workers(config, ["clip.mp4"]) is None
    assert suitable_workers(config, ["0", "1"]) is None
    played = load_config(default_config(), flags={"capture.realtime": True})
    assert suitable_workers(played, ["clip.mp4"]) == 2
    own = tmp_path / "own.toml"
    own.write_text(default_config().read_text())
    assert suitable_workers(load_config(default_config(), own), ["0"]) == 2, "a copy changes nothing"
    own.write_text('[[worker]]\nname = "all"\nstages = ["stages.gate:MotionGate", "stages.detect:Detect"]\n')
    assert suitable_workers(load_config(default_config(), own), ["0"]) is None


@pytest.mark.parametrize(("workers", "threads"), [(None, 1), (3, 1), (2, 0), (1, 0)])
def test_networks_that_overlap_have_fewer_threads(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, threads: int
) -> None:
    monkeypatch.setattr("stages.runtime.usable_cores", lambda: 2)
    assert with_threads(load_config(default_config()), workers).sections["detect"].threads == threads
    said = load_config(default_config(), flags={"detect.threads": 2})
    assert with_threads(said, workers).sections["detect"].threads == 2, "what is set stays"


@pytest.mark.parametrize("source", ["rtsp://127.0.0.1:9/door", "97", "/dev/video97"])
def test_a_source_must_be_given_up_before_its_process_is(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", source, "--dry-run", "--set", "capture.timeout_s=20"]) == 2
    assert "raise engine.silent_s" in capsys.readouterr().err
    check_patience(load_config(default_config(), overrides=["engine.silent_s=4"]), ["demo", "clip.mp4"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--source", ""], "names nothing"),
        (["--source", "demo", "--workers", "9"], "at most 4"),
        (["--source", "a" * 300], "File name too long"),
        (["--source", "demo", "--set", "engine.source=.x:Y"], "names nothing"),
        (["--source", "demo", "--set", "engine.packet=engine.packet:Packet"], "name stages.packets:ArnisPacket"),
        (["--source", "demo", "--set", "detect.stick="], "set gate.need_stick = false"),
        (["--source", "demo", *CLOSER, "--set", "gate.motion=false"], "because of gate.motion = false"),
        (["--source", "demo", *CLOSER, "--set", "detect.fused=mine"], "because of detect.fused"),
    ],
)
def test_what_could_not_work_is_said_before_it_starts(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--duration", "inf"], ["--max-frames", "9" * 24], ["--duration", "-1"]])
def test_impossible_numbers_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--source", "demo", *arguments])
    assert end.value.code == 2


def test_what_was_chosen_is_never_overruled() -> None:
    chosen = {"overlay.view": "none", "overlay.mirror": "off", "publish.url": "tcp://127.0.0.1:6000"}
    sections = decided("0", **chosen)
    assert (sections["overlay"].view, sections["overlay"].mirror) == ("none", "off")
    assert sections["publish"].url == "tcp://127.0.0.1:6000"


def test_results_on_standard_output_keep_it_to_themselves() -> None:
    assert decided("clip.mp4", **{"results.path": "-"})["overlay"].live_line == "stderr"


def test_print_config_names_every_setting_its_origin_and_its_meaning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[record]\ncrf = 30\n")
    assert main(["--config", str(own), "--set", "publish.queue=7", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("record.crf") and "= 30" in line and "# file: x264's quality" in line for line in lines)
    assert any(line.startswith("publish.queue") and "= 7" in line and "command line" in line for line in lines)
    assert all(": " in line.partition("# ")[2] for line in lines if not line.startswith("worker."))


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert len(text.splitlines()) <= 36
    assert max(map(len, text.splitlines())) <= 80


def test_the_account_at_the_end() -> None:
    stats = {
        "frames_in": 100, "results_out": 98, "duration_s": 4.04, "fps_out": 24.3, "dropped": {"replaced": 2},
        "latency_ms": {"p50": 31.2, "p95": 44.9}, "restarts": {"detect": 1, "output": 0},
        "stages": {"results": {"left_eye_thrust": "3.2 s"}, "record": {"out.mkv": "98 frames, 0 left out"}},
    }  # fmt: skip
    assert summary_text(stats).splitlines() == [
        "100 frames, 98 results in 4.0 s (24.3 FPS); latency p50 31 ms, p95 45 ms",
        "dropped: replaced 2",
        "restarts: detect 1",
        "poses: left eye thrust 3.2 s",
        "recorded: out.mkv 98 frames, 0 left out",
    ]
