"""What subscribers and result files get, over real sockets and files."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import psutil
import pytest
import zmq
import zmq.auth

from engine.chain import Chain
from engine.client import subscribe
from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from engine.stage import Context
from stages.classes import load_classes
from stages.outputs import check_writable
from stages.packets import ArnisPacket, Cue, Pose
from stages.preview import Preview
from stages.publish import Publish, Results, ResultsSettings
from stages.publisher import PublishSettings, frames_url, is_loopback
from stages.view import CANVAS_DEMAND


def packet(sequence: int = 0, **changes: Any) -> ArnisPacket:
    made = ArnisPacket(stream="0", sequence=sequence, pts=sequence / 30, captured_at_ns=now_ns(), status="no_person")
    return msgspec.structs.replace(made, **changes)


def context(restarts: int = 0, resumes: bool | None = None) -> Context:
    return Context(streams=["0"], frames=None, restarts=restarts,  # type: ignore[arg-type]
                   resumes=restarts > 0 if resumes is None else resumes,
                   request_stop=lambda: None, health=lambda: {"fps_out": 30.0})  # fmt: skip


@pytest.fixture
def url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


class Subscriber:
    """What any ZeroMQ program does to listen."""

    def __init__(self, url: str, *topics: str, **options: Any) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        for name, value in options.items():
            setattr(self._socket, name, value)
        self._socket.connect(url)
        for topic in topics:
            self._socket.subscribe(topic)

    def receive(self, timeout_s: float = 5.0, serve: Any = lambda: None, only: str = "") -> tuple[str, bytes]:
        """One message, `only` of a topic that begins so: health may come at any time. `serve` lets the publishing side
        work meanwhile. Raises TimeoutError."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            serve()
            if self._socket.poll(20):
                message = self._socket.recv()
                assert isinstance(message, bytes)
                topic, _, payload = message.partition(b"\0")
                if topic.decode().startswith(only):
                    return topic.decode(), payload
        raise TimeoutError("no message")

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()


@pytest.fixture
def publish(url: str) -> Iterator[Publish]:
    stage = Publish(PublishSettings(url=url))
    stage.open(context())
    yield stage
    stage.close()


def idle(stage: Any) -> Any:
    return lambda: stage.idle(now_ns())


def test_every_packet_becomes_one_line(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    stage = Results(ResultsSettings(path=str(file)))
    stage.open(context())
    stage.process(packet(0))
    dropped = packet(1)
    dropped.end("dropped", "replaced")
    stage.process(dropped)
    end = packet(2)
    end.end("end")
    stage.process(end)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["sequence"], line["status"]) for line in lines] == [(0, "no_person"), (1, "dropped"), (2, "end")]
    stage.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_results_on_a_full_disk_end_the_run_with_a_sentence() -> None:
    stage = Results(ResultsSettings(path="/dev/full"))
    stage.open(context())
    with pytest.raises(UserError, match="results.path: cannot write to /dev/full any more"):
        stage.process(packet(0))


def test_the_account_of_a_restarted_worker_says_from_when_on_it_counts() -> None:
    pose = Pose(label="crown_thrust", confidence=0.9, accepted=True, family="", chamber="", probabilities={})
    for restarts, first in ((0, "crown_thrust"), (1, "(since the last restart)")):
        stage = Results(ResultsSettings())
        stage.open(context(restarts))
        for sequence in (0, 1):
            stage.process(msgspec.structs.replace(packet(sequence), status="ok", pose=pose))
        assert next(iter(stage.describe())) == first


def test_a_restarted_worker_goes_on_in_the_same_file_without_doubles(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    first = Results(ResultsSettings(path=str(file)))
    first.open(context())
    first.process(packet(0))
    first.process(packet(1))
    first.close()
    with file.open("ab") as half:
        half.write(b'{"schema":1,"stre')
    second = Results(ResultsSettings(path=str(file)))
    second.open(context(restarts=1))
    second.process(packet(1))
    second.process(packet(2))
    second.close()
    assert [json.loads(line)["sequence"] for line in file.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_restarted_worker_goes_on_writing_to_what_is_no_file(tmp_path: Path, restarts: int) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, Path(os.devnull)):
        stage = Results(ResultsSettings(path=str(path)))
        stage.open(context(restarts))
        stage.process(packet(3))
        stage.close()
    assert json.loads(os.read(reader, 100_000))["sequence"] == 3
    os.close(reader)
    assert list(tmp_path.iterdir()) == [pipe]


def test_results_to_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.path: .*there is no folder"):
        Results(ResultsSettings(path=str(tmp_path / "nowhere" / "out.jsonl"))).open(context())


def test_checking_an_output_leaves_no_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "new", "results.path")
    assert not list(tmp_path.iterdir())


