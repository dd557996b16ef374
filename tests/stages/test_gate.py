"""Frames that show nothing new are skipped, guesses are not made, and the last result stands in for a while."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from engine.frames import OwnedFrames
from engine.stage import Context, FrameOverrun
from stages.gate import ConfidenceGate, GateSettings, MotionGate, StandIn, motion_between, shrink_grey
from stages.packets import ArnisPacket, Cue, GateDecision, Person, Pose, Stick

CLIP = Path(__file__).parent.parent / "clips" / "sam2_juggle.mp4"


def first_frame(clip: Path) -> np.ndarray:
    capture = cv2.VideoCapture(str(clip))
    found, frame = capture.read()
    capture.release()
    assert found
    return frame


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A real frame, 720p."""
    return first_frame(CLIP)


def with_stick(picture: np.ndarray, angle_deg: float) -> np.ndarray:
    """The frame with a rattan-coloured stick drawn from one fixed grip."""
    drawn, angle = picture.copy(), np.radians(angle_deg)
    tip = (int(560 + 180 * np.cos(angle)), int(330 - 180 * np.sin(angle)))
    cv2.line(drawn, (560, 330), tip, (90, 150, 195), 7, cv2.LINE_AA)
    return drawn


def motion(before: np.ndarray, after: np.ndarray) -> float:
    return motion_between(shrink_grey(before), shrink_grey(after))


