"""Where in a frame a network looks."""

from __future__ import annotations

import numpy as np
import pytest
from looking import standing_person

from stages.detectors.square import parts_of_frame, square_around, whole_frame


def test_the_square_follows_the_person_and_holds_all_of_them() -> None:
    keypoints = standing_person(scale=60, at=(600, 300))
    x, y, side = square_around(keypoints, 1280, 720)
    assert (x, y) == pytest.approx((600, 360))
    assert (np.abs(keypoints[:, :2] - (x, y)) <= side / 2).all()
    assert side < 720


def test_without_a_sure_torso_the_whole_frame_is_looked_at() -> None:
    keypoints = standing_person()
    keypoints[[11, 12], 2] = 0.1
    assert square_around(keypoints, 1280, 720) == whole_frame(1280, 720) == (640, 360, 1280)


def test_the_parts_of_a_long_frame_cover_it() -> None:
    assert sorted(x - side / 2 for x, _, side in parts_of_frame(1280, 720)) == [0, 280, 560]
    assert parts_of_frame(600, 600) == []
    assert [y for _, y, _ in parts_of_frame(720, 1280)] == [640, 360, 920]