def test_a_result_on_the_socket_is_the_line_of_the_file(tmp_path: Path, publish: Publish, url: str) -> None:
    results = Results(ResultsSettings(path=str(tmp_path / "out.jsonl")))
    results.open(context())
    subscriber = Subscriber(url, "result.0\0", "health\0")
    subscriber.receive(serve=idle(publish))
    publish.process(results.process(packet(7)))
    topic, payload = subscriber.receive(only="result")
    assert topic == "result.0"
    assert payload == (tmp_path / "out.jsonl").read_bytes().rstrip()
    subscriber.close()


def test_dropped_frames_and_the_end_are_written_and_published_too(publish: Publish, url: str, tmp_path: Path) -> None:
    """As the engine runs them, which keeps packets that have ended from stages that do not ask for them."""
    file = tmp_path / "out.jsonl"
    results = Results(ResultsSettings(path=str(file)))
    results.open(context())
    subscriber = Subscriber(url, "")
    subscriber.receive(serve=idle(publish), only="hello")
    packets = [packet(0), packet(1), packet(2)]
    packets[1].end("dropped", "replaced")
    packets[2].end("end")
    chain = Chain([results, publish], errors_in_a_row=3)
    for each in packets:
        chain.run([each])
    results.close()
    written = [json.loads(line) for line in file.read_text().splitlines()]
    published = [json.loads(subscriber.receive(only="result")[1]) for _ in packets]
    assert [line["status"] for line in published] == ["no_person", "dropped", "end"]
    assert [line["status"] for line in written] == ["no_person", "dropped", "end"]
    subscriber.close()


def test_a_late_subscriber_gets_hello_and_health_at_once(publish: Publish, url: str) -> None:
    for attempt in range(2):  # The second one sends a subscription that the socket already knows.
        subscriber = Subscriber(url, "")
        greetings = dict([subscriber.receive(serve=idle(publish)), subscriber.receive(serve=idle(publish))])
        hello, health = json.loads(greetings["hello"]), json.loads(greetings["health"])
        assert [entry["name"] for entry in hello["classes"]] == list(load_classes().names)
        assert len(hello["keypoints"]) == 19 and hello["streams"] == ["0"] and hello["frames"].startswith("tcp:")
        assert [17, 18] in hello["edges"] and [7, 5] in hello["edges"]  # grip to tip, left elbow to shoulder
        assert (hello["schema"], hello["sequence"], health["fps_out"]) == (1, attempt, 30.0)
        assert "schema" not in health, "it has none"
        if attempt:
            subscriber.close()
        else:
            first = subscriber
    first.close()


def test_health_comes_once_a_second(publish: Publish, url: str) -> None:
    subscriber = Subscriber(url, "health\0")
    times = []
    for _ in range(3):  # the first at once, because somebody new is there
        subscriber.receive(serve=idle(publish))
        times.append(time.monotonic())
    assert times[2] - times[1] > 0.5
    subscriber.close()


def test_who_subscribes_while_the_program_starts_gets_the_first_health_and_no_empty_one(url: str) -> None:
    told: dict[str, Any] = {}
    stage = Publish(PublishSettings(url=url))
    stage.open(msgspec.structs.replace(context(), health=lambda: told))
    subscriber = Subscriber(url, "")
    subscriber.receive(serve=idle(stage), only="hello")
    stage.idle(now_ns())
    told["fps_in"] = 30.0
    health = json.loads(subscriber.receive(serve=idle(stage), only="health")[1])
    subscriber.close()
    stage.close()
    assert (health["sequence"], health.get("fps_in")) == (0, 30.0)


def test_cues_are_sent_when_they_change(publish: Publish, url: str) -> None:
    cue = Cue(quantity="right_elbow_deg", measured=128.0, wanted=(150, 175), severity=1, sentence="Straighten it.")
    subscriber = Subscriber(url, "feedback.0\0", "health\0")
    subscriber.receive(serve=idle(publish))
    for sequence, cues in enumerate([[cue], [cue], [], [], [cue]]):
        publish.process(packet(sequence, feedback=cues))
    messages = [json.loads(subscriber.receive(only="feedback")[1]) for _ in range(3)]
    assert [(message["sequence"], message["frame"]) for message in messages] == [(0, 0), (1, 2), (2, 4)]
    assert [len(message["cues"]) for message in messages] == [1, 0, 1]
    subscriber.close()


