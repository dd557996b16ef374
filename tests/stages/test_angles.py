"""Angles and heights of skeletons that can be checked with a set square."""

from __future__ import annotations

import numpy as np
import pytest

from stages import skeleton as sk
from stages.angles import (
    QUANTITIES,
    VIEWS,
    joint_angle_deg,
    measure,
    mirrored_name,
    torso_lean_deg,
    view_of,
)
from stages.graph import mirror_keypoints


def standing() -> np.ndarray:
    """Faces the camera, torso 100, arms down, feet 40 apart, stick level to the left of the picture."""
    points = {
        sk.NOSE: (0, -130),
        sk.LEFT_EYE: (5, -135),
        sk.RIGHT_EYE: (-5, -135),
        sk.LEFT_EAR: (10, -132),
        sk.RIGHT_EAR: (-10, -132),
        sk.LEFT_SHOULDER: (30, -100),
        sk.RIGHT_SHOULDER: (-30, -100),
        sk.LEFT_ELBOW: (30, -50),
        sk.RIGHT_ELBOW: (-30, -50),
        sk.LEFT_WRIST: (30, 0),
        sk.RIGHT_WRIST: (-30, 0),
        sk.LEFT_HIP: (15, 0),
        sk.RIGHT_HIP: (-15, 0),
        sk.LEFT_KNEE: (15, 80),
        sk.RIGHT_KNEE: (-15, 80),
        sk.LEFT_ANKLE: (20, 160),
        sk.RIGHT_ANKLE: (-20, 160),
        sk.GRIP: (-32, 8),
        sk.TIP: (-132, 8),
    }
    return np.array([(*points[n], 0.9) for n in range(sk.NODE_COUNT)], np.float32)


def test_a_right_angle_is_ninety_degrees_and_a_straight_arm_a_hundred_and_eighty() -> None:
    at = np.array
    assert joint_angle_deg(at([1.0, 0.0]), at([0.0, 0.0]), at([0.0, 5.0])) == pytest.approx(90)
    assert joint_angle_deg(at([-1.0, 0.0]), at([0.0, 0.0]), at([3.0, 0.0])) == pytest.approx(180)
    assert np.isnan(joint_angle_deg(at([0.0, 0.0]), at([0.0, 0.0]), at([3.0, 0.0]))), "both at one place"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("chain", ["shoulder elbow wrist", "elbow shoulder hip", "shoulder hip knee", "hip knee ankle"])
def test_a_joints_angle_is_that_between_its_two_neighbours(chain: str, side: str) -> None:
    keypoints = standing()
    nodes = [sk.KEYPOINT_NAMES.index(f"{side}_{joint}") for joint in chain.split()]
    keypoints[nodes, :2] = (300, 500), (300, 400), (380, 460)
    angle_deg = measure(keypoints)[f"{side}_{chain.split()[1]}_deg"]
    assert angle_deg == pytest.approx(np.degrees(np.arctan2(80, 60)))


def test_every_quantity_is_measured() -> None:
    values = measure(standing())
    assert set(values) == set(QUANTITIES)
    assert np.isfinite(list(values.values())).all()


def test_somebody_who_stands_straight_measures_straight() -> None:
    values = measure(standing())
    assert values["right_elbow_deg"] == pytest.approx(180)
    assert values["torso_lean_deg"] == pytest.approx(0)
    assert values["stick_deg"] == pytest.approx(0)
    assert values["right_hand_height"] == pytest.approx(-1.0)
    assert values["stance_width"] == pytest.approx(0.4)
    assert values["wrist_deg"] == pytest.approx(90)


def test_heights_and_reach_are_those_of_hands_and_tip() -> None:
    keypoints = standing()
    keypoints[[sk.RIGHT_WRIST, sk.LEFT_WRIST, sk.TIP], :2] = (-60, -60), (30, -80), (-132, -120)
    values = measure(keypoints)
    assert values["right_hand_height"] == pytest.approx(-0.4) and values["left_hand_height"] == pytest.approx(-0.2)
    assert values["tip_height"] == pytest.approx(0.2) and values["right_hand_reach"] == pytest.approx(0.5)


def test_a_rising_stick_has_a_positive_angle_whichever_way_it_points() -> None:
    for way in (-70, 70):
        keypoints = standing()
        keypoints[sk.TIP, :2] = keypoints[sk.GRIP, :2] + (way, -70)
        assert measure(keypoints)["stick_deg"] == pytest.approx(45)


