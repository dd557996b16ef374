"""The stick is put where the picture shows it, and left alone where the picture shows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
import pytest

from engine.frames import OwnedFrames
from engine.stage import Context
from stages.correct import Correct, CorrectSettings, clamp_to_forearm, refine_stick, wrap_deg
from stages.packets import ArnisPacket, GateDecision, Person, Stick
from stages.skeleton import (
    LEFT_ELBOW,
    LEFT_HIP,
    LEFT_SHOULDER,
    LEFT_WRIST,
    RIGHT_ELBOW,
    RIGHT_HIP,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)

CLIPS = Path(__file__).parent.parent / "clips"
TORSO_PX = 150.0
ACCEPT = {"min_evidence": CorrectSettings().min_evidence, "min_margin": CorrectSettings().min_margin}


class Drawn(NamedTuple):
    """A picture with a stick whose ends are known, and what a mediocre detector would say of it."""

    picture: np.ndarray
    grip: np.ndarray
    tip: np.ndarray
    said_grip: np.ndarray
    said_tip: np.ndarray

    def tip_error(self, tip: np.ndarray) -> float:
        """In stick lengths."""
        return float(np.hypot(*(tip - self.tip)) / np.hypot(*(self.tip - self.grip)))


def draw_stick(
    picture: np.ndarray, grip: np.ndarray, tip: np.ndarray, width_px: float, colour: np.ndarray
) -> np.ndarray:
    """A shaded rod with the butt behind the grip, anti-aliased, and a fist round the grip. Pixel 0 reaches from 0 to 1,
    while OpenCV draws from the middle of one to that of another."""
    axis = (tip - grip) / np.hypot(*(tip - grip))
    normal, butt = np.array([-axis[1], axis[0]]), grip - 0.15 * TORSO_PX * axis
    result = picture.copy()
    for share, shade in ((1.0, 0.75), (0.6, 0.95), (0.25, 1.1)):
        half = normal * width_px * share / 2
        corners = np.array([butt + half, butt - half, tip - half, tip + half])
        paint = np.clip(colour * shade, 0, 255).tolist()
        cv2.fillPoly(result, [np.rint(16 * (corners - 0.5)).astype(np.int32)], paint, cv2.LINE_AA, 4)
    fist = tuple(int(v) for v in grip)
    cv2.circle(result, fist, int(0.07 * TORSO_PX), (105, 130, 190), -1, cv2.LINE_AA)
    return result


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Real backgrounds: trees and grass, a laboratory, a room."""
    found = []
    for name in ("sam2_juggle.mp4", "pose2sim_single_cam01.mp4", "tfjs_pose_1.mp4"):
        capture = cv2.VideoCapture(str(CLIPS / name))
        found += [capture.read()[1] for _ in range(2)]
        capture.release()
    return found


@pytest.fixture(scope="module")
def sticks(frames: list[np.ndarray]) -> list[Drawn]:
    """Sixty sticks; the detector errs by 6 degrees (normal), 10 % of the length and 1.5 % of the torso in the grip."""
    rng, drawn = np.random.default_rng(4), []
    while len(drawn) < 60:
        frame = frames[rng.integers(len(frames))]
        size = np.array(frame.shape[1::-1])
        angle, length = rng.uniform(0, 2 * np.pi), TORSO_PX * rng.uniform(0.7, 1.25)
        grip = rng.uniform(0.2, 0.8, 2) * size
        tip = grip + length * np.array([np.cos(angle), np.sin(angle)])
        if (tip < 5).any() or (tip > size - 5).any():
            continue
        colour = np.array([82, 140, 184]) * rng.uniform(0.5, 1.25)
        said = angle + np.radians(rng.normal(0, 6))
        said_grip = grip + rng.normal(0, 0.015 * TORSO_PX, 2)
        said_tip = said_grip + length * rng.uniform(0.9, 1.1) * np.array([np.cos(said), np.sin(said)])
        picture = draw_stick(frame, grip, tip, TORSO_PX * rng.uniform(0.03, 0.05), colour)
        drawn.append(Drawn(picture, grip, tip, said_grip, said_tip))
    return drawn


