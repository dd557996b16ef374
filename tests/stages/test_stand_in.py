"""The last result stands in for a while, says how old it is, and never for another pose, person, stream or picture."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from gating import Rig, cue, first_frame, person, pose, stick, with_stick

from stages.packets import GateDecision, Person, Stick
from stages.result import result_of


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return first_frame()


def shifted(by_px: float) -> tuple[Person, Stick]:
    body, held = person(), stick()
    body.keypoints[:, 0] += by_px
    body.box = (50 + by_px, 50.0, 150 + by_px, 150.0)
    body.keypoints[3] = np.nan, np.nan, 0
    held.grip, held.tip = (100.0 + by_px, 100.0, 0.9), (150.0 + by_px, 60.0 - by_px, 0.8)
    return body, held


@pytest.mark.parametrize(("track", "expected_px"), [(1, 30.0), (2, 20.0)])
def test_between_two_looks_at_a_movement_body_and_stick_go_on_at_their_speed(
    picture: np.ndarray, track: int, expected_px: float
) -> None:
    rig, looks_at = Rig(), []
    for n, by_px in enumerate([0.0, 0.0, 0.0, 20.0, 0.0]):  # frames 1 and 3 are looked at, the last is in between
        packet = rig.motion.process(rig.packet(with_stick(picture, 12.0 * n)))
        looks_at.append(packet.gate.detect)
        if packet.gate.detect:
            packet.person, packet.stick = shifted(by_px)
            packet.person.track = track if n == 3 else 1
            packet.pose, packet.status = pose(), "ok"
        between = rig.stand_in.process(packet)
    assert looks_at == [True, True, False, True, False]
    assert between.person.keypoints[5, 0] == pytest.approx(100 + expected_px)
    assert np.isnan(between.person.keypoints[3, 0]) and between.person.age_frames == 1
    assert between.person.box == pytest.approx((50 + expected_px, 50, 150 + expected_px, 150))
    assert between.stick.tip == pytest.approx((150 + expected_px, 60 - expected_px, 0.8))


def test_two_looks_at_almost_the_same_time_throw_nobody_out_of_the_picture(picture: np.ndarray) -> None:
    rig = Rig()
    for n, (pts, by_px) in enumerate([(0.1, 0.0), (0.101, 20.0), (0.13, 0.0)]):
        packet = rig.packet(picture)
        packet.pts, packet.gate = pts, GateDecision(detect=n < 2, classify=n < 2, reason="moving" if n == 2 else None)
        if n < 2:
            packet.person, packet.stick = shifted(by_px)
            packet.pose, packet.status = pose(), "ok"
        packet = rig.stand_in.process(packet)
    assert packet.person.keypoints[5, 0] == pytest.approx(100 + 20 + 2 * 20)


@pytest.mark.parametrize(("apart_s", "hand"), [(0.2, "left"), (0.03, "right")])
def test_nothing_goes_on_after_looks_far_apart_and_no_stick_that_changed_hands(
    picture: np.ndarray, apart_s: float, hand: str
) -> None:
    rig = Rig()
    for n, (pts, by_px) in enumerate([(0.1, 0.0), (0.1 + apart_s, 20.0), (0.115 + apart_s, 0.0)]):
        packet = rig.packet(picture)
        packet.pts, packet.gate = pts, GateDecision(detect=n < 2, classify=n < 2, reason="moving" if n == 2 else None)
        if n < 2:
            packet.person, packet.stick = shifted(by_px)
            packet.stick.hand = hand if n else "left"
            packet.pose, packet.status = pose(), "ok"
        packet = rig.stand_in.process(packet)
    assert packet.stick.tip == pytest.approx((170, 40, 0.8)) and packet.stick.hand == hand
    assert packet.person.keypoints[5, 0] == pytest.approx(100 + (20 if apart_s > 0.1 else 30))


def test_what_was_seen_in_one_stream_does_not_stand_in_for_another() -> None:
    rig = Rig()
    for _ in range(5):
        rig.seen(rig.packet(stream="a"))
    other = rig.unsure(rig.packet(stream="b"))
    assert (other.status, other.pose) == ("unsure", None)
    assert rig.unsure(rig.packet(stream="a")).status == "held"


def test_a_held_packet_carries_the_last_result_and_its_age(picture: np.ndarray) -> None:
    rig = Rig()
    results = [rig.seen(rig.motion.process(rig.packet(picture))) for _ in range(4)]
    assert [r.status for r in results] == ["ok", "held", "held", "held"]
    assert [r.reason for r in results] == [None, "still", "still", "still"]
    assert [r.pose.age_frames for r in results] == [0, 1, 2, 3]
    assert all(r.person is not None and r.stick is not None and r.feedback == [cue()] for r in results)
    assert [r.person.age_frames for r in results] == [0, 1, 2, 3]


def test_a_still_picture_of_an_unknown_pose_stays_unsure(picture: np.ndarray) -> None:
    rig = Rig()
    first = rig.motion.process(rig.packet(picture))
    first.person, first.stick, first.status = person(), stick(), "unsure"
    first.pose = msgspec.structs.replace(pose(), accepted=False)
    rig.stand_in.process(first)
    second = rig.stand_in.process(rig.motion.process(rig.packet(picture)))
    assert second.status == "unsure"
    assert second.pose is not None and not second.pose.accepted and second.pose.age_frames == 1


def test_a_still_empty_picture_stays_empty(picture: np.ndarray) -> None:
    rig = Rig()
    first = rig.nobody(rig.motion.process(rig.packet(picture)))
    second = rig.stand_in.process(rig.motion.process(rig.packet(picture)))
    assert [first.status, second.status] == ["no_person", "no_person"]
    assert [result_of(packet).reason for packet in (first, second)] == ["no_person", "no_person"]


def test_a_repeat_has_the_reason_of_the_look_that_it_repeats(picture: np.ndarray) -> None:
    rig = Rig()
    looked_at = [rig.motion.process(rig.packet(picture)) for _ in range(2)]
    doubted = looked_at[0]
    doubted.person, doubted.stick = person(), stick()
    doubted = rig.confidence.process(doubted)
    doubted.pose, doubted.status = msgspec.structs.replace(pose(), accepted=False), "unsure"
    results = [result_of(rig.stand_in.process(packet)) for packet in looked_at]
    assert [(r.status, r.reason) for r in results] == [("unsure", None)] * 2, "the classifier was in doubt"
    rig = Rig()
    looked_at = [rig.motion.process(rig.packet(picture)) for _ in range(2)]
    looked_at[0].person = person()
    rig.confidence.process(looked_at[0])
    results = [result_of(rig.stand_in.process(packet)) for packet in looked_at]
    assert [(r.status, r.reason) for r in results] == [("unsure", "no_stick")] * 2


def test_an_accepted_result_stands_in_for_five_unsure_frames_and_no_more() -> None:
    rig = Rig(hold_frames=5)
    rig.seen(rig.packet())
    results = [rig.unsure(rig.packet()) for _ in range(7)]
    assert [r.status for r in results] == ["held"] * 5 + ["unsure"] * 2
    assert [r.pose.age_frames for r in results[:5]] == [1, 2, 3, 4, 5]
    assert results[6].reason == "body_unsure" and results[6].pose is None


def test_an_accepted_result_stands_in_while_the_person_is_lost_and_then_there_is_no_person() -> None:
    rig = Rig(hold_frames=2)
    rig.seen(rig.packet())
    results = [rig.nobody(rig.packet()) for _ in range(4)]
    assert [r.status for r in results] == ["held", "held", "no_person", "no_person"]
    assert results[0].person is not None and results[3].person is None
    assert results[0].stick == stick() and results[0].feedback == [cue()] and results[0].reason == "no_person"
    assert results[3].stick is None and results[3].feedback == []


def test_a_newer_rejected_pose_is_not_covered_by_an_older_accepted_one() -> None:
    rig = Rig()
    rig.seen(rig.packet())
    rejected = rig.packet()
    rejected.person, rejected.stick, rejected.gate, rejected.status = person(), stick(), GateDecision(), "unsure"
    rejected.pose = msgspec.structs.replace(pose("left_knee_block"), accepted=False)
    assert rig.stand_in.process(rejected).status == "unsure"
    assert rig.stand_in.process(rejected).pose.label == "left_knee_block"
    later = rig.unsure(rig.packet())
    assert (later.status, later.pose, later.feedback) == ("unsure", None, [])


def test_a_result_does_not_stand_in_for_another_person() -> None:
    rig = Rig()
    rig.seen(rig.packet())
    other = rig.packet()
    other.person = person(track=2)
    other = rig.stand_in.process(rig.confidence.process(other))
    assert (other.status, other.reason, other.pose) == ("unsure", "no_stick", None)


def test_nothing_stands_in_for_a_picture_that_was_lost_on_its_way(picture: np.ndarray) -> None:
    rig = Rig()
    rig.seen(rig.motion.process(rig.packet(picture)))
    other = with_stick(picture, 40.0)
    lost = [rig.motion.process(rig.packet(other)) for _ in range(2)]
    assert all(packet.gate.detect for packet in lost)  # and then their worker dies
    like_it = rig.seen(rig.motion.process(rig.packet(other)))
    assert (like_it.status, like_it.reason, like_it.pose) == ("unsure", "nothing_seen_yet", None)
