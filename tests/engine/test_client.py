"""Subscribing: what a reader in another program sees of a publisher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zmq.auth

from engine.client import subscribe
from engine.errors import UserError


def test_a_subscriber_gets_its_topics_and_is_told_what_it_missed(publisher: Any) -> None:
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


def test_messagepack_and_pictures_are_understood_too(publisher: Any) -> None:
    messages = subscribe(publisher.url, "", timeout_s=10)
    publisher.wait_for_subscriptions(1)
    publisher.send("result.0", msgspec.msgpack.encode({"sequence": 3}))
    publisher.send("frame.0", b"\xff\xd8\0\0picture")
    first, second = next(messages), next(messages)
    assert first.payload == {"sequence": 3}
    assert (second.payload, second.data) == ({}, b"\xff\xd8\0\0picture")
    messages.close()


def test_silence_is_an_error_only_if_asked_for(publisher: Any) -> None:
    with pytest.raises(TimeoutError, match="nothing came"):
        next(subscribe(publisher.url, timeout_s=0.1))


def test_no_topic_is_refused_rather_than_waited_for(publisher: Any) -> None:
    with pytest.raises(UserError, match="no topic"):
        subscribe(publisher.url, [])


@pytest.mark.parametrize(
    "url", ["tcp://127.0.0.1:99999", "localhost", "tcp://", "tcp://127.0.0.1", "http://127.0.0.1:80", "tcp://a b:1"],
)
def test_a_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="no address"):
        subscribe(url)


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