def refined_tips(sticks: list[Drawn]) -> list[np.ndarray]:
    found = [refine_stick(s.picture, s.said_grip, s.said_tip, TORSO_PX, **ACCEPT) for s in sticks]
    return [s.said_tip if r is None else r.tip for s, r in zip(sticks, found, strict=True)]


def test_the_tip_gets_clearly_nearer_on_real_backgrounds(sticks: list[Drawn]) -> None:
    before = np.array([s.tip_error(s.said_tip) for s in sticks])
    after = np.array([s.tip_error(tip) for s, tip in zip(sticks, refined_tips(sticks), strict=True)])
    assert np.median(after) < 0.4 * np.median(before)
    assert (after > 0.1).mean() < 0.5 * (before > 0.1).mean()


def test_the_grip_is_put_on_the_axis_and_stays_in_the_hand(sticks: list[Drawn]) -> None:
    for s in sticks:
        found = refine_stick(s.picture, s.said_grip, s.said_tip, TORSO_PX, **ACCEPT)
        if found is not None:
            assert np.hypot(*(found.grip - s.said_grip)) < 0.08 * TORSO_PX


def test_the_stick_is_never_longer_than_a_torso_allows(frames: list[np.ndarray]) -> None:
    grip, far = np.array([300.0, 100.0]), np.array([1000.0, 500.0])
    picture = draw_stick(frames[0], grip, far, 6.0, np.array([82, 140, 184]))
    torso = TORSO_PX * (far - grip) / np.hypot(*(far - grip))
    towards = grip + 1.2 * torso
    found = refine_stick(picture, grip, towards, TORSO_PX, **ACCEPT)
    assert found is not None
    assert np.hypot(*(found.tip - found.grip)) <= 1.65 * TORSO_PX
    longer = refine_stick(picture, grip, grip + 1.9 * torso, TORSO_PX, **ACCEPT)
    assert longer is None  # kept as detected, and not cut


def test_a_foreshortened_stick_is_not_lengthened_towards_a_norm(frames: list[np.ndarray]) -> None:
    grip, tip = np.array([500.0, 400.0]), np.array([575.0, 400.0])
    picture = draw_stick(frames[0], grip, tip, 6.0, np.array([60, 200, 250]))
    found = refine_stick(picture, grip, np.array([574.0, 408.0]), TORSO_PX, **ACCEPT)
    assert found is not None
    assert np.hypot(*(found.tip - found.grip)) == pytest.approx(75.0, rel=0.1)
    for length in (0.0, 0.25 * TORSO_PX):
        assert refine_stick(picture, grip, grip + (length, 0), TORSO_PX, **ACCEPT) is None, "it points at the lens"


def test_a_tip_that_was_seen_halfway_along_the_stick_is_moved_to_its_end(frames: list[np.ndarray]) -> None:
    grip, tip = np.array([300.0, 200.0]), np.array([300.0, 200.0]) + TORSO_PX * polar(-35, 1.15)
    picture = draw_stick(frames[0], grip, tip, 6.0, np.array([60, 200, 250]))
    found = refine_stick(picture, grip, grip + TORSO_PX * polar(-33, 0.55), TORSO_PX, **ACCEPT)
    assert found is not None
    assert np.hypot(*(found.tip - tip)) < 0.1 * 1.15 * TORSO_PX


def test_a_rail_of_the_same_colour_behind_the_tip_hardly_lengthens_the_stick() -> None:
    wall, colour = np.full((480, 640, 3), 150, np.uint8), np.array([82, 140, 184])
    grip, tip = np.array([150.5, 240.5]), np.array([300.5, 240.5])
    cv2.line(wall, (150, 240), (345, 240), colour.tolist(), 3, cv2.LINE_AA)
    found = refine_stick(draw_stick(wall, grip, tip, 6.0, colour), grip, tip, TORSO_PX, **ACCEPT)
    assert found is None or np.hypot(*(found.tip - tip)) < 0.12 * TORSO_PX


def test_nothing_is_found_on_an_empty_wall() -> None:
    wall = np.full((480, 640, 3), 140, np.uint8)
    assert refine_stick(wall, np.array([300.0, 240.0]), np.array([450.0, 240.0]), TORSO_PX, **ACCEPT) is None