def test_a_cue_of_a_dead_worker_is_taken_back_by_its_successor(url: str) -> None:
    publish = Publish(PublishSettings(url=url))
    publish.open(context(restarts=1))
    subscriber = Subscriber(url, "feedback.0\0", "health\0")
    subscriber.receive(serve=idle(publish))
    for sequence in range(3):
        publish.process(packet(sequence))
    taken_back = json.loads(subscriber.receive(only="feedback")[1])
    assert (taken_back["frame"], taken_back["cues"]) == (0, [])
    with pytest.raises(TimeoutError):
        subscriber.receive(timeout_s=0.3, only="feedback")
    subscriber.close()
    publish.close()


def test_the_same_words_for_another_pose_are_sent_again(publish: Publish, url: str) -> None:
    cue = Cue(quantity="left_knee_deg", measured=170.0, wanted=(120, 150), severity=1, sentence="Bend it.")
    subscriber = Subscriber(url, "feedback.0\0", "health\0")
    subscriber.receive(serve=idle(publish))
    for sequence, label in enumerate(["crown_thrust", "crown_thrust", "left_eye_thrust"]):
        named = Pose(label=label, confidence=0.9, accepted=True, family="", chamber="", probabilities={})
        publish.process(packet(sequence, pose=named, feedback=[cue]))
    messages = [json.loads(subscriber.receive(only="feedback")[1]) for _ in range(2)]
    assert [(said["frame"], said["label"]) for said in messages] == [(0, "crown_thrust"), (2, "left_eye_thrust")]
    subscriber.close()


def test_messagepack_holds_the_same(url: str) -> None:
    stage = Publish(PublishSettings(url=url, format="msgpack"))
    stage.open(context())
    subscriber = Subscriber(url, "")
    greetings = dict([subscriber.receive(serve=idle(stage)), subscriber.receive(serve=idle(stage))])
    assert msgspec.msgpack.decode(greetings["hello"])["program"] == "arnis-stream"
    subscriber.close()
    stage.close()


def test_a_subscriber_that_never_reads_costs_no_time_and_no_memory(publish: Publish, url: str) -> None:
    subscriber = Subscriber(url, "", rcvhwm=1)
    subscriber.receive(serve=idle(publish))
    before = psutil.Process().memory_info().rss
    cues = [Cue(quantity="x", measured=1, wanted=(2, 3), severity=1, sentence="s" * 20_000)]
    for sequence in range(5000):
        publish.process(packet(sequence, feedback=cues))
    assert psutil.Process().memory_info().rss - before < 40e6
    subscriber.close()


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


def test_the_pictures_rate_and_quality_can_be_set(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = [0], list[list[bytes]]()
    monkeypatch.setattr("stages.preview.now_ns", lambda: clock[0])
    monkeypatch.setattr("stages.preview.Publisher.send", lambda publisher, topic, jpeg: sent[-1].append(jpeg))
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for frames_fps, jpeg_quality in ((4.0, 20), (60.0, 20), (20.0, 95)):
        stage = Preview(PublishSettings(frames_url=url, frames_fps=frames_fps, jpeg_quality=jpeg_quality))
        stage.open(context())
        sent.append([])
        subscriber = Subscriber(url, "frame.0\0")
        until = time.monotonic() + 10
        while not CANVAS_DEMAND and time.monotonic() < until:
            stage.idle(0)
        for sequence in range(101):  # a second of 100 frames
            clock[0] = (100 + sequence) * NS_PER_S // 100
            stage.process(packet(sequence, canvas=noise))
        subscriber.close()
        stage.close()
    assert [len(pictures) for pictures in sent] == [5, 60, 21]
    assert len(sent[0][0]) < len(sent[2][0]) / 2


def test_pictures_are_drawn_and_sent_only_while_somebody_wants_them(url: str) -> None:
    stage = Preview(PublishSettings(frames_url=url, frames_fps=240))
    stage.open(context())
    canvas = np.full((48, 64, 3), 200, np.uint8)
    assert not CANVAS_DEMAND
    subscriber = Subscriber(url, "frame.0\0")

    def serve() -> None:
        if CANVAS_DEMAND:
            stage.process(packet(5, canvas=canvas))
        stage.idle(now_ns())

    topic, jpeg = subscriber.receive(serve=serve)
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert (topic, picture.shape) == ("frame.0", (48, 64, 3))
    (size,) = struct.unpack(">H", jpeg[4:6])  # behind the marker of a comment, FF FE
    comment = json.loads(jpeg[6 : 4 + size])
    assert (comment["sequence"], comment["frame"], "schema" in comment) == (0, 5, False)
    subscriber.close()
    until = time.monotonic() + 5
    while CANVAS_DEMAND and time.monotonic() < until:
        stage.idle(now_ns())
    assert not CANVAS_DEMAND
    stage.close()
