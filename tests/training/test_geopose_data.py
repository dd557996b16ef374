"""Samples change hands as a whole, and say which of them were taken for the wrong one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.classes import load_classes
from stages.graph import CROP_SIZE_PX
from stages.skeleton import GRIP, LEFT_WRIST, NODE_COUNT, RIGHT_WRIST
from training.data.table import make_table
from training.geopose.data import PoseTable, keypoint_table, pose_table

CLASSES = load_classes()


def three_samples() -> PoseTable:
    """With crops that have a spot at the top left; of the second no grip was seen, the last is left alone below."""
    keypoints = np.ones((3, NODE_COUNT, 3), np.float32)
    keypoints[:, RIGHT_WRIST, :2] = -5, 2
    keypoints[1, GRIP] = 0
    crops = np.zeros((3, CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
    crops[:, 3, 5] = 200
    return replace(
        keypoint_table(keypoints, np.zeros(3, int)), crops=crops, crop_present=np.ones(3, np.float32),
        views=np.array(["left", "front", "left"]), wrong_hand=np.array([True, False, True]),
    )  # fmt: skip


def test_who_is_taken_for_the_other_hand_is_mirrored_with_view_and_crop() -> None:
    table = three_samples()
    other = table.mirrored(np.array([True, True, False]))
    assert other.keypoints[:, LEFT_WRIST, :2].tolist() == [[5, 2], [5, 2], [1, 1]]
    assert other.views.tolist() == ["right", "front", "left"]
    assert other.wrong_hand.tolist() == [False, True, True]
    assert np.argwhere(other.crops[0, ..., 0]).tolist() == [[3, CROP_SIZE_PX - 1 - 5]]
    assert np.argwhere(other.crops[2, ..., 0]).tolist() == [[3, 5]]
    assert np.argwhere(table.crops[0, ..., 0]).tolist() == [[3, 5]], "what it was made of stays as it is"


def test_the_crop_of_a_wrist_does_not_go_along_as_it_shows_the_free_hand_then() -> None:
    other = three_samples().mirrored(np.array([True, True, False]))
    assert other.crop_present.tolist() == [1, 0, 1] and not other.crops[1].any()


def test_a_hand_is_wrong_only_where_the_true_one_is_known() -> None:
    rows = make_table(
        Path(), ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], ["neutral"] * 4, np.full((4, 2), 100),
        np.ones((4, NODE_COUNT, 3), np.float32), ["x"] * 4, hands=["left", "left", "right", "left"],
        true_hands=["", "right", "right", "left"],
    )  # fmt: skip
    assert pose_table(rows, CLASSES.names).wrong_hand.tolist() == [False, True, False, False]
