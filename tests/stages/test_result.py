"""One result, as other programs read it."""

from __future__ import annotations

import json
import math
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from engine.packet import FrameRef
from stages.packets import ArnisPacket, Cue, Person, Pose, Status, Stick
from stages.result import SCHEMA_FILE, Result, result_of, schema_text


def full_packet(**changes: Any) -> ArnisPacket:
    """A packet with everything on it; one keypoint was not found."""
    keypoints = np.tile(np.array([548.12, 131.04, 0.9723], np.float32), (17, 1))
    keypoints[4] = (math.nan, math.nan, 0.0)
    made = ArnisPacket(
        stream="0", sequence=412, pts=13.733, captured_at_ns=1_000_000_000, ready_at_ns=1_018_400_000,
        frame=FrameRef("s", 0, 2, 1280, 720),
        person=Person(track=1, box=(412.0, 88.5, 690.2, 702.94), score=0.93, keypoints=keypoints),
        stick=Stick(hand="right", grip=(470.3, 322.8, 0.94), tip=(255.0, 240.1, 0.91), method="evidence",
                    detected_tip=(262.4, 251.7)),
        pose=Pose(label="left_eye_thrust", confidence=0.914321, accepted=True, family="left_lead", chamber="high",
                  probabilities={"crown_thrust": 0.012345, "left_eye_thrust": 0.914321}),
        feedback=[Cue(quantity="right_elbow_deg", measured=128.00001, wanted=(150.1234, 175.0), severity=0.6,
                      sentence="Straighten your right elbow.")],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def as_json(packet: ArnisPacket) -> dict[str, Any]:
    return json.loads(msgspec.json.encode(result_of(packet)), parse_constant=pytest.fail)


def check(value: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(value)


def test_the_published_schema_is_that_of_the_code() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "run: python -m stages.result"


def test_the_schema_says_what_each_field_means() -> None:
    definitions = json.loads(SCHEMA_FILE.read_text())["$defs"]
    fields = {
        f"{kind}.{name}": field for kind, table in definitions.items() for name, field in table["properties"].items()
    }
    assert len(fields) > 50 and [name for name, field in fields.items() if not field.get("description")] == []


def test_the_schema_is_a_valid_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text()))


def test_a_result_reads_as_documented() -> None:
    result = as_json(full_packet(picture="b.jpg"))
    keys = ["schema", "stream", "sequence", "pts", "captured_at_ns", "picture", "latency_ms", "status", "reason"]
    assert list(result) == [*keys, "person", "stick", "pose", "feedback"]
    assert (result["latency_ms"], result["status"], result["reason"]) == (18.4, "ok", None)
    assert (result["sequence"], result["pts"], result["picture"]) == (412, 13.733, "b.jpg")
    assert result["person"]["keypoints"][0] == [548.1, 131.0, 0.9723]
    assert result["stick"] == {
        "hand": "right", "grip": [470.3, 322.8, 0.94], "tip": [255.0, 240.1, 0.91], "angle_deg": 159.0,
        "length_px": 230.6, "method": "evidence", "detected_tip": [262.4, 251.7],
    }  # fmt: skip
    assert result["pose"]["confidence"] == 0.9143
    assert result["pose"]["probabilities"] == {"crown_thrust": 0.0123, "left_eye_thrust": 0.9143}
    (cue,) = result["feedback"]
    assert (cue["sentence"], cue["wanted"]) == ("Straighten your right elbow.", [150.123, 175.0])
    check(result)


def test_what_was_not_found_is_null_and_never_nan() -> None:
    lost = Stick(hand="left", grip=(10.0, 10.0, 0.5), tip=(math.nan, math.nan, 0.0), detected_tip=(math.nan, 1.0))
    result = as_json(full_packet(stick=lost))
    assert result["person"]["keypoints"][4] is None
    assert [result["stick"][key] for key in ("tip", "angle_deg", "length_px", "detected_tip")] == [None] * 4
    check(result)


def test_a_share_that_a_network_computed_past_its_end_is_still_one() -> None:
    packet = full_packet()
    assert packet.person is not None
    packet.person.score, packet.person.keypoints[0, 2] = 1.00006, 1.00006
    result = as_json(packet)
    assert result["person"]["score"] == result["person"]["keypoints"][0][2] == 1.0
    check(result)


def test_a_stick_that_points_up_has_ninety_degrees() -> None:
    up = Stick(hand="right", grip=(100.0, 200.0, 0.9), tip=(100.0, 150.0, 0.9))
    stick = result_of(full_packet(stick=up)).stick
    assert stick is not None
    assert (stick.angle_deg, stick.length_px) == (90.0, 50.0)


@pytest.mark.parametrize("status", ["dropped", "source_lost", "end"])
def test_a_frame_that_was_not_processed_has_a_reason_and_nothing_else(status: Status) -> None:
    packet = full_packet()
    packet.end(status, "replaced")
    result = as_json(packet)
    assert result["reason"] == "replaced"
    assert not any(result[key] for key in ("latency_ms", "person", "stick", "pose", "feedback"))
    check(result)


def test_a_held_result_tells_why_no_fresh_one_was_made() -> None:
    packet = full_packet(status="held", reason="still")
    assert packet.pose is not None and packet.person is not None
    packet.pose.age_frames, packet.person.age_frames = 4, 2
    result = as_json(packet)
    assert (result["reason"], result["pose"]["age_frames"], result["person"]["age_frames"]) == ("still", 4, 2)
    check(result)


def test_no_person_is_a_valid_result() -> None:
    check(as_json(full_packet(status="no_person", person=None, stick=None, pose=None, feedback=[])))


def test_a_result_survives_both_encodings() -> None:
    result = result_of(full_packet())
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=Result) == result


def test_the_schema_says_what_the_fields_mean() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    assert "Left, top, right, bottom" in schema["$defs"]["PersonResult"]["properties"]["box"]["description"]
    assert "should not be shown" in schema["$defs"]["Pose"]["properties"]["accepted"]["description"]
    assert "counter-clockwise" in schema["$defs"]["StickResult"]["properties"]["angle_deg"]["description"]