def test_the_edge_of_a_wall_is_not_a_rod() -> None:
    wall = np.full((480, 640, 3), 60, np.uint8)
    wall[240:] = 200
    assert refine_stick(wall, np.array([300.0, 240.5]), np.array([450.0, 240.5]), TORSO_PX, **ACCEPT) is None


def test_the_axis_lies_in_the_middle_of_the_rod_in_every_direction() -> None:
    """Half a pixel to the side, as pixels are counted from their corner or their middle, would be seen in a small
    picture."""
    wall, torso_px, aside = np.full((240, 320, 3), 150, np.uint8), 60.0, []
    for angle in range(0, 360, 15):
        grip, direction = np.array([160.3, 120.2]), polar(angle)
        normal = np.array([-direction[1], direction[0]])
        corners = [grip + along * direction + side * normal for along, side in ((0, 2), (0, -2), (69, -2), (69, 2))]
        big = cv2.resize(wall, None, fx=16, fy=16)
        cv2.fillPoly(big, [np.rint(16 * np.array(corners) - 0.5).astype(np.int32)], (40, 40, 40))
        picture = cv2.resize(big, (320, 240), interpolation=cv2.INTER_AREA)
        for turn in (-7, 7):
            said = grip + 69 * polar(angle + turn)
            found = refine_stick(picture, grip, said, torso_px, min_evidence=0.2, min_margin=0.1)
            if found is not None:
                aside.append(((found.grip + found.tip) / 2 - grip) @ normal * normal)
    assert len(aside) > 40
    # The mean of n n' over all directions is half the unit matrix.
    assert 2 * np.mean(aside, axis=0) == pytest.approx([0, 0], abs=0.2)


def test_a_rod_that_leaves_the_picture_ends_in_it_also_after_a_turn() -> None:
    wall, colour, found = np.full((300, 400, 3), 150, np.uint8), np.array([82, 140, 184]), 0
    for angle in range(-110, -69, 8):
        grip = np.array([200.0, 120.0])
        picture = draw_stick(wall, grip, grip + 1.4 * TORSO_PX * polar(angle), 6.0, colour)
        for turn in (-10, 10):
            way = polar(angle + turn)
            refined = refine_stick(picture, grip, grip + 119 / -way[1] * way, TORSO_PX, **ACCEPT)
            if refined is not None:
                found += 1
                assert 0 < refined.tip[1] < 5
    assert found > 8


@pytest.mark.parametrize("x", [0.0, 0.5, 3.0])
def test_a_stick_along_the_border_is_refined_or_kept_but_no_error(x: float) -> None:
    picture = np.full((480, 640, 3), 150, np.uint8)
    cv2.rectangle(picture, (0, 90), (5, 250), (40, 40, 40), -1)
    with np.errstate(all="raise"):
        found = refine_stick(picture, np.array([x, 240.0]), np.array([x, 110.0]), TORSO_PX, **ACCEPT)
    assert found is None or (np.isfinite(found.tip).all() and found.tip[0] >= 0)


def test_a_stick_of_which_the_picture_shows_only_the_beginning_is_kept() -> None:
    grip = np.array([60.0, 150.0])
    picture = draw_stick(np.full((300, 400, 3), 150, np.uint8), grip, grip - (200, 0), 6.0, np.array([82, 140, 184]))
    assert refine_stick(picture, grip, grip + TORSO_PX * polar(174, 1.1), TORSO_PX, **ACCEPT) is None


def test_a_stick_that_was_seen_beside_the_rod_and_askew_is_put_on_it() -> None:
    wall, grip, tip = np.full((480, 640, 3), 150, np.uint8), np.array([150.0, 240.0]), np.array([315.0, 240.0])
    picture = draw_stick(wall, grip, tip, 6.0, np.array([82, 140, 184]))
    said = np.array([150.0, 234.0])
    found = refine_stick(picture, said, said + TORSO_PX * polar(13, 1.1), TORSO_PX, **ACCEPT)
    assert found is not None and [found.grip[1], found.tip[1]] == pytest.approx([240, 240], abs=4)
    assert found.tip[0] == pytest.approx(315, abs=2.5)


