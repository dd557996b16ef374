"""Subscribing: what a reader in another program sees of a publisher."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zmq.auth

from engine.client import Message, subscribe
from engine.errors import UserError
from engine.listen import as_line, main


class Publisher:
    def __init__(self, curve: tuple[bytes, bytes | None] | None = None) -> None:
        """`curve`: public and secret key, for those only who know the former."""
        self.socket: zmq.Socket[Any] = zmq.Context.instance().socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        if curve is not None:
            self.socket.curve_publickey, self.socket.curve_secretkey = curve
            self.socket.curve_server = True
        self.url = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"

    def wait_for_subscriptions(self, count: int) -> None:
        while count:
            assert self.socket.poll(10_000)
            count -= self.socket.recv()[:1] == b"\x01"  # else somebody has left

    def send(self, topic: str, payload: bytes) -> None:
        self.socket.send(topic.encode() + b"\0" + payload)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.socket.close()


def test_a_subscriber_gets_its_topics_and_is_told_what_it_missed(publisher: Publisher) -> None:
    messages = subscribe(publisher.url, ["result", "health"], timeout_s=10)
    publisher.wait_for_subscriptions(2)
    for sequence in (7, 8, 11):
        publisher.send("result.0", json.dumps({"sequence": sequence}).encode())
        publisher.send("feedback.0", b"{}")
    publisher.send("health", json.dumps({"sequence": 0}).encode())
    publisher.send("result.0", json.dumps({"sequence": 0}).encode())
    found = [next(messages) for _ in range(5)]
    assert [(m.topic, m.payload["sequence"], m.missed) for m in found] == [
        ("result.0", 7, 0),
        ("result.0", 8, 0),
        ("result.0", 11, 2),
        ("health", 0, 0),
        ("result.0", 0, 0),
    ]
    messages.close()


def test_messagepack_and_pictures_are_understood_too(publisher: Publisher) -> None:
    messages = subscribe(publisher.url, "", timeout_s=10)
    publisher.wait_for_subscriptions(1)
    publisher.send("result.0", msgspec.msgpack.encode({"sequence": 3}))
    publisher.send("frame.0", b"\xff\xd8\0\0picture")
    first, second = next(messages), next(messages)
    assert first.payload == {"sequence": 3}
    assert (second.payload, second.data) == ({}, b"\xff\xd8\0\0picture")
    messages.close()


def test_silence_is_an_error_only_if_asked_for(publisher: Publisher) -> None:
    with pytest.raises(TimeoutError, match="nothing came"):
        next(subscribe(publisher.url, timeout_s=0.1))


@pytest.mark.parametrize("url", ["localhost", "tcp://", "tcp://127.0.0.1", "http://127.0.0.1:80", "tcp://a b:1"])
def test_a_wrong_address_is_one_sentence_and_exit_code_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no address"):
        subscribe(url)
    assert main([url]) == 2
    assert "no address" in capsys.readouterr().err


def test_keys_are_loaded_or_refused(tmp_path: Path) -> None:
    server, _ = zmq.auth.create_certificates(tmp_path, "server")
    client, client_secret = zmq.auth.create_certificates(tmp_path, "client")
    url = "tcp://127.0.0.1:5999"
    subscribe(url, server_key=Path(server), client_key=Path(client_secret)).close()
    with pytest.raises(UserError, match="secret"):
        subscribe(url, server_key=Path(server), client_key=Path(client))
    with pytest.raises(UserError, match="both"):
        subscribe(url, server_key=Path(server))
    with pytest.raises(UserError, match="nowhere"):
        subscribe(url, server_key=tmp_path / "nowhere", client_key=Path(client_secret))
    damaged = tmp_path / "damaged.key"
    damaged.write_text(Path(server).read_text().replace('public-key = "', 'public-key = "~'))
    with pytest.raises(UserError, match="cannot read a CURVE key from .*damaged"):
        subscribe(url, server_key=damaged, client_key=Path(client_secret))


def test_the_listener_prints_lines_for_people_and_for_programs(publisher: Publisher) -> None:
    command = [sys.executable, "-m", "engine.listen", publisher.url, "--count", "1", "--timeout", "20"]
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


def test_the_listener_with_its_key_reads_a_program_that_wants_one(tmp_path: Path) -> None:
    server, server_secret = zmq.auth.create_certificates(tmp_path, "server")
    _, client_secret = zmq.auth.create_certificates(tmp_path, "client")
    guarded = Publisher(curve=zmq.auth.load_certificate(server_secret))
    keys = ["--server-key", server, "--client-key", client_secret]
    command = [sys.executable, "-m", "engine.listen", guarded.url, "--count", "1", "--timeout", "20", *keys]
    try:
        listener = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        guarded.wait_for_subscriptions(4)  # its four topics; without the right key none would come
        guarded.send("result.0", b'{"sequence": 4}')
        assert listener.communicate(timeout=30)[0] == "result.0  sequence=4\n"
    finally:
        guarded.socket.close()


def test_who_hears_nothing_is_told_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.listen._PATIENCE_S", 0.05)
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
