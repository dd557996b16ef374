"""Faults are those that cameras and detectors make, and what is learnt from a faulty sample stays true."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from stages.classes import load_classes
from stages.graph import PRESENT_CONFIDENCE, torso_length
from stages.skeleton import GRIP, LEFT_ANKLE, RIGHT_ANKLE, TIP
from training.geopose.augment import KeypointFaults, augment_crop, augment_keypoints
from training.geopose.pose_statistics import PoseStatistics

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[2] / "training" / "synth" / "pose_statistics.json"


def test_faults_leave_the_samples_themselves_alone_and_spare_some_sticks() -> None:
    keypoints, _ = PoseStatistics(STATISTICS, CLASSES.names).draw(500, np.random.default_rng(0))
    before = keypoints.copy()
    faulty = augment_keypoints(keypoints, np.random.default_rng(1), KeypointFaults())
    np.testing.assert_array_equal(keypoints, before)
    stick = keypoints[:, TIP, 2] > 0
    assert 0.7 < (faulty[stick, TIP, 2] > 0).mean() < 0.95
    kept = (faulty[..., 2] > 0) & (keypoints[..., 2] > 0)
    moved = np.linalg.norm((faulty - keypoints)[..., :2], axis=-1) / torso_length(keypoints)[:, None]
    assert 0.01 < np.median(moved[kept]) < 0.1


def test_a_faulty_crop_is_still_a_picture() -> None:
    crop = np.full((128, 128, 3), 120, np.uint8)
    for seed in range(10):
        out, _ = augment_crop(crop, np.random.default_rng(seed))
        assert out.shape == crop.shape and out.dtype == np.uint8


def test_what_a_turned_crop_shows_is_turned_in_its_target_too() -> None:
    """A bright line across a dark crop is looked for again after all faults."""
    crop = np.zeros((128, 128, 3), np.uint8)
    cv2.line(crop, (34, 64), (94, 64), (255, 255, 255), 5)
    turned = [augment_crop(crop, np.random.default_rng(seed)) for seed in range(60)]
    found, told = [], []
    for picture, turn in turned:
        y, x = np.nonzero(picture.mean(2) > picture.mean() + 2.5 * picture.std())
        if len(x) > 100:
            found.append(np.polyfit(x, y, 1)[0])
            told.append(np.divide(*(turn @ [1, 0])[::-1]))
    assert len(found) > 20 and np.corrcoef(found, told)[0, 1] > 0.5


def test_a_point_that_counts_as_missing_stays_missing() -> None:
    keypoints, _ = PoseStatistics(STATISTICS, CLASSES.names).draw(200, np.random.default_rng(0))
    keypoints[..., 2] = np.where(np.arange(19) % 2, 0.05, 0.3)
    faulty = augment_keypoints(keypoints, np.random.default_rng(1), KeypointFaults(leg_swap=0))
    assert (faulty[:, 1::2, 2] < PRESENT_CONFIDENCE).all()
    kept = faulty[:, 0:GRIP:2, 2] > 0
    assert kept.mean() > 0.9 and (faulty[:, 0:GRIP:2, 2][kept] >= PRESENT_CONFIDENCE).all()


def test_legs_that_change_over_take_along_what_is_missing() -> None:
    keypoints, _ = PoseStatistics(STATISTICS, CLASSES.names).draw(200, np.random.default_rng(0))
    keypoints[..., 2], keypoints[:, LEFT_ANKLE] = 0.9, 0
    nothing_else = {field.name: 0.0 for field in fields(KeypointFaults)}
    faulty = augment_keypoints(keypoints, np.random.default_rng(1), KeypointFaults(**nothing_else | {"leg_swap": 1.0}))
    assert (faulty[:, RIGHT_ANKLE] == 0).all() and (faulty[:, LEFT_ANKLE, 2] > 0).all()
    assert np.allclose(faulty[:, LEFT_ANKLE, :2], keypoints[:, RIGHT_ANKLE, :2], atol=1e-3)
