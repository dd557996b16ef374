"""The sockets themselves: who may subscribe, at which addresses, and how much waits for who is slow."""

from __future__ import annotations

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
import zmq.auth
from subscribing import Subscriber, context, idle, packet

from engine.client import subscribe
from engine.clock import now_ns
from engine.errors import UserError
from stages.publish import Publish
from stages.publisher import Publisher, PublishSettings, frames_url, is_loopback


def test_how_many_messages_wait_for_a_slow_subscriber_can_be_set(url: str) -> None:
    got = {5: 0, 100: 0}
    for queue in got:
        stage = Publish(PublishSettings(url=url, queue=queue))
        stage.open(context())
        subscriber = Subscriber(url, "", rcvhwm=1)
        subscriber.receive(serve=idle(stage))
        for sequence in range(200):
            stage.process(packet(sequence, reason="x" * 400_000))  # large: the system's buffers hold only a few
        with suppress(TimeoutError):
            while True:
                subscriber.receive(timeout_s=1.0, only="result")
                got[queue] += 1
        subscriber.close()
        stage.close()
    assert got[100] >= 95 > got[5]


def test_a_flood_of_subscriptions_holds_nothing_up(url: str) -> None:
    publisher = Publisher(url, "publish.url", PublishSettings(), queue=5, restarted=False)
    flood = zmq.Context.instance().socket(zmq.XSUB)
    flood.setsockopt(zmq.SNDHWM, 0)
    flood.connect(url)
    for number in range(1000):
        flood.send(b"\x01result.0\0%d" % number)
    flood.send(b"\x01result.")
    calls = []
    until = time.monotonic() + 20
    while b"result." not in publisher.subscriptions and time.monotonic() < until:
        assert not publisher.wanted("result.0")
        calls.append(len(publisher.new_subscriptions()))
    assert publisher.wanted("result.0") and not publisher.wanted("result") and not publisher.wanted("frame.0")
    assert sum(calls) == 1001 and max(calls) <= 100, "the rest waits for the next call"
    flood.close(0)
    publisher.close()


def test_a_taken_port_is_named_with_a_way_out(publish: Publish, url: str) -> None:
    with pytest.raises(UserError, match=rf"{url} is in use.*--publish off"):
        Publish(PublishSettings(url=url)).open(context())


@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")
def test_a_socket_file_of_a_program_that_runs_is_not_taken_away(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path / 'results'}"
    first = Publish(PublishSettings(url=url))
    first.open(context())
    with pytest.raises(UserError, match=rf"{url} is in use.*--publish off"):
        Publish(PublishSettings(url=url)).open(context())
    subscriber = Subscriber(url, "health")
    assert subscriber.receive(serve=idle(first))[0] == "health"
    subscriber.close()
    first.close()
    second = Publish(PublishSettings(url=url))
    second.open(context())
    second.close()


@pytest.mark.parametrize(
    "bad", ["127.0.0.1:5570", "tcp://127.0.0.1:99999999", "tcp://127.0.0.1:name", "tcp://127.0.0.1:*"]
)
def test_an_address_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(UserError, match=r"publish\.url: .* is no address"):
        Publish(PublishSettings(url=bad)).open(context())


@pytest.mark.parametrize(
    "open_url", ["tcp://*:5599", "tcp://0.0.0.0:5599", "tcp://192.168.1.5:5599", "tcp://[::]:5599"]
)
def test_an_address_that_others_can_reach_needs_keys(open_url: str) -> None:
    with pytest.raises(UserError, match="CURVE"):
        Publish(PublishSettings(url=open_url)).open(context())


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1", "ipc:///some/where"])
def test_loopback_addresses_are_known(url: str) -> None:
    assert is_loopback(url)


def test_an_address_of_version_6_is_served_and_found() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has none")
        url = f"tcp://[::1]:{probe.getsockname()[1]}"
    stage = Publish(PublishSettings(url=url))
    stage.open(context())
    with ThreadPoolExecutor() as pool:
        message = pool.submit(next, subscribe(url, ["hello"], timeout_s=10))
        while not message.done():
            stage.idle(now_ns())
            time.sleep(0.01)
    stage.close()
    assert message.result().topic == "hello"


def test_with_keys_only_those_on_the_list_can_read(tmp_path: Path, url: str) -> None:
    server_public, server_secret = zmq.auth.create_certificates(str(tmp_path), "server")
    (tmp_path / "clients").mkdir()
    known, known_secret = zmq.auth.create_certificates(str(tmp_path / "clients"), "known")
    _, stranger_secret = zmq.auth.create_certificates(str(tmp_path), "stranger")
    stage = Publish(PublishSettings(url=url, server_key=server_secret, client_keys=str(tmp_path / "clients")))
    stage.open(context())
    server_key = zmq.auth.load_certificate(server_public)[0]

    def join(secret_file: str) -> Subscriber:
        public, secret = zmq.auth.load_certificate(secret_file)
        return Subscriber(url, "hello", curve_serverkey=server_key, curve_publickey=public, curve_secretkey=secret)

    friend, stranger, plain = join(known_secret), join(stranger_secret), Subscriber(url, "hello")
    assert friend.receive(serve=idle(stage))[0] == "hello"
    for other in (stranger, plain):
        with pytest.raises(TimeoutError):
            other.receive(timeout_s=0.7, serve=idle(stage))
    for subscriber in (friend, stranger, plain):
        subscriber.close()
    stage.close()


def test_keys_that_cannot_be_read_close_the_door(tmp_path: Path, url: str) -> None:
    settings = PublishSettings(url=url, server_key=str(tmp_path / "none.key_secret"), client_keys=str(tmp_path))
    with pytest.raises(UserError, match=r"publish\.server_key"):
        Publish(settings).open(context())
    zmq.auth.create_certificates(tmp_path, "server")
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "laptop.key").write_text("nothing")
    clients = PublishSettings(
        url=url, server_key=str(tmp_path / "server.key_secret"), client_keys=str(tmp_path / "clients")
    )
    with pytest.raises(UserError, match=r"publish\.client_keys: .*laptop\.key"):
        Publish(clients).open(context())


def test_pictures_have_the_next_port_unless_it_is_said() -> None:
    assert frames_url(PublishSettings(url="tcp://127.0.0.1:5570")) == "tcp://127.0.0.1:5571"
    assert frames_url(PublishSettings(url="off")) == ""
    assert frames_url(PublishSettings(url="tcp://127.0.0.1:5570", frames_url="off")) == ""
