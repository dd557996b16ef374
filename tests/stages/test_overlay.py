"""The picture that a person sees, drawn from real packets."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from drawing import context, grey_picture, packet, standing_person

from stages.angles import QUANTITIES
from stages.feedback import Band, advise
from stages.overlay import Overlay, OverlaySettings, draw_overlay, figures_text, pose_text
from stages.packets import Cue, GateDecision, Stick
from stages.skeleton import KEYPOINT_NAMES
from stages.view import CANVAS_DEMAND


def coloured(canvas: np.ndarray, bgr: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((np.abs(canvas.astype(int) - bgr) < 12).all(axis=2))


def test_the_source_picture_is_not_changed() -> None:
    picture = grey_picture()
    draw_overlay(picture, packet(), fps=30.0, age_ms=23.0)
    assert (picture == 120).all()


def test_the_corrected_stick_is_drawn_from_grip_to_tip() -> None:
    canvas = draw_overlay(grey_picture(), packet(feedback=[]))
    assert tuple(canvas[269, 172]) == (60, 240, 250)


def test_the_tip_as_it_was_detected_is_drawn_thin_and_white() -> None:
    seen = packet(person=None, feedback=[])
    assert seen.stick is not None
    near_it = draw_overlay(grey_picture(), seen)[264:280, 112:140]
    assert 10 < (near_it.min(axis=2) > 180).sum() < 60
    seen.stick.detected_tip = None
    assert (draw_overlay(grey_picture(), seen)[264:280, 112:140] == 120).all()


def test_left_and_right_limbs_have_colours_of_their_own() -> None:
    canvas = draw_overlay(grey_picture(), packet(stick=None, feedback=[]))
    left, right, white = (255, 200, 70), (80, 160, 255), (255, 255, 255)
    for a, b, colour in ((7, 9, left), (8, 10, right), (13, 11, left), (16, 14, right), (5, 6, white), (9, 9, left)):
        x, y = standing_person().keypoints[[a, b], :2].mean(axis=0).round().astype(int)
        assert tuple(canvas[y, x]) == colour, (a, b)


@pytest.mark.parametrize("quantity", [*QUANTITIES, "left_hand_reach"])
def test_the_ring_is_around_what_the_cue_names(quantity: str) -> None:
    sentence = advise(quantity, -9.0, Band(0.0, 1.0, 50))
    cue = Cue(quantity=quantity, measured=-9.0, wanted=(0.0, 1.0), severity=1.0, sentence=sentence)
    shown = packet(feedback=[cue])
    assert shown.person is not None and shown.stick is not None
    canvas = draw_overlay(grey_picture(), shown)
    red = coloured(canvas, (80, 80, 255))[:, ::-1]
    words = {"hand": "wrist", "elbow": "elbow", "hip": "hip", "knee": "knee"}
    joints = [joint for word, joint in words.items() if f"{word} " in sentence or f"{word}." in sentence]
    if joints:
        side = "left" if "left" in sentence else "right"
        point = shown.person.keypoints[KEYPOINT_NAMES.index(f"{side}_{joints[0]}"), :2]
    elif "stick" in sentence:
        point = np.array((shown.stick.tip if "tip" in sentence else shown.stick.grip)[:2])
    else:
        assert not len(red), "the torso and the feet are no joint"
        return
    away = np.hypot(*(red - point).T)
    assert len(red) > 20 and away.min() >= 10 and away.max() <= 14
    x, y = point.round().astype(int)
    assert (canvas[y + 14 : y + 16, x] > 180).all(), "bright outside, for who sees no red"


def test_missing_keypoints_and_a_missing_tip_are_left_out() -> None:
    stick = Stick(hand="right", grip=(224.0, 288.0, 0.9), tip=(math.nan, math.nan, 0.0))
    canvas = draw_overlay(grey_picture(), packet(stick=stick, feedback=[]))
    assert (canvas[240:280, 100:190] == 120).all()


def test_accepted_unsure_and_neutral_look_different() -> None:
    pose = packet().pose
    assert pose is not None
    accepted = draw_overlay(grey_picture(), packet(feedback=[]))
    rejected = msgspec.structs.replace(pose, accepted=False, confidence=0.4)
    unsure = draw_overlay(grey_picture(), packet(status="unsure", pose=rejected, feedback=[]))
    neutral = draw_overlay(grey_picture(), packet(pose=msgspec.structs.replace(pose, label="neutral"), feedback=[]))
    green, amber = (110, 230, 110), (60, 190, 255)
    corners = [canvas[:100, :400] for canvas in (accepted, unsure, neutral)]
    assert [len(coloured(corner, green)) > 100 for corner in corners] == [True, False, False]
    assert [len(coloured(corner, amber)) > 100 for corner in corners] == [False, True, False]


def test_the_neutral_class_of_ones_own_classes_is_shown_without_emphasis(tmp_path: Path) -> None:
    entry = '[[class]]\nname = "{}"\nkind = "{}"\nfamily = "f"\nchamber = "c"\nside = "left"\ntext = "A."\n'
    (tmp_path / "classes.toml").write_text(entry.format("neutral", "strike") + entry.format("idle", "neutral"))
    picture = grey_picture()
    stage = Overlay(OverlaySettings(view="none", live_line="none"))
    own = {"classify": {"model": str(tmp_path)}}
    stage.open(msgspec.structs.replace(context(picture), sections=own))
    CANVAS_DEMAND.add("test")
    try:
        pose = packet().pose
        assert pose is not None
        shown = [stage.process(packet(pose=msgspec.structs.replace(pose, label=name), feedback=[])).canvas
                 for name in ("neutral", "idle")]  # fmt: skip
    finally:
        CANVAS_DEMAND.discard("test")
    corners = [canvas[:100, :400] for canvas in shown if canvas is not None]
    assert [len(coloured(corner, (110, 230, 110))) > 100 for corner in corners] == [True, False]


def test_a_frame_between_two_looks_at_a_movement_reads_like_the_look() -> None:
    pose = packet().pose
    assert pose is not None
    between = packet(status="held", gate=GateDecision(detect=False, reason="moving"))
    between.pose = msgspec.structs.replace(pose, age_frames=1)
    assert pose_text(between) == pose_text(packet())
    unsure = packet(status="unsure", pose=None, reason="no_stick", gate=GateDecision(detect=False, reason="moving"))
    assert pose_text(unsure) == "unsure (no stick)"


def test_a_held_result_reads_like_the_look_and_a_refused_guess_is_not_told() -> None:
    pose = packet().pose
    assert pose is not None
    held = packet(status="held", pose=msgspec.structs.replace(pose, age_frames=3))
    assert pose_text(held) == "left eye thrust 91 %"
    for label in ("left_eye_thrust", "neutral"):
        guess = msgspec.structs.replace(pose, label=label, accepted=False)
        assert pose_text(packet(status="unsure", pose=guess)) == "unsure"


def test_a_guess_that_is_one_of_two_is_told_as_such() -> None:
    pose = packet().pose
    assert pose is not None
    shares = {"right_eye_thrust": 0.5, "right_chest_thrust": 0.375}
    either = msgspec.structs.replace(
        pose, label="right_eye_thrust", confidence=0.5, accepted=False, alternative="right_chest_thrust",
        probabilities=shares,
    )  # fmt: skip
    assert pose_text(packet(status="unsure", pose=either)) == "right chest or eye thrust"
    corner = draw_overlay(grey_picture(), packet(pose=either, feedback=[]))[:100, :400]
    assert len(coloured(corner, (60, 190, 255))) > 100


def test_two_poses_too_long_for_a_line_take_two_of_full_size() -> None:
    pose = packet().pose
    assert pose is not None

    def rows(label: str, alternative: str) -> int:
        """Height of what is written in amber."""
        shares = {label: 0.5, alternative: 0.375}
        either = msgspec.structs.replace(
            pose, label=label, accepted=False, alternative=alternative, probabilities=shares
        )
        canvas = draw_overlay(np.full((640, 480, 3), 120, np.uint8), packet(pose=either, person=None, feedback=[]))
        return int(np.ptp(coloured(canvas, (60, 190, 255))[:, 0]))

    one, two = rows("left_knee_block", "right_knee_block"), rows("left_temple_block", "right_eye_thrust")
    assert one + 30 < two < 2.6 * one + 30


def test_who_leans_is_told_to_stand_straight_or_to_turn_the_camera() -> None:
    assert pose_text(packet(status="unsure", pose=None, reason="not_upright")) == (
        "unsure (not upright: stand straight, or turn the camera)"
    )


def test_a_left_hander_is_told_to_be_taken_for_one() -> None:
    seen = packet()
    assert seen.stick is not None and "left-handed" not in pose_text(seen)
    other = msgspec.structs.replace(seen.stick, hand="left")
    assert pose_text(packet(stick=other)) == pose_text(seen).replace(" 9", " (left-handed) 9")


def test_what_is_not_seen_is_said_with_its_reason() -> None:
    assert pose_text(packet(status="no_person", pose=None)) == "no person"
    assert pose_text(packet(status="unsure", pose=None, reason="tip_unsure")) == "unsure (tip unsure)"


def test_age_and_rate_are_shown() -> None:
    assert figures_text(29.84, 23.4) == "29.8 FPS  age 23 ms"


def test_every_cue_that_is_given_is_drawn() -> None:
    cues = 5 * [Cue(quantity="stance", measured=0, wanted=(1, 2), severity=1, sentence="Widen your stance.")]
    drawn = [draw_overlay(grey_picture(), packet(feedback=cues[:count])) for count in range(6)]
    assert all((fewer != more).any() for fewer, more in pairwise(drawn))


@pytest.mark.parametrize(("width", "height"), [(240, 320), (320, 240), (1280, 720), (3840, 2160)])
def test_a_bar_that_stands_in_is_hollow_and_can_be_seen(width: int, height: int) -> None:
    shown = [draw_overlay(np.full((height, width, 3), 215, np.uint8), packet(person=None, stick=None, feedback=[],
                          status=status)) for status in ("ok", "held")]  # fmt: skip
    full, hollow = (coloured(canvas, (110, 230, 110)) for canvas in shown)
    bar = full[full[:, 0] == full[:, 0].max()]  # its last row
    _, x = bar[len(bar) // 2]
    column = shown[1][: full[:, 0].max() + 1, x].astype(int)
    edge = column[::-1][: max(2, min(width, height) // 280)]
    assert (edge == (110, 230, 110)).all(), "as thick as the other lines"
    inside = column[::-1][len(edge) :]
    assert (inside[0] == (20, 20, 20)).all() or (inside[1] == (20, 20, 20)).all()
    assert 0 < len(hollow) < len(full)


def test_a_bar_is_as_long_as_the_answer_is_sure_and_not_hollow_between_two_looks_at_a_movement() -> None:
    pose = packet().pose
    assert pose is not None

    def bar_px(confidence: float, **changes: Any) -> int:
        sure = msgspec.structs.replace(pose, confidence=confidence)
        canvas = draw_overlay(grey_picture(), packet(person=None, stick=None, feedback=[], pose=sure, **changes))
        green = coloured(canvas, (110, 230, 110))
        return int((green[:, 0] == green[:, 0].max() - 4).sum())

    assert bar_px(0.88) == pytest.approx(2 * bar_px(0.44), rel=0.03)
    assert bar_px(0.88, status="held", gate=GateDecision(reason="moving")) == bar_px(0.88)
    assert bar_px(0.88, status="held", gate=GateDecision(reason="still")) < 9


def test_all_cues_of_a_frame_have_letters_of_one_size() -> None:
    long, short = "Turn the stick farther from the line of your forearm.", "Stand more upright."
    cues = [Cue(quantity="x", measured=0, wanted=(1, 2), severity=1, sentence=text) for text in (short, long)]
    canvas = draw_overlay(grey_picture(240, 320), packet(person=None, stick=None, feedback=cues))
    edges = np.flatnonzero(np.diff((canvas[160:, 7, 0] != 120).astype(int)))
    heights = (edges[1::2] - edges[::2]).tolist()
    assert len(heights) == 2 and heights[0] == heights[1]
    worst, other = ((canvas[160 + edges[n] + 2, :, 0] != 120).sum() for n in (0, 2))
    assert worst < 0.6 * other, "the worst is above the others"


def test_from_which_confidence_on_points_are_drawn_can_be_set() -> None:
    doubtful = packet(feedback=[])
    doubtful.person.keypoints[:, 2] = 0.4
    doubtful.stick.grip, doubtful.stick.tip = (224.0, 288.0, 0.4), (120.0, 250.0, 0.4)
    counts = []
    CANVAS_DEMAND.add("test")
    try:
        for sure in (0.3, 0.5):
            stage = Overlay(OverlaySettings(view="none", live_line="none", min_confidence=sure))
            stage.open(context(grey_picture()))
            canvas = stage.process(msgspec.structs.replace(doubtful)).canvas
            counts.append(len(coloured(canvas, (60, 240, 250))))
            assert (canvas[300:420, 250:400] != 120).any() == (sure == 0.3), "the body"
    finally:
        CANVAS_DEMAND.discard("test")
    assert counts[0] > 100 > counts[1] == 0


def test_a_mirrored_view_mirrors_the_picture_and_not_the_text() -> None:
    picture = grey_picture()
    picture[:, :40] = 250
    plain = draw_overlay(picture, packet(feedback=[]))
    mirrored = draw_overlay(picture, packet(feedback=[]), mirrored=True)
    assert (mirrored[300:400, -40:] == 250).all()
    # The right side of the pose's name lies over the same grey in both.
    assert (plain[:70, 41:180] == mirrored[:70, 41:180]).all()


@pytest.mark.parametrize(("width", "height"), [(854, 480), (1920, 1080), (1080, 1920), (64, 48), (32, 16), (8, 64)])
def test_text_keeps_inside_pictures_of_any_size(width: int, height: int) -> None:
    sentence = "Lift the elbow of your weapon arm. " * 4
    long = [Cue(quantity="x", measured=0, wanted=(1, 2), severity=1, sentence=sentence)]
    canvas = draw_overlay(grey_picture(width, height), packet(person=None, stick=None, feedback=long), fps=30, age_ms=9)
    assert canvas.shape == (height, width, 3)
    assert (canvas[:, -1] == 120).all() or width < 100


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720), (3840, 2160)])
def test_a_cue_can_be_read_from_three_metres(width: int, height: int) -> None:
    cue = Cue(quantity="x", measured=0, wanted=(1, 2), severity=1, sentence="HHH")
    shown = packet(person=None, stick=None, pose=None, feedback=[cue])
    rows = coloured(draw_overlay(grey_picture(width, height), shown), (60, 190, 255))[:, 0]
    rows = rows[rows > height / 2]
    window_mm = 0.85 * 174  # of the height of a laptop's screen of 14 inches
    capital_mm = (rows.max() - rows.min() + 1) / height * window_mm
    assert math.degrees(capital_mm / 3000) * 60 > 7.5, "arc minutes; good eyes need five"


def test_nothing_is_drawn_when_nobody_looks() -> None:
    stage = Overlay(OverlaySettings(view="none", live_line="none"))
    stage.open(context(grey_picture()))
    assert stage.process(packet()).canvas is None
    CANVAS_DEMAND.add("recording")
    try:
        assert stage.process(packet()).canvas is not None
    finally:
        CANVAS_DEMAND.discard("recording")
        stage.close()


def test_a_frame_that_was_overwritten_costs_only_the_picture() -> None:
    stage = Overlay(OverlaySettings(view="none", live_line="none"))
    stage.open(context(grey_picture(), overrun=True))
    CANVAS_DEMAND.add("recording")
    try:
        drawn = stage.process(packet())
    finally:
        CANVAS_DEMAND.discard("recording")
    assert (drawn.canvas, drawn.status) == (None, "ok")
