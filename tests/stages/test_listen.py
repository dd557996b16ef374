"""`arnis-listen`: lines for people and for programs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq.auth

from engine.client import Message
from stages.listen import as_line, main

LISTEN = [sys.executable, "-c", "import sys; from stages.__main__ import listen; sys.exit(listen())"]
"""As the installed command does."""


def test_a_wrong_address_is_one_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:80"]) == 2
    assert "no address" in capsys.readouterr().err


def test_the_listener_prints_lines_for_people_and_for_programs(publisher: Any) -> None:
    command = [*LISTEN, publisher.url, "--count", "1", "--timeout", "20"]
    payload = {"schema": 1, "sequence": 4, "status": "ok", "pose": {"label": "thrust", "confidence": 0.91234}}
    for option, expected in (
        ([], "result.0  sequence=4  status=ok  pose.label=thrust  pose.confidence=0.9123\n"),
        (["--json"], None),
    ):
        listener = subprocess.Popen([*command, "--topic", "result", *option], stdout=subprocess.PIPE, text=True)
        publisher.wait_for_subscriptions(1)
        publisher.send("result.0", json.dumps(payload).encode())
        out, _ = listener.communicate(timeout=30)
        assert listener.returncode == 0
        if expected is None:
            assert json.loads(out) == {"topic": "result.0", "missed": 0, "payload": payload}
        else:
            assert out == expected


def test_the_listener_with_its_key_reads_a_program_that_wants_one(
    tmp_path: Path, make_publisher: Callable[..., Any]
) -> None:
    server, server_secret = zmq.auth.create_certificates(tmp_path, "server")
    _, client_secret = zmq.auth.create_certificates(tmp_path, "client")
    guarded = make_publisher(curve=zmq.auth.load_certificate(server_secret))
    keys = ["--server-key", server, "--client-key", client_secret]
    command = [*LISTEN, guarded.url, "--count", "1", "--timeout", "20", *keys]
    listener = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    guarded.wait_for_subscriptions(4)  # its four topics; without the right key none would come
    guarded.send("result.0", b'{"sequence": 4}')
    assert listener.communicate(timeout=30)[0] == "result.0  sequence=4\n"


def test_what_the_code_page_has_no_place_for_is_printed(publisher: Any) -> None:
    command = [*LISTEN, publisher.url, "--count", "1", "--timeout", "20", "--json"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    listener = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    publisher.wait_for_subscriptions(4)
    publisher.send("health", '{"picture": "Čeněk.jpg"}'.encode())
    out, _ = listener.communicate(timeout=30)
    assert json.loads(out)["payload"] == {"picture": "Čeněk.jpg"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_cannot_be_printed_is_one_sentence(publisher: Any) -> None:
    with open("/dev/full", "w") as full:
        words = [*LISTEN, publisher.url, "--timeout", "20"]
        listener = subprocess.Popen(words, stdout=full, stderr=subprocess.PIPE, text=True)
        publisher.wait_for_subscriptions(4)
        publisher.send("health", b"{}")
        _, said = listener.communicate(timeout=30)
    assert listener.returncode == 2 and said.count("\n") == 1
    assert "arnis-listen: cannot write to the standard output: No space left" in said


@pytest.mark.skipif(sys.platform == "win32", reason="closes what it inherits")
def test_a_service_may_have_closed_what_it_prints_to(publisher: Any) -> None:
    words = shlex.join([*LISTEN, publisher.url, "--timeout", "20", "--count", "1"])
    listener = subprocess.Popen(["sh", "-c", f"exec {words} >&-"], stderr=subprocess.PIPE, text=True)
    publisher.wait_for_subscriptions(4)
    publisher.send("health", b"{}")
    _, said = listener.communicate(timeout=30)
    assert (listener.returncode, said) == (0, "")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has loaded")
def test_ctrl_c_while_it_still_loads_is_no_traceback() -> None:
    listener = subprocess.Popen(
        LISTEN, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    while listener.poll() is None and "zmq" not in Path(f"/proc/{listener.pid}/maps").read_text():
        time.sleep(0.002)
    listener.send_signal(signal.SIGINT)
    _, said = listener.communicate(timeout=20)
    assert "Traceback" not in said and listener.returncode in (0, 130)


def test_who_hears_nothing_is_told_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stages.listen._PATIENCE_S", 0.05)
    assert main(["tcp://127.0.0.1:9", "--timeout", "1"]) == 1
    assert "does a program publish there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--count", "0"], ["--count", "1.5"], ["--timeout", "-1"], ["--timeout", "1e10"], ["--timeout", "x"]]
)
def test_impossible_numbers_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and "above 0, at most 1,000,000" in capsys.readouterr().err


def test_a_line_holds_the_whole_result_and_the_cues() -> None:
    result = {"schema": 1, "stream": "0", "sequence": 4, "pts": 0.1, "captured_at_ns": 1, "latency_ms": 9.0,
              "status": "ok", "reason": None, "person": {"track": 1, "score": 0.9, "keypoints": [[1.0, 2.0, 0.5]]},
              "stick": {"hand": "right", "angle_deg": 13.0, "length_px": 160.0, "method": "evidence"},
              "pose": {"label": "crown_thrust", "confidence": 0.9, "probabilities": {"neutral": 0.1}}}  # fmt: skip
    line = as_line(Message("result.0", result, b"{}", 0))
    assert line.endswith("pose.label=crown_thrust  pose.confidence=0.9")
    cue = {"label": "crown_thrust", "cues": [{"sentence": "Straighten your right elbow."}]}
    line = as_line(Message("feedback.0", cue, b"{}", 0))
    assert line == "feedback.0  label=crown_thrust  cues.0.sentence=Straighten your right elbow."


def test_a_line_says_what_was_missed_and_how_large_a_picture_is() -> None:
    assert as_line(Message("result.0", {"sequence": 9}, b"{}", 3)) == "result.0  (3 missed)  sequence=9"
    assert as_line(Message("frame.0", {}, b"12345", 0)) == "frame.0  5 bytes"
