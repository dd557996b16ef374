"""A card says of whom its figures are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from training.data.table import Table, make_table
from training.geopose.card_text import data_text, notes_text
from training.geopose.folds import GROUPED, UNGROUPED
from training.see import Detectors


def table(names: list[str], groups: list[str]) -> Table:
    count = len(names)
    rows = [f"row {i}" for i in range(count)]
    keypoints, sizes = np.ones((count, 19, 3), np.float32), np.full((count, 2), 640)
    return make_table(Path(), names, ["crown_thrust"] * count, sizes, keypoints, rows, groups=groups)


RENDERS = table(["../people/images/s1p0000_00.jpg", "../camera/images/s3p0000_08.jpg"], ["s1p0000", "s3p0000"])
PHOTOS = table(["photos/crown_thrust/anna_01.jpg", "photos/crown_thrust/ben/2.jpg"], ["anna", "ben"])


def seen_by(folder: Path, **told: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "detectors.json").write_bytes(msgspec.json.encode(Detectors(**told)))
    return folder


def test_a_card_says_whose_eyes_saw_its_test(tmp_path: Path) -> None:
    for told, said in (
        ({}, "seen through the shipped detectors"), ({"closer": "auto"}, "seen through the shipped detectors"),
        ({"truth": True}, "given with their true keypoints"), ({"body": "mine"}, "seen through mine and stick_heatmap"),
        ({"fused": "both"}, "seen through both"),
    ):  # fmt: skip
        notes = notes_text(PHOTOS, seen_by(tmp_path, **told), GROUPED, transfer=False, certain=True)
        assert f"they are {said};" in notes
    assert "as the table has them" in notes_text(PHOTOS, tmp_path / "t.csv", GROUPED, transfer=False, certain=True)


def test_only_pictures_of_synthetic_people_are_called_rendered(tmp_path: Path) -> None:
    assert RENDERS.is_rendered() and not PHOTOS.is_rendered()
    rendered = notes_text(RENDERS, seen_by(tmp_path), GROUPED, transfer=False, certain=True)
    assert "are rendered and seen through the shipped detectors" in rendered
    assert "render" not in notes_text(PHOTOS, tmp_path, GROUPED, transfer=False, certain=True)
    assert data_text(PHOTOS, {}).startswith("2 pictures of 2 people") and "synthetic" in data_text(RENDERS, {})


def test_a_card_tells_all_that_was_trained_on() -> None:
    assert data_text(PHOTOS, {"exact": 0, "drawn": 0}) == data_text(PHOTOS, {})
    assert "drawn" not in data_text(RENDERS, {"drawn": 0})
    told = data_text(PHOTOS, {"exact": 40, "drawn": 6000, "statistics": "mine.json"})
    assert told.endswith("; 40 samples of true keypoints; 6000 samples an epoch drawn from mine.json")


def test_a_card_says_whether_the_threshold_keeps_its_promise(tmp_path: Path) -> None:
    for certain, said in ((True, "nine of ten accepted answers are right"), (False, "mistrust it")):
        assert said in notes_text(PHOTOS, tmp_path, GROUPED, transfer=False, certain=certain)


def test_a_card_says_that_the_threshold_was_raised(tmp_path: Path) -> None:
    for raised in (True, False):
        told = notes_text(PHOTOS, tmp_path, GROUPED, transfer=False, certain=True, raised=raised)
        assert ("The threshold was raised from there" in told) == raised


def test_a_table_without_names_or_pictures_says_so(tmp_path: Path) -> None:
    bare = table(["", ""], ["", ""])
    assert "names no people" in notes_text(bare, tmp_path / "t.csv", UNGROUPED, transfer=False, certain=True)
    assert "unnamed people" in data_text(bare, {})


def test_real_keypoints_are_spoken_of_only_where_they_were_measured(tmp_path: Path) -> None:
    assert "Real keypoints" in notes_text(RENDERS, tmp_path, GROUPED, transfer=True, certain=True)
    assert "Real keypoints" not in notes_text(RENDERS, tmp_path, GROUPED, transfer=False, certain=True)


def test_a_card_tells_of_people_whom_the_weights_had_met(tmp_path: Path) -> None:
    groups = "people or recordings; the weights mine have met 1 of 2, such as anna; figures on people met flatter"
    assert f"Tested on {groups}." in notes_text(PHOTOS, tmp_path, groups, transfer=False, certain=True)
