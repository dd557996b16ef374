"""The square in which the stick is looked for."""

from __future__ import annotations

import numpy as np
import pytest

from stages.packets import Hand
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
from stages.stick_crop import extract_crop, from_crop, stick_crop, to_crop

TORSO_PX = 100.0


def person(x: float = 1000.0, y: float = 700.0) -> np.ndarray:
    """Keypoints of someone with a torso of 100 px, arms half raised; (x, y) is the middle of the hips."""
    keypoints = np.full((17, 3), np.nan, np.float32)
    keypoints[:, 2] = 0
    places = {
        LEFT_SHOULDER: (35, -100), RIGHT_SHOULDER: (-35, -100), LEFT_ELBOW: (60, -60), RIGHT_ELBOW: (-60, -60),
        LEFT_WRIST: (100, -80), RIGHT_WRIST: (-100, -80), LEFT_HIP: (18, 0), RIGHT_HIP: (-18, 0),
    }  # fmt: skip
    for joint, (dx, dy) in places.items():
        keypoints[joint] = (x + dx, y + dy, 0.9)
    return keypoints


def inside(crop: tuple[float, float, float], point: np.ndarray) -> bool:
    return bool(((to_crop(point, crop) >= 0) & (to_crop(point, crop) <= 1)).all())


@pytest.mark.parametrize("wrist, elbow", [(LEFT_WRIST, LEFT_ELBOW), (RIGHT_WRIST, RIGHT_ELBOW)])
@pytest.mark.parametrize("angle_deg", range(0, 360, 30))
def test_a_stick_in_either_hand_stays_inside_whatever_its_direction(wrist: int, elbow: int, angle_deg: int) -> None:
    keypoints = person()
    hand = keypoints[wrist, :2] + 0.3 * (keypoints[wrist, :2] - keypoints[elbow, :2])
    angle = np.radians(angle_deg)
    tip = hand + 1.5 * TORSO_PX * np.array([np.cos(angle), np.sin(angle)])
    assert inside(stick_crop(keypoints, 2000, 1500), tip)


def test_the_crop_is_not_larger_than_the_stick_needs() -> None:
    assert stick_crop(person(), 2000, 1500)[2] < 6 * TORSO_PX


def test_a_missing_wrist_still_leaves_room_for_the_stick() -> None:
    keypoints = person()
    keypoints[RIGHT_WRIST] = (np.nan, np.nan, 0)
    tip = np.array([1000 - 100 - 1.2 * TORSO_PX, 700 - 80])
    assert inside(stick_crop(keypoints, 2000, 1500), tip)


def test_without_a_torso_the_crop_goes_round_the_person() -> None:
    keypoints = person()
    keypoints[[LEFT_HIP, RIGHT_HIP], 2] = 0.05
    crop = stick_crop(keypoints, 2000, 1500)
    assert all(inside(crop, keypoints[joint, :2]) for joint in (LEFT_WRIST, RIGHT_WRIST, LEFT_SHOULDER))
    assert crop[2] < 1000


def test_without_any_keypoint_the_crop_is_the_whole_picture() -> None:
    nobody = np.full((17, 3), np.nan, np.float32)
    nobody[:, 2] = 0
    assert stick_crop(nobody, 640, 480) == (320.0, 240.0, 640.0)


def test_someone_leaning_towards_the_camera_gets_no_tiny_crop() -> None:
    keypoints = person()
    keypoints[[LEFT_HIP, RIGHT_HIP], 1] = 620.0
    assert stick_crop(keypoints, 2000, 1500)[2] > 3 * TORSO_PX


@pytest.mark.parametrize("hand", ["left", "right"])
def test_of_one_hand_the_crop_holds_all_that_it_reaches_and_less_than_of_both(hand: Hand) -> None:
    keypoints = person()
    elbow, wrist = (7, 9) if hand == "left" else (8, 10)
    held = keypoints[wrist, :2] + 0.3 * (keypoints[wrist, :2] - keypoints[elbow, :2])
    crop = stick_crop(keypoints, 2000, 1500, hand)
    for angle in np.radians(range(0, 360, 15)):
        assert inside(crop, held + 1.5 * TORSO_PX * np.array([np.cos(angle), np.sin(angle)]))
    assert crop[2] < 0.9 * stick_crop(keypoints, 2000, 1500)[2]
    keypoints[[elbow - 2, elbow, wrist], 2] = 0
    assert stick_crop(keypoints, 2000, 1500, hand) == stick_crop(keypoints, 2000, 1500), "nothing is known of that arm"


def test_crop_coordinates_go_there_and_back() -> None:
    crop = (321.5, 200.25, 417.0)
    points = np.array([[10.0, 20.0], [300.0, 400.0]])
    assert np.allclose(from_crop(to_crop(points, crop), crop), points)


@pytest.mark.parametrize("side_px", [96.0, 224.0, 500.0, 1000.0])
def test_a_mark_is_cut_out_where_the_coordinates_say(side_px: float) -> None:
    image = np.zeros((1200, 1600, 3), np.uint8)
    image[600:610, 800:810] = (255, 128, 0)
    crop = (800.0, 600.0, side_px)
    cut = extract_crop(image, crop, 224)
    assert cut.shape == (224, 224, 3)
    rows, columns = np.nonzero(cut[..., 0] > 100)
    centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / 224
    assert np.allclose(centre, to_crop(np.array([805.0, 605.0]), crop), atol=0.006)


def test_beyond_the_picture_the_crop_is_black() -> None:
    cut = extract_crop(np.full((100, 100, 3), 200, np.uint8), (0.0, 50.0, 100.0), 64)
    assert cut[2:-2, :28].max() == 0
    assert cut[2:-2, 36:].min() > 190


def test_a_thin_line_survives_a_strong_reduction() -> None:
    image = np.full((1080, 1080, 3), 255, np.uint8)
    image[:, 539:541] = 0
    cut = extract_crop(image, (540.0, 540.0, 900.0), 224)
    assert (cut[..., 0].min(axis=1) < 200).all()