def test_a_stick_at_the_border_of_the_picture_ends_there(frames: list[np.ndarray]) -> None:
    grip = np.array([120.0, 300.0])
    picture = draw_stick(frames[0], grip, np.array([-60.0, 300.0]), 6.0, np.array([60, 200, 250]))
    found = refine_stick(picture, grip, np.array([-20.0, 303.0]), TORSO_PX, **ACCEPT)
    assert found is None or found.tip[0] >= -0.03 * TORSO_PX


@pytest.mark.parametrize(("turn_deg", "stretch", "moved"), [
    (1.5, 1.0, False), (6.0, 1.0, True), (0.0, 1.02, False), (0.0, 0.9, True), (0.0, 1.2, True),
])  # fmt: skip
def test_a_stick_gives_way_only_to_a_rod_that_clearly_lies_elsewhere(
    turn_deg: float, stretch: float, moved: bool
) -> None:
    wall, colour, grip = np.full((480, 640, 3), 150, np.uint8), np.array([82, 140, 184]), np.array([150.0, 240.0])
    tip = grip + TORSO_PX * polar(0, 1.1)
    said = grip + stretch * TORSO_PX * polar(turn_deg, 1.1)
    found = refine_stick(draw_stick(wall, grip, tip, 6.0, colour), grip, said, TORSO_PX, **ACCEPT)
    assert (found is not None) == moved
    assert found is None or np.hypot(*(found.tip - tip)) < 0.05 * 1.1 * TORSO_PX


@pytest.mark.parametrize(
    ("stick_deg", "clipped_deg"),
    [(0, 0), (20, 20), (-20, -20), (21, 20), (90, 20), (179, 20), (-90, -20), (-179, -20)],
)
def test_the_forearm_rule_clips_the_direction_to_twenty_degrees(stick_deg: float, clipped_deg: float) -> None:
    for forearm_deg in (0.0, 100.0, 175.0, -170.0):
        grip = polar(forearm_deg, 1.3)
        tip = clamp_to_forearm(np.zeros(2), polar(forearm_deg), grip, grip + polar(forearm_deg + stick_deg, 2.5))
        assert np.hypot(*(tip - grip)) == pytest.approx(1.35)
        assert wrap_deg(direction_deg(tip - grip) - forearm_deg) == pytest.approx(clipped_deg)


def test_a_stick_that_points_back_along_the_forearm_is_bent_to_either_side() -> None:
    tip = clamp_to_forearm(np.zeros(2), polar(100), polar(100), polar(100) + polar(280))
    assert abs(wrap_deg(direction_deg(tip - polar(100)) - 100)) == pytest.approx(20)


def direction_deg(vector: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(vector[1], vector[0])))


def polar(degrees: float, length: float = 1.0) -> np.ndarray:
    return length * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


@pytest.mark.parametrize(("angle", "wrapped"), [(0, 0), (20, 20), (179, 179), (180, -180), (-179, -179), (181, -179)])
def test_angles_wrap_at_the_half_turn(angle: float, wrapped: float) -> None:
    assert wrap_deg(angle) == pytest.approx(wrapped)


def packet_of(stick: Drawn, frames: OwnedFrames) -> ArnisPacket:
    """The packet of a person with a torso of 150 pixels whose right hand holds the drawn stick."""
    np.copyto(frames.begin(*stick.picture.shape[:2], busy=()), stick.picture)
    keypoints = np.full((17, 3), (300.0, 100.0, 0.9), np.float32)
    keypoints[[LEFT_SHOULDER, RIGHT_SHOULDER], 1] = 100.0
    keypoints[[LEFT_HIP, RIGHT_HIP], 1] = 100.0 + TORSO_PX
    keypoints[RIGHT_ELBOW, :2], keypoints[RIGHT_WRIST, :2] = stick.said_grip - (0, 60), stick.said_grip - (0, 10)
    end = [(float(p[0]), float(p[1]), 0.9) for p in (stick.said_grip, stick.said_tip)]
    return ArnisPacket(
        stream="0",
        sequence=0,
        pts=0.0,
        captured_at_ns=1,
        frame=frames.commit(0),
        person=Person(track=1, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints),
        stick=Stick(hand="right", grip=end[0], tip=end[1], detected_tip=end[1][:2]),
        gate=GateDecision(),
    )


