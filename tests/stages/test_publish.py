"""What subscribers and result files get, over real sockets and files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from subscribing import Subscriber, context, idle, packet

from engine.chain import Chain
from engine.clock import now_ns
from engine.errors import UserError
from stages.classes import load_classes
from stages.outputs import check_writable
from stages.packets import Cue, Pose
from stages.publish import Publish, Results, ResultsSettings
from stages.publisher import PublishSettings


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
    for restarts, last in ((0, "crown_thrust"), (1, "all since the last restart")):
        stage = Results(ResultsSettings())
        stage.open(context(restarts))
        for sequence in (0, 1):
            stage.process(msgspec.structs.replace(packet(sequence), status="ok", pose=pose))
        assert list(stage.describe())[-1] == last


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