def noisy(picture: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 6, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_a_moving_tip_alone_is_motion(picture: np.ndarray) -> None:
    still, moved = with_stick(picture, 40), with_stick(picture, 45)
    assert motion(still, moved) > GateSettings().motion_threshold


def test_another_scene_is_motion(picture: np.ndarray) -> None:
    clips = [clip for clip in sorted(CLIP.parent.glob("*.mp4")) if clip != CLIP]
    scenes = [shrink_grey(cv2.resize(first_frame(clip), picture.shape[1::-1])) for clip in clips]
    scenes += [shrink_grey(picture), shrink_grey(picture[:, ::-1]), shrink_grey(picture[::-1])]
    for before, after in permutations(scenes, 2):
        assert motion_between(before, after) > GateSettings().motion_threshold


def test_camera_noise_is_no_motion(picture: np.ndarray) -> None:
    assert motion(noisy(picture, 1), noisy(picture, 2)) < GateSettings().motion_threshold / 2


def test_a_change_of_exposure_is_no_motion(picture: np.ndarray) -> None:
    darker = np.clip(picture * 0.85 + 6, 0, 255).astype(np.uint8)
    assert motion(picture, darker) < GateSettings().motion_threshold / 2


def test_jpeg_artefacts_are_no_motion(picture: np.ndarray) -> None:
    compressed = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    assert motion(picture, compressed) < GateSettings().motion_threshold / 2


def test_a_portrait_picture_keeps_its_orientation() -> None:
    assert shrink_grey(np.zeros((1280, 720, 3), np.uint8)).shape == (96, 54)
    assert shrink_grey(np.zeros((720, 1280, 3), np.uint8)).shape == (54, 96)
    assert shrink_grey(np.zeros((31, 17, 3), np.uint8)).shape == (96, 54)


class Rig:
    """The three stages over frames that lie in memory, as a worker calls them."""

    def __init__(self, **settings: object) -> None:
        self.settings = msgspec.convert(settings, GateSettings)
        self.frames = OwnedFrames("0")
        self.motion = MotionGate(self.settings)
        self.confidence = ConfidenceGate(self.settings)
        self.stand_in = StandIn(self.settings)
        context = Context(
            worker="w", streams=["0"], frames=self.frames, request_stop=lambda: None, health=dict
        )  # fmt: skip
        for stage in (self.motion, self.confidence, self.stand_in):
            stage.open(context)
        self.sequence = -1

    def packet(self, picture: np.ndarray | None = None, stream: str = "0", step_s: float = 1 / 30) -> ArnisPacket:
        self.sequence += 1
        ref = None
        if picture is not None:
            np.copyto(self.frames.begin(*picture.shape[:2], busy=range(1000)), picture)
            ref = self.frames.commit(self.sequence)
        return ArnisPacket(
            stream=stream, sequence=self.sequence, pts=self.sequence * step_s, captured_at_ns=1, frame=ref
        )  # fmt: skip

    def seen(self, packet: ArnisPacket) -> ArnisPacket:
        """What a confident detector and classifier would add, after the motion gate."""
        if packet.gate is None or packet.gate.detect:
            packet.person, packet.stick = person(), stick()
            packet = self.confidence.process(packet)
            packet.pose, packet.feedback, packet.status = pose(), [cue()], "ok"
        return self.stand_in.process(packet)

    def unsure(self, packet: ArnisPacket) -> ArnisPacket:
        """The same with a body that was hardly seen."""
        packet.person, packet.stick = person(confidence=0.2), stick()
        return self.stand_in.process(self.confidence.process(packet))

    def nobody(self, packet: ArnisPacket) -> ArnisPacket:
        return self.stand_in.process(self.confidence.process(packet))


def person(confidence: float = 0.9, track: int = 1) -> Person:
    keypoints = np.full((17, 3), 100, np.float32)
    keypoints[:, 2] = confidence
    return Person(track=track, box=(50.0, 50.0, 150.0, 150.0), score=0.9, keypoints=keypoints)


def stick(grip: float = 0.9, tip: float = 0.9) -> Stick:
    return Stick(hand="left", grip=(100.0, 100.0, grip), tip=(150.0, 60.0, tip))


def pose(label: str = "crown_thrust") -> Pose:
    return Pose(
        label=label, confidence=0.9, accepted=True, family="left_lead", chamber="high", probabilities={label: 0.9}
    )  # fmt: skip


def cue() -> Cue:
    return Cue(quantity="stick_deg", measured=10.0, wanted=(30.0, 60.0), severity=1.3, sentence="Raise the tip.")


def test_a_still_picture_is_detected_again_only_after_the_allowed_frames(picture: np.ndarray) -> None:
    rig = Rig(hold_frames=5)
    detected = [rig.motion.process(rig.packet(noisy(picture, n))).gate.detect for n in range(13)]
    assert detected == [True] + [False] * 5 + [True] + [False] * 5 + [True]


def test_a_slow_drift_is_noticed_because_frames_are_compared_with_the_last_detected_one(picture: np.ndarray) -> None:
    rig = Rig(hold_frames=300, hold_s=10.0)
    detected = [rig.motion.process(rig.packet(with_stick(picture, 40 + 0.3 * n))).gate.detect for n in range(30)]
    assert 2 <= sum(detected) < 20


def looks(rig: Rig, picture: np.ndarray, angles: list[float], step_s: float) -> str:
    """D for each frame that is detected, m and s for those skipped as moving and as still."""
    gates = [rig.motion.process(rig.packet(with_stick(picture, angle), step_s=step_s)).gate for angle in angles]
    return "".join("D" if gate.detect else gate.reason[0] for gate in gates)


@pytest.mark.parametrize(("fps", "expected"), [(30, "DDmDmDmD"), (60, "DDmmDmmD"), (25, "DDDDDDDD"), (20, "DDDDDDDD")])
def test_of_a_picture_that_keeps_moving_fifteen_to_twenty_five_frames_a_second_are_detected(
    picture: np.ndarray, fps: int, expected: str
) -> None:
    assert looks(Rig(), picture, [12.0 * n for n in range(8)], 1 / fps) == expected


def test_the_first_frame_that_moves_is_detected_at_once_and_so_is_the_one_that_ends_a_move(picture: np.ndarray) -> None:
    assert looks(Rig(), picture, [0, 0, 20, 40, 60, 60, 60, 80], 1 / 30) == "DsDmDssD"
    assert looks(Rig(), picture, [0, 20, 40, 40, 40], 1 / 30) == "DDmDs"


def test_no_moving_frame_is_skipped_without_a_rest(picture: np.ndarray) -> None:
    assert looks(Rig(moving_rest_s=0), picture, [12.0 * n for n in range(6)], 1 / 30) == "DDDDDD"


def shifted(by_px: float) -> tuple[Person, Stick]:
    body, held = person(), stick()
    body.keypoints[:, 0] += by_px
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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "DsDsD"),
        ({"motion_threshold": 200.0}, "Dssss"),
        ({"hold_frames": 0}, "DDDDD"),
        ({"hold_s": 0.01}, "DDDDD"),
    ],
)
def test_the_settings_of_the_motion_gate_are_read(
    picture: np.ndarray, settings: dict[str, float], expected: str
) -> None:
    assert looks(Rig(**settings), picture, [0, 0, 20, 20, 40], 1 / 30) == expected


def test_streams_do_not_disturb_each_other(picture: np.ndarray) -> None:
    rig = Rig()
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    gates = [rig.motion.process(rig.packet(p, s)).gate for p, s in [(picture, "a"), (mirrored, "b")] * 2]
    assert [g.detect for g in gates] == [True, True, False, False]


def test_what_was_seen_in_one_stream_does_not_stand_in_for_another() -> None:
    rig = Rig()
    for _ in range(5):
        rig.seen(rig.packet(stream="a"))
    other = rig.unsure(rig.packet(stream="b"))
    assert (other.status, other.pose) == ("unsure", None)
    assert rig.unsure(rig.packet(stream="a")).status == "held"


def test_a_stick_that_was_seen_in_one_stream_is_not_remembered_in_another() -> None:
    rig = Rig()
    for _ in range(5):
        rig.seen(rig.packet(stream="a"))
    for stream, reason in (("b", "no_stick"), ("a", None)):
        packet = rig.packet(stream=stream)
        packet.person = person()
        assert rig.confidence.process(packet).gate.reason == reason


