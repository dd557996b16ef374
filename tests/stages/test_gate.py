"""Frames that show nothing new are skipped, and guesses are not made."""

from __future__ import annotations

from itertools import permutations

import cv2
import numpy as np
import pytest
from gating import CLIP, Rig, first_frame, person, stick, with_stick

from engine.stage import FrameOverrun
from stages.gate import GateSettings, HeldStick, motion_between, shrink_grey
from stages.packets import ArnisPacket


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return first_frame()


def motion(before: np.ndarray, after: np.ndarray) -> float:
    return motion_between(shrink_grey(before), shrink_grey(after))


def noisy(picture: np.ndarray, seed: int, grey_levels: float = 6.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, grey_levels, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_a_moving_tip_alone_is_motion(picture: np.ndarray) -> None:
    still, moved = with_stick(picture, 40), with_stick(picture, 45)
    assert motion(still, moved) > GateSettings().motion_threshold


def test_what_covers_a_handful_of_cells_is_motion(picture: np.ndarray) -> None:
    changed = picture.copy()
    changed[400:424, 300:324] += 40
    assert motion(picture, changed) > GateSettings().motion_threshold


def test_what_comes_out_of_the_dark_is_motion(picture: np.ndarray) -> None:
    assert motion(np.zeros_like(picture), picture) > GateSettings().motion_threshold


def test_another_scene_is_motion(picture: np.ndarray) -> None:
    clips = [clip for clip in sorted(CLIP.parent.glob("*.mp4")) if clip != CLIP]
    scenes = [shrink_grey(cv2.resize(first_frame(clip), picture.shape[1::-1])) for clip in clips]
    scenes += [shrink_grey(picture), shrink_grey(picture[:, ::-1]), shrink_grey(picture[::-1])]
    for before, after in permutations(scenes, 2):
        assert motion_between(before, after) > GateSettings().motion_threshold


def test_a_large_thing_that_changes_sides_is_motion_and_no_change_of_exposure() -> None:
    before, after = np.full((2, 54, 96), 50, np.float32)
    before[:, :48] = after[:, 48:] = 150
    assert motion_between(before, after) > 50


def test_camera_noise_is_no_motion(picture: np.ndarray) -> None:
    assert motion(noisy(picture, 1), noisy(picture, 2)) < GateSettings().motion_threshold / 2
    small = cv2.resize(picture, (320, 180), interpolation=cv2.INTER_AREA)
    assert motion(noisy(small, 1, 20.0), noisy(small, 2, 20.0)) < GateSettings().motion_threshold / 2


@pytest.mark.parametrize(("gain", "offset"), [(0.85, 6), (0.6, 60)])
def test_a_change_of_exposure_is_no_motion(picture: np.ndarray, gain: float, offset: float) -> None:
    changed = np.clip(picture * gain + offset, 0, 255).astype(np.uint8)
    assert motion(picture, changed) < GateSettings().motion_threshold / 2


def test_jpeg_artefacts_are_no_motion(picture: np.ndarray) -> None:
    compressed = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    assert motion(picture, compressed) < GateSettings().motion_threshold / 2


def test_a_portrait_picture_keeps_its_orientation() -> None:
    assert shrink_grey(np.zeros((1280, 720, 3), np.uint8)).shape == (96, 54)
    assert shrink_grey(np.zeros((720, 1280, 3), np.uint8)).shape == (54, 96)
    assert shrink_grey(np.zeros((31, 17, 3), np.uint8)).shape == (96, 54)


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
    assert looks(Rig(), picture, [0, 0, 20, 40, 60, 60, 60, 80], 1 / 30).startswith("DsDmD")
    assert looks(Rig(), picture, [0, 20, 40, 40], 1 / 30) == "DDmD"


def test_who_comes_to_rest_is_looked_at_once_more(picture: np.ndarray) -> None:
    assert looks(Rig(), picture, [0, 0, 20, 40, 60, 60, 60, 80], 1 / 30) == "DsDmDDsD"
    assert looks(Rig(), picture, [0, 20, 20, 20, 40], 1 / 60) == "DDDsD", "it was still in between"


def test_a_held_picture_that_is_detected_anew_is_told_from_one_that_moves(picture: np.ndarray) -> None:
    rig = Rig(hold_frames=1)
    gates = [rig.motion.process(rig.packet(with_stick(picture, angle))).gate for angle in (0, 0, 0, 20)]
    assert [(gate.detect, gate.still) for gate in gates] == [(True, False), (False, True), (True, True), (True, False)]


def test_no_moving_frame_is_skipped_without_a_rest(picture: np.ndarray) -> None:
    assert looks(Rig(moving_rest_s=0), picture, [12.0 * n for n in range(6)], 1 / 30) == "DDDDDD"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "DsDDsD"),
        ({"motion_threshold": 200.0}, "Dsssss"),
        ({"hold_frames": 0}, "DDDDDD"),
        ({"hold_s": 0.01}, "DDDDDD"),
    ],
)
def test_the_settings_of_the_motion_gate_are_read(
    picture: np.ndarray, settings: dict[str, float], expected: str
) -> None:
    assert looks(Rig(**settings), picture, [0, 0, 20, 20, 20, 40], 1 / 30) == expected