def corrected(stick: Drawn, **settings: object) -> Stick:
    frames = OwnedFrames()
    stage = Correct(msgspec.convert(settings, CorrectSettings))
    stage.open(Context(streams=["0"], frames=frames, request_stop=lambda: None, health=dict))
    result = stage.process(packet_of(stick, frames)).stick
    assert result is not None
    return result


def test_the_stage_says_how_it_corrected_and_leaves_what_was_detected(sticks: list[Drawn]) -> None:
    methods = {corrected(s).method for s in sticks}
    assert methods == {"evidence", "kept"} or methods == {"evidence"}
    assert corrected(sticks[0]).detected_tip == pytest.approx(tuple(sticks[0].said_tip))


@pytest.mark.parametrize("strict", [{"min_evidence": 1.0}, {"min_margin": 1.0}])
def test_a_stick_that_is_kept_is_not_moved(sticks: list[Drawn], strict: dict[str, float]) -> None:
    usual, found = [corrected(s).method for s in sticks], [corrected(s, **strict) for s in sticks]
    assert usual.count("evidence") - [f.method for f in found].count("evidence") > 20
    for s, kept in zip(sticks, found, strict=True):
        assert kept.method == "evidence" or kept.tip[:2] == pytest.approx(tuple(s.said_tip))


def test_a_frame_that_was_not_looked_at_is_left_alone(sticks: list[Drawn]) -> None:
    frames = OwnedFrames()
    packet = packet_of(sticks[0], frames)
    packet.gate = GateDecision(detect=False)
    stage = Correct(CorrectSettings())
    stage.open(Context(streams=["0"], frames=frames, request_stop=lambda: None, health=dict))
    left = stage.process(packet).stick
    assert left is not None and (left.method, left.tip[:2]) == ("detected", tuple(sticks[0].said_tip))


def test_correction_can_be_off(sticks: list[Drawn]) -> None:
    assert corrected(sticks[0], method="off").method == "detected"


def test_the_forearm_method_uses_the_arm_that_holds_the_stick(sticks: list[Drawn]) -> None:
    found = corrected(sticks[0], method="forearm")
    assert found.method == "forearm"
    assert np.hypot(found.tip[0] - found.grip[0], found.tip[1] - found.grip[1]) == pytest.approx(1.35 * 50.0, rel=1e-3)


def test_the_forearm_method_uses_a_left_handers_left_arm() -> None:
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[[LEFT_ELBOW, LEFT_WRIST]] = (0, 0, 0.9), (0, 100, 0.9)
    keypoints[[RIGHT_ELBOW, RIGHT_WRIST]] = (200, 0, 0.9), (200, 20, 0.9)
    who = Person(track=1, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints)
    lengths = []
    for hand, grip_x in (("left", 0.0), ("right", 200.0)):
        held = Stick(hand=hand, grip=(grip_x, 100.0, 0.9), tip=(grip_x, 150.0, 0.9))  # type: ignore[arg-type]
        packet = ArnisPacket(stream="0", sequence=0, pts=0.0, captured_at_ns=0, person=who, stick=held)
        found = Correct(CorrectSettings(method="forearm")).process(packet).stick
        assert found is not None
        lengths.append(found.tip[1] - found.grip[1])
    assert lengths == pytest.approx([135.0, 27.0])


def test_a_forearm_that_points_at_the_lens_bends_no_stick() -> None:
    keypoints = np.full((17, 3), (100, 100, 0.9), np.float32)
    who = Person(track=1, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints)
    held = Stick(hand="right", grip=(100.0, 100.0, 0.9), tip=(100.0, 50.0, 0.9))
    packet = ArnisPacket(stream="0", sequence=0, pts=0.0, captured_at_ns=0, person=who, stick=held)
    found = Correct(CorrectSettings(method="forearm")).process(packet).stick
    assert found is not None and (found.method, found.tip) == ("kept", (100.0, 50.0, 0.9))


def test_a_missing_tip_stays_missing(sticks: list[Drawn]) -> None:
    nan = float("nan")
    found = corrected(sticks[0]._replace(said_tip=np.array([nan, nan])))
    assert found.method == "detected" and np.isnan(found.tip[:2]).all()