def test_a_stick_that_points_at_the_lens_has_no_angle() -> None:
    keypoints = standing()
    keypoints[sk.TIP, :2] = keypoints[sk.GRIP, :2] + (10, 5)
    assert np.isnan(measure(keypoints)["stick_deg"])


def test_a_stick_in_line_with_the_forearm_has_no_angle_to_it() -> None:
    keypoints = standing()
    for down, angle_deg in ((70, 0), (-70, 180)):
        keypoints[sk.TIP, :2] = keypoints[sk.GRIP, :2] + (0, down)
        assert measure(keypoints)["wrist_deg"] == pytest.approx(angle_deg)


@pytest.mark.parametrize(("shoulders", "angle_deg"), [((20, -100), 11.3), ((-100, 0), 90), ((0, 100), 180)])
def test_a_lean_is_told_from_a_handstand(shoulders: tuple[int, int], angle_deg: float) -> None:
    keypoints = standing()
    keypoints[[sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER], :2] = shoulders
    assert torso_lean_deg(keypoints) == pytest.approx(angle_deg, abs=0.1)
    assert measure(keypoints)["torso_lean_deg"] == torso_lean_deg(keypoints)


def test_what_needs_a_missing_point_is_nan_and_the_rest_is_not() -> None:
    keypoints = standing()
    keypoints[sk.RIGHT_ELBOW] = (np.nan, np.nan, 0)
    values = measure(keypoints)
    assert np.isnan(values["right_elbow_deg"]) and np.isnan(values["right_shoulder_deg"])
    assert values["left_elbow_deg"] == pytest.approx(180)
    assert values["right_hand_height"] == pytest.approx(-1.0)
    keypoints[[n for n in range(sk.NODE_COUNT) if n not in (sk.RIGHT_SHOULDER, sk.RIGHT_WRIST)], 2] = 0
    assert np.isnan(measure(keypoints)["right_hand_reach"]), "nothing tells how long the torso is"


def test_a_point_that_was_not_seen_counts_as_missing() -> None:
    keypoints = standing()
    keypoints[sk.RIGHT_ELBOW, 2] = 0.1
    assert np.isfinite(measure(keypoints)["right_elbow_deg"])
    keypoints[sk.RIGHT_ELBOW, 2] = 0.09
    assert np.isnan(measure(keypoints)["right_elbow_deg"])


def test_size_and_place_in_the_picture_do_not_matter() -> None:
    moved = standing()
    moved[:, :2] = moved[:, :2] * 3.5 + (400, 700)
    for name, value in measure(moved).items():
        assert value == pytest.approx(measure(standing())[name], abs=1e-3)


def test_many_skeletons_are_measured_at_once() -> None:
    values = measure(np.stack([standing()] * 6).reshape(2, 3, sk.NODE_COUNT, 3))
    assert values["left_knee_deg"].shape == (2, 3)


def test_the_view_is_told_from_where_the_nose_lies() -> None:
    turned = standing()
    turned[:, 0] *= 0.3
    turned[[sk.NOSE, sk.LEFT_EYE, sk.RIGHT_EYE], 0] -= 18
    assert [VIEWS[int(view_of(k))] for k in (standing(), turned, mirror_keypoints(turned))] == [
        "front",
        "left",
        "right",
    ]


@pytest.mark.parametrize(("nose", "ears"), [(-7, 0), (-18, -18), (-5, 8)])
def test_a_head_that_is_turned_or_leans_a_little_is_still_seen_from_the_front(nose: int, ears: int) -> None:
    keypoints = standing()
    keypoints[[sk.NOSE, sk.LEFT_EAR, sk.RIGHT_EAR], 0] += (nose, ears, ears)
    assert VIEWS[int(view_of(keypoints))] == "front"


def test_the_view_is_unknown_without_a_face() -> None:
    keypoints = standing()
    keypoints[sk.NOSE, 2] = 0
    assert view_of(keypoints) == -1


def test_mirrored_names_change_sides() -> None:
    assert mirrored_name("right_elbow_deg") == "left_elbow_deg"
    assert mirrored_name("left_hand_height") == "right_hand_height"
    assert mirrored_name("stick_deg") == "stick_deg"