def test_a_picture_of_another_size_is_another_picture(picture: np.ndarray) -> None:
    portrait, half = np.ascontiguousarray(picture.transpose(1, 0, 2)), cv2.resize(picture, None, fx=0.5, fy=0.5)
    for other in (portrait, half):
        rig = Rig()
        gates = [rig.motion.process(rig.packet(shown)).gate for shown in (picture, other, other, picture)]
        assert [gate.detect for gate in gates] == [True, True, False, True]


def test_streams_do_not_disturb_each_other(picture: np.ndarray) -> None:
    rig = Rig()
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    gates = [rig.motion.process(rig.packet(p, s)).gate for p, s in [(picture, "a"), (mirrored, "b")] * 2]
    assert [g.detect for g in gates] == [True, True, False, False]


def test_a_stick_that_was_seen_in_one_stream_is_not_remembered_in_another() -> None:
    rig = Rig()
    for _ in range(5):
        rig.seen(rig.packet(stream="a"))
    for stream, reason in (("b", "no_stick"), ("a", None)):
        packet = rig.packet(stream=stream)
        packet.person = person()
        assert rig.confidence.process(packet).gate.reason == reason


@pytest.mark.parametrize(
    ("sequence", "pts", "may"),
    [(10, 1.0, True), (15, 2.0, True), (16, 1.5, False), (12, 2.1, False), (9, 1.0, False), (11, 0.9, False)],
)
def test_a_result_stands_in_for_five_frames_and_a_second_and_never_for_earlier_ones(
    sequence: int, pts: float, may: bool
) -> None:
    packet = ArnisPacket(stream="0", sequence=sequence, pts=pts, captured_at_ns=1)
    assert GateSettings(hold_frames=5, hold_s=1.0).may_stand_in(10, 1.0, packet) == may


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


def test_a_body_of_which_half_is_not_in_the_picture_is_not_classified() -> None:
    rig = Rig()
    packet = rig.packet()
    packet.person, packet.stick = person(0.7), stick()
    packet.person.keypoints[9:] = np.nan, np.nan, 0
    assert rig.confidence.process(packet).gate.reason == "body_unsure"


@pytest.mark.parametrize(("turned", "reason"), [(0, None), (1, "not_upright"), (2, "not_upright"), (3, "not_upright")])
def test_who_lies_across_the_picture_is_not_classified(turned: int, reason: str | None) -> None:
    rig = Rig()
    packet = rig.packet()
    packet.person, packet.stick = person(0.9), stick()
    for _ in range(turned):  # by a quarter
        packet.person.keypoints[:, :2] = packet.person.keypoints[:, 1::-1] * (-1, 1)
    assert rig.confidence.process(packet).gate.reason == reason
    packet = rig.packet()
    packet.person, packet.stick = person(0.9), stick()
    packet.person.keypoints[[11, 12]] = np.nan, np.nan, 0
    assert rig.confidence.process(packet).gate.reason is None, "without hips nothing tells"


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


def test_a_hand_that_is_told_is_the_weapon_hand_also_where_no_stick_is_seen() -> None:
    for hand, known in (("left", "left"), ("weapon_hand", None)):
        rig = Rig(hand=hand, need_stick=False)
        packet = rig.packet()
        packet.person = person()
        stick = rig.confidence.process(packet).stick
        assert (stick and stick.hand) == known


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
    assert set(outcomes[:29]) == {(True, "left")}
    assert set(outcomes[31:]) == {(False, None)}


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


def test_one_look_after_a_pause_is_not_enough_to_believe_in_a_stick() -> None:
    held = HeldStick(track=1)
    for n in range(30):
        assert held.look(None, n / 30, 3.0) is None
    assert held.look("left", 4.0, 3.0) is None


def test_a_stick_that_was_seen_later_is_not_remembered_when_time_goes_back() -> None:
    held = HeldStick(track=1)
    for n in range(10):
        held.look("left", 10 + n / 30, 3.0)
    assert (held.look(None, 10.5, 3.0), held.look(None, 2.0, 3.0)) == ("left", None)


def test_a_stick_that_is_seen_less_than_half_of_the_time_is_not_remembered() -> None:
    held = HeldStick(track=1)
    seen = [held.look("left" if n > 30 and n % 5 < 2 else None, n / 30, 3.0) for n in range(100)]
    assert "left" in seen and seen[-1] is None


def test_a_stick_that_was_seen_a_few_times_is_not_remembered() -> None:
    rig = Rig()
    for _ in range(4):
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
