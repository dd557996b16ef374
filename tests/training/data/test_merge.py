"""Corrections from a tool for labelling go into the table that they correct, whatever the tool calls the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.classes import load_classes
from stages.skeleton import NODE_COUNT
from training import app
from training.data.readers import read_any
from training.data.table import Table, make_table, write_table

NAMES = load_classes().names
PICTURES = [f"photos/{pose}/{person}_01.jpg" for pose in NAMES[:3] for person in ("abel", "ben")]
"""The names of the files alone are not unique: every person has one in each pose."""
LAST = PICTURES[-1]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table with graded confidences, in an order that is not the alphabet's."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0.1, 0.99, (len(PICTURES), NODE_COUNT, 3)) * (600, 600, 1)
    labels, people = [name.split("/")[1] for name in PICTURES], [Path(name).stem.split("_")[0] for name in PICTURES]
    sizes = np.full((len(PICTURES), 2), 640)
    made = make_table(tmp_path, PICTURES, labels, sizes, points, PICTURES, groups=people)
    write_table(made, tmp_path / "poses.csv", NAMES)
    return tmp_path / "poses.csv"


def export(table: Path, named: Callable[[str], str] = str, attributes: bool = True) -> Path:
    """The table's export, in which the nose of the last picture was moved by 10 pixels."""
    file = table.with_name("corrected.json")
    file.unlink(missing_ok=True)
    assert app.main(["convert", str(table), "--out", str(file)]) == 0
    content = json.loads(file.read_text())
    content["annotations"][-1]["keypoints"][0] += 10
    for image in content["images"]:
        image["file_name"] = named(image["file_name"])
    if not attributes:
        for annotation in content["annotations"]:
            del annotation["attributes"]
    # The tool sorts the pictures in its own way.
    content["images"].reverse()
    file.write_text(json.dumps(content))
    return file


def merged(table: Path, corrected: Path) -> Table:
    assert app.main(["convert", str(corrected), str(table), "--out", str(table)]) == 0
    return read_any(table)


@pytest.mark.parametrize(
    "named",
    [
        pytest.param(str, id="as they were exported"),
        pytest.param(lambda name: name.removeprefix("photos/"), id="without a folder"),
        pytest.param(lambda name: f"club/{name}", id="with a further folder"),
    ],
)
def test_corrections_find_their_rows_and_say_how_many(
    named: Callable[[str], str], table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, corrected = read_any(table), export(table, named)
    with caplog.at_level("INFO"):
        new = merged(table, corrected)
    assert new.pictures.tolist() == PICTURES, "its order is the table's"
    assert new.keypoints[-1, 0, 0] == pytest.approx(old.keypoints[-1, 0, 0] + 10, abs=0.01)
    assert "1 rows corrected, 5 as they were, 0 pictures that the table does not know" in caplog.text


def test_a_point_that_nobody_moved_is_as_sure_as_it_was(table: Path) -> None:
    old = read_any(table)
    new = merged(table, export(table))
    assert new.keypoints[-1, 0, 2] in (0.5, 1)
    new.keypoints[-1, 0] = old.keypoints[-1, 0]
    np.testing.assert_array_equal(new.keypoints, old.keypoints)


def test_names_of_which_the_table_knows_several_are_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = table.read_text()
    corrected = export(table, lambda name: f"images/1a2b3c4d-{Path(name).name}")
    assert app.main(["convert", str(corrected), str(table), "--out", str(table)]) == 2
    error = capsys.readouterr().err
    assert "knows 'photos/crown_thrust/ben_01.jpg' and no 'images/1a2b3c4d-ben_01.jpg'" in error
    assert table.read_text() == before


def test_two_unknown_pictures_of_one_name_are_refused(table: Path) -> None:
    corrected = export(table, lambda name: Path(name).name if "crown" not in name and "abel" in name else name)
    assert app.main(["convert", str(corrected), str(table), "--out", str(table)]) == 2


def test_a_person_whose_folder_the_export_left_out_stays_who_it_is(table: Path) -> None:
    """`front_01.jpg` in anna's folder is of anna, not of somebody called front."""
    few = read_any(table).select(slice(0, 2))
    names = np.array(["photos/crown_thrust/anna/front_01.jpg", "photos/crown_thrust/ben/side_01.jpg"])
    write_table(replace(few, pictures=names, groups=np.array(["anna", "ben"])), table, NAMES)
    corrected = export(table, lambda name: Path(name).name, attributes=False)
    assert merged(table, corrected).groups.tolist() == ["anna", "ben"]


def test_a_person_who_was_corrected_is_who_the_correction_says(table: Path) -> None:
    """Also where the picture's name says the same, which alone overrules nobody."""
    few = read_any(table).select(slice(0, 1))
    names = np.array(["photos/crown_thrust/anna/front_01.jpg"])
    write_table(replace(few, pictures=names, groups=np.array(["ana"])), table, NAMES)
    assert merged(table, export(table, attributes=False)).groups.tolist() == ["ana"]
    corrected = export(table)
    corrected.write_text(corrected.read_text().replace('"group": "ana"', '"group": "anna"'))
    assert merged(table, corrected).groups.tolist() == ["anna"]


def test_some_new_pictures_are_added_at_the_end(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    corrected = export(table, lambda name: "photos/neutral/cora_01.jpg" if name == LAST else name)
    with caplog.at_level("INFO"):
        new = merged(table, corrected)
    assert new.pictures.tolist() == [*PICTURES, "photos/neutral/cora_01.jpg"]
    assert "0 rows corrected, 5 as they were, 1 pictures that the table does not know" in caplog.text


def test_label_studios_prefix_is_nobodys_name(table: Path) -> None:
    few = read_any(table).select(slice(0, 2))
    write_table(few, table, NAMES)
    corrected = export(table, lambda name: f"images/1a2b3c4d-{Path(name).name}", attributes=False)
    assert read_any(corrected).groups.tolist() == ["ben", "abel"]
    assert merged(table, corrected).groups.tolist() == ["abel", "ben"]


def test_label_studios_names_without_spaces_and_brackets_find_their_rows(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = read_any(table).select(slice(0, 2))
    names = np.array(["photos/crown_thrust/jörg/19.30 (2)_a.jpg", "photos/crown_thrust/ben/20260912_193012.jpg"])
    write_table(replace(few, pictures=names, groups=np.array(["jörg", "ben"])), table, NAMES)
    uploaded = {"19.30 (2)_a.jpg": "images/1a2b3c4d-19.30_2_a.jpg"}
    with caplog.at_level("INFO"):
        new = merged(table, export(table, lambda name: uploaded.get(Path(name).name, name), attributes=False))
    assert new.pictures.tolist() == names.tolist()
    # The first name seems to name somebody, who is not a correction of who it is.
    assert "1 rows corrected, 1 as they were, 0 pictures that the table does not know" in caplog.text


def test_who_names_the_corrections_last_is_told_that_they_are_lost(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corrected = export(table)
    assert app.main(["convert", str(table), str(corrected), "--out", str(table)]) == 0
    assert f"{table} overrules {corrected}; name corrections first" in caplog.text


def test_a_class_corrected_in_the_table_stays_where_an_export_only_tells_it_by_the_folder(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read_any(table)
    labels = rows.labels.copy()
    labels[0] = NAMES[5]
    write_table(replace(rows, labels=labels), table, NAMES)
    with caplog.at_level("INFO"):
        assert merged(table, export(table, attributes=False)).labels[0] == NAMES[5]
    assert "1 rows corrected, 5 as they were" in caplog.text