def test_a_gap_in_time_ends_a_hold(picture: np.ndarray) -> None:
    rig = Rig()
    assert all(rig.motion.process(rig.packet(picture, step_s=2.0)).gate.detect for _ in range(3))


def test_motion_gating_can_be_switched_off(picture: np.ndarray) -> None:
    rig = Rig(motion=False)
    assert all(rig.motion.process(rig.packet(picture)).gate.detect for _ in range(3))


def test_an_overwritten_frame_is_told_and_not_hidden(picture: np.ndarray) -> None:
    rig = Rig()
    packet = rig.packet(picture)
    rig.frames.drop(packet.frame)
    with pytest.raises(FrameOverrun):
        rig.motion.process(packet)


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


@pytest.mark.parametrize(
    ("body", "grip", "tip", "reason"),
    [
        (0.9, 0.9, 0.9, None),
        (0.35, 0.9, 0.9, "body_unsure"),
        (0.9, 0.2, 0.9, "grip_unsure"),
        (0.9, 0.9, 0.2, "tip_unsure"),
    ],
)
def test_too_little_confidence_stops_the_classifier(body: float, grip: float, tip: float, reason: str | None) -> None:
    rig = Rig()
    packet = rig.packet()
    packet.person, packet.stick = person(body), stick(grip, tip)
    gate = rig.confidence.process(packet).gate
    assert gate is not None and gate.classify == (reason is None) and gate.reason == reason


@pytest.mark.parametrize(
    ("settings", "reason", "after"),
    [
        ({}, "body_unsure", "body_unsure"),
        ({"min_body": 0.3}, "grip_unsure", "no_stick"),
        ({"min_body": 0.3, "min_stick": 0.2}, None, None),
    ],
)
def test_how_sure_body_and_stick_must_be_can_be_set(
    settings: dict[str, float], reason: str | None, after: str | None
) -> None:
    """`after`: when nothing is seen of the stick any more, one that was seen is remembered."""
    rig = Rig(**settings)
    reasons = []
    for n in range(6):
        packet = rig.packet()
        packet.person, packet.stick = person(0.35), stick(grip=0.25) if n < 5 else None
        reasons.append(rig.confidence.process(packet).gate.reason)
    assert reasons[4:] == [reason, after]


def test_nobody_without_a_stick_is_classified_unless_the_stick_is_not_needed() -> None:
    for need, reason in ((True, "no_stick"), (False, None)):
        rig = Rig(need_stick=need)
        packet = rig.packet()
        packet.person = person()
        assert rig.confidence.process(packet).gate.reason == reason


def test_a_stick_that_turns_to_the_lens_still_counts_as_held_for_a_while() -> None:
    rig = Rig(stick_memory_s=1.0)
    for _ in range(5):
        rig.seen(rig.packet())
    outcomes = []
    for _ in range(40):
        packet = rig.packet()
        packet.person = person()
        packet = rig.confidence.process(packet)
        outcomes.append((packet.gate.classify, packet.stick and packet.stick.hand))
    assert outcomes[0] == (True, "left")
    assert outcomes[-1] == (False, None)


def test_one_false_stick_in_a_video_without_one_names_no_pose() -> None:
    rig = Rig()
    reasons = []
    for n in range(120):
        packet = rig.packet()
        packet.person = person()
        packet.stick = stick() if n in (40, 41, 90) else None
        packet = rig.confidence.process(packet)
        reasons.append(packet.gate.reason)
        assert packet.stick is None
    assert set(reasons) == {"no_stick"}


def test_a_stick_that_is_picked_up_counts_after_a_moment() -> None:
    rig = Rig()
    for _ in range(60):
        packet = rig.packet()
        packet.person = person()
        rig.confidence.process(packet)
    assert 2 <= [rig.seen(rig.packet()).gate.classify for _ in range(20)].index(True) <= 10


def test_a_stick_that_was_seen_once_is_not_remembered() -> None:
    rig = Rig()
    rig.seen(rig.packet())
    packet = rig.packet()
    packet.person = person()
    assert rig.confidence.process(packet).gate.reason == "no_stick"


def test_the_stick_of_another_person_is_not_remembered() -> None:
    rig = Rig()
    for _ in range(5):
        rig.seen(rig.packet())
    packet = rig.packet()
    packet.person = person(track=2)
    assert rig.confidence.process(packet).gate.reason == "no_stick"


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
    lost = rig.motion.process(rig.packet(other))
    assert lost.gate.detect  # and then its worker dies
    like_it = rig.seen(rig.motion.process(rig.packet(other)))
    assert (like_it.status, like_it.reason, like_it.pose) == ("unsure", "nothing_seen_yet", None)
