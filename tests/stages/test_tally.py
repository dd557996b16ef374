"""How long poses were held."""

from __future__ import annotations

import pytest

from stages.packets import ArnisPacket, Pose
from stages.tally import PoseTally


def packet(pts: float, label: str, *, accepted: bool = True, stream: str = "0") -> ArnisPacket:
    pose = Pose(label=label, confidence=0.9, accepted=accepted, family="", chamber="", probabilities={})
    status = "ok" if accepted else "unsure"
    return ArnisPacket(stream=stream, sequence=0, pts=pts, captured_at_ns=0, status=status, pose=pose)


def test_time_goes_to_the_accepted_pose_and_a_pause_to_none() -> None:
    tally = PoseTally()
    for pts in (0.0, 0.5, 1.0):
        tally.count(packet(pts, "crown_thrust"))
    tally.count(packet(1.5, "left_knee_block", accepted=False))
    tally.count(packet(2.0, "neutral"))
    tally.count(packet(30.0, "neutral"))
    for pts in (31.0, 32.0):
        tally.count(packet(pts, "left_knee_block"))
    assert list(tally.seconds().items()) == [("left_knee_block", 2.0), ("crown_thrust", 1.0), ("neutral", 0.5)]


def test_the_time_of_dropped_frames_is_not_lost() -> None:
    tally = PoseTally()
    for number in range(11):
        shown = packet(number / 10, "crown_thrust")
        if number % 2:
            shown.end("dropped", "replaced")
        tally.count(shown)
    assert tally.seconds() == {"crown_thrust": 1.0}


def test_pictures_are_counted() -> None:
    tally = PoseTally()
    for pts, label in enumerate(("left_knee_block", "crown_thrust", "crown_thrust")):
        shown = packet(5.0 * pts, label)
        shown.picture = f"{pts}.jpg"
        tally.count(shown)
    assert list(tally.told().items()) == [("crown_thrust", "2 pictures"), ("left_knee_block", "1 picture")]
    for pts in (0.0, 0.7):
        tally.count(packet(pts, "left_knee_block", stream="camera"))
    assert tally.told() == {"left_knee_block": "0.7 s and 1 picture", "crown_thrust": "2 pictures"}
    shown = packet(10.1, "crown_thrust")
    shown.picture = "at_once.jpg"
    tally.count(shown)
    assert tally.told() == {"left_knee_block": "0.7 s", "crown_thrust": "0.1 s"}, "played as a film"


def test_streams_are_timed_apart() -> None:
    tally = PoseTally()
    for pts in (0.0, 0.2):
        for stream, offset in (("0", 0.0), ("1", 100.0)):
            tally.count(packet(pts + offset, "neutral", stream=stream))
    assert tally.seconds()["neutral"] == pytest.approx(0.4)
