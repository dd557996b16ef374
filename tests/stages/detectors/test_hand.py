"""Which hand holds the stick, of one picture."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from stages.cards import CARD_FILE, load_card, model_folder
from stages.detectors import Runtime
from stages.detectors.hand import WeaponHand
from stages.graph import mirror_keypoints

CPU = Runtime("onnxruntime", 1)


def people() -> np.ndarray:
    """Two who face the camera, (2, 19, 3), with the stick in the right hand and between both."""
    points = np.array([
        (0, -130), (5, -135), (-5, -135), (10, -132), (-10, -132), (30, -100), (-30, -100), (40, -60), (-60, -60),
        (0, -40), (-30, -20), (15, 0), (-15, 0), (15, 80), (-15, 80), (20, 160), (-20, 160), (-30, -12), (-120, -30),
    ], np.float32)  # fmt: skip
    both = np.stack([np.column_stack([points, np.full(19, 0.9, np.float32)])] * 2)
    both[1, 17:, :2] = (-12, -30), (0, -120)
    return both


def test_a_mirror_image_has_it_in_the_other_hand() -> None:
    network = WeaponHand("weapon_hand", CPU)
    seen, mirrored = network.rightness(people()), network.rightness(mirror_keypoints(people()))
    assert seen[0] > 0 and mirrored == pytest.approx(-seen, abs=1e-5)


def test_the_cards_temperature_makes_it_less_sure(tmp_path: Path) -> None:
    model = shutil.copytree(model_folder("weapon_hand"), tmp_path / "mine")
    text = (model / CARD_FILE).read_text()
    (model / CARD_FILE).write_text(re.sub(r"(?m)^temperature = .*", "temperature = 4.0", text))
    before, after = (WeaponHand(name, CPU).rightness(people()) for name in ("weapon_hand", str(model)))
    told = np.arctanh(before) * load_card("weapon_hand")[0].temperature
    assert np.arctanh(after) * 4.0 == pytest.approx(told, rel=0.02)
