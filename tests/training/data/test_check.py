"""The check: a sound table passes, and each fault that is put in is found in the row in which it lies."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages import skeleton as sk
from stages.classes import load_classes
from stages.graph import mirror_keypoints
from training import app
from training.data.check import Finding, check_table, trainable
from training.data.duplicates import difference_hash, find_duplicates, picture_hashes
from training.data.sheet import chosen_rows, draw_sheet, end_of
from training.data.table import Table, make_table, write_table
from training.geopose.pose_statistics import PoseStatistics

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[3] / "training" / "synth" / "pose_statistics.json"
PEOPLE = 6
ROW = 7
SIDE = 1000


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Keypoints of real people's statistics, turned to face the camera as they are, and their classes."""
    return PoseStatistics(STATISTICS, CLASSES.names).draw(400, np.random.default_rng(1))


@pytest.fixture
def table(drawn: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Table:
    """400 sound rows of 6 people, right-handed, all points sure, without pictures."""
    keypoints, labels = drawn[0].copy(), drawn[1]
    keypoints[..., :2] = keypoints[..., :2] * 150 + SIDE / 2
    keypoints[:, :17, 2] = 0.9
    count = len(labels)
    return make_table(
        tmp_path, [""] * count, [CLASSES.names[label] for label in labels], np.full((count, 2), SIDE), keypoints,
        [f"t.csv row {i + 2}" for i in range(count)], groups=[f"p{i % PEOPLE}" for i in range(count)],
        hands=["right"] * count,
    )  # fmt: skip


def rules(findings: list[Finding], row: int = ROW) -> set[str]:
    """Rules that a row breaks."""
    return {finding.rule for finding in findings if row in finding.rows}


def front_row(table: Table) -> int:
    """A row that faces the camera and has a stick."""
    width = table.keypoints[:, sk.LEFT_SHOULDER, 0] - table.keypoints[:, sk.RIGHT_SHOULDER, 0]
    eyes = table.keypoints[:, sk.LEFT_EYE, 0] - table.keypoints[:, sk.RIGHT_EYE, 0]
    stick = (table.keypoints[:, 17:, 2] > 0.5).all(1)
    return int(np.argmax(np.minimum(width, 5 * eyes) * stick))


def test_a_sound_table_is_fit_for_training(table: Table) -> None:
    findings = check_table(table, CLASSES)
    assert trainable(findings), findings
    assert all(len(finding.rows) < 0.05 * len(table) for finding in findings if finding.rule not in ("stick", "body"))


def changed(table: Table, row: int, **values: object) -> Table:
    """The table with other texts in one row."""
    arrays = {name: getattr(table, name).astype(object) for name in values}
    for name, value in values.items():
        arrays[name][row] = value
    return replace(table, **{name: array.astype(str) for name, array in arrays.items()})


@pytest.mark.parametrize(
    ("rule", "values"),
    [("class", {"labels": "somersault"}), ("group", {"groups": ""}), ("split", {"splits": "test"})],
)
def test_wrong_words_are_named_and_forbid_training(rule: str, values: dict[str, str], table: Table) -> None:
    everywhere = replace(table, splits=np.full(len(table), "train"))
    findings = check_table(changed(everywhere, ROW, **values), CLASSES)
    assert rule in rules(findings) and not trainable(findings)


def test_a_table_without_groups_passes_only_when_that_is_wanted(table: Table) -> None:
    nobody = replace(table, groups=np.full(len(table), ""))
    assert not trainable(check_table(nobody, CLASSES))
    assert trainable(check_table(nobody, CLASSES, need_groups=False))


def test_a_body_of_a_few_pixels_forbids_training(table: Table) -> None:
    keypoints = table.keypoints.copy()
    keypoints[ROW, :, :2] /= SIDE
    findings = check_table(replace(table, keypoints=keypoints), CLASSES)
    assert "pixels" in rules(findings) and not trainable(findings)


@pytest.mark.parametrize(
    ("one", "other"), [("José 1", "josé 1"), ("José 1", "José-1"), ("José 1", "Jose\N{COMBINING ACUTE ACCENT} 1")]
)
def test_people_whose_names_hardly_differ_are_told_of(table: Table, one: str, other: str) -> None:
    findings = check_table(changed(changed(table, ROW, groups=one), ROW + 1, groups=other), CLASSES)
    told = [finding.means.split(" differ only")[0] for finding in findings if "capitals" in finding.means]
    assert len(told) == 1 and set(told[0].split(", ")) == {one, other} and trainable(findings)


@pytest.mark.parametrize(("people", "verdict"), [(2, False), (3, True)])
def test_fewer_people_than_fit_needs_forbid_training(people: int, verdict: bool, table: Table) -> None:
    few = replace(table, groups=np.array([f"p{row % people}" for row in range(len(table))]))
    findings = check_table(few, CLASSES)
    assert trainable(findings) == verdict
    assert any("are too few" in finding.means for finding in findings)
    assert trainable(check_table(few, CLASSES, need_groups=False))


def test_a_split_without_one_of_its_parts_forbids_training(table: Table) -> None:
    parts = np.array(["train", "val"])[np.arange(len(table)) % PEOPLE % 2]
    findings = check_table(replace(table, splits=parts), CLASSES)
    assert not trainable(findings) and any("leaves no row for test" in finding.means for finding in findings)
    parts[0] = ""
    assert not any("leaves no row" in finding.means for finding in check_table(replace(table, splits=parts), CLASSES))


def test_exchanged_hips_and_arms_are_found(table: Table) -> None:
    row = front_row(table)
    for pair in ([sk.LEFT_HIP, sk.RIGHT_HIP], [sk.LEFT_SHOULDER, sk.RIGHT_SHOULDER]):
        keypoints = table.keypoints.copy()
        keypoints[row, pair] = keypoints[row, pair[::-1]]
        assert "sides" in rules(check_table(replace(table, keypoints=keypoints), CLASSES), row)


def test_flipped_pictures_with_unflipped_names_forbid_training(table: Table) -> None:
    keypoints = table.keypoints.copy()
    keypoints[::3, :, 0] = SIDE - keypoints[::3, :, 0]
    findings = check_table(replace(table, keypoints=keypoints), CLASSES)
    flipped = next(finding for finding in findings if finding.rule == "flipped")
    assert flipped.severity == "error"
    assert np.mean([row % 3 == 0 for row in flipped.rows]) > 0.9


def test_a_few_people_seen_from_behind_forbid_nothing(table: Table) -> None:
    """A back is a front whose left and right are exchanged. Whoever labels it by hand calls the face hidden."""
    keypoints = table.keypoints.copy()
    keypoints[::20, :, 0] = SIDE - keypoints[::20, :, 0]
    findings = check_table(replace(table, keypoints=keypoints), CLASSES)
    assert trainable(findings)
    assert "unless these people are seen from behind" in next(f.means for f in findings if f.rule == "flipped")
    keypoints[:, sk.NOSE, 2] = 0.5
    assert all(f.rule != "flipped" for f in check_table(replace(table, keypoints=keypoints), CLASSES))


def test_a_mirrored_row_with_the_hand_kept_is_found(table: Table) -> None:
    row = front_row(table)
    keypoints = table.keypoints.copy()
    keypoints[row] = mirror_keypoints(keypoints[row]) + np.array([SIDE, 0, 0], np.float32)
    keypoints[row, sk.GRIP] = keypoints[row, sk.LEFT_WRIST]
    keypoints[row, sk.RIGHT_WRIST, :2] = keypoints[row, sk.LEFT_WRIST, :2] + 100
    assert "hand" in rules(check_table(replace(table, keypoints=keypoints), CLASSES), row)


def test_sticks_that_cannot_be_are_found(table: Table) -> None:
    row = front_row(table)
    long, ends, gone = table.keypoints.copy(), table.keypoints.copy(), table.keypoints.copy()
    long[row, sk.TIP, :2] = long[row, sk.GRIP, :2] + (0, 500)
    ends[row, [sk.GRIP, sk.TIP]] = ends[row, [sk.TIP, sk.GRIP]]
    gone[row, sk.GRIP :] = 0
    labels = changed(table, row, labels="crown_thrust")
    for rule, keypoints in (("long", long), ("ends", ends), ("stick", gone)):
        assert rule in rules(check_table(replace(labels, keypoints=keypoints), CLASSES), row), rule


def test_points_outside_the_picture_are_found(table: Table) -> None:
    keypoints = table.keypoints.copy()
    keypoints[ROW, :, 0] += SIDE
    assert "outside" in rules(check_table(replace(table, keypoints=keypoints), CLASSES))


def test_coordinates_of_larger_pictures_than_those_there_are_found_and_are_no_copies(table: Table) -> None:
    few = table.select(np.arange(4))
    names = [f"small_{i}.png" for i in range(len(few))]
    for seed, name in enumerate(names):
        cv2.imwrite(str(table.folder / name), cv2.resize(textured(seed), (250, 250)))
    small = replace(few, pictures=np.array(names), sizes=np.full((len(few), 2), 250))
    findings = check_table(small, CLASSES, hashes=picture_hashes(small))
    assert "outside" in rules(findings, 0) and not {"leak", "copy"} & {finding.rule for finding in findings}


def turned(points: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    """Keypoints (19, 3) turned, scaled and moved, as augmentation does it."""
    angle = np.radians(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([points[:, :2] @ matrix.T + 30, points[:, 2]]).astype(np.float32)


def test_an_augmented_copy_under_another_person_is_a_leak(table: Table) -> None:
    keypoints = table.keypoints.copy()
    keypoints[ROW] = turned(keypoints[0], 12, 0.8)
    keypoints[ROW + PEOPLE] = turned(mirror_keypoints(keypoints[1]), -5, 1.1)
    copies = replace(table, keypoints=keypoints)
    pairs = {(pair.first, pair.second, pair.mirrored) for pair in find_duplicates(copies)}
    assert pairs == {(0, ROW, False), (1, ROW + PEOPLE, True)}
    findings = check_table(copies, CLASSES)
    assert "leak" in rules(findings) and not trainable(findings)
    assert "mirror" in rules(findings, ROW + PEOPLE)
    leak = next(finding for finding in findings if finding.rule == "leak")
    assert leak.details[leak.rows.index(ROW)] == "copy of t.csv row 2"


def textured(seed: int) -> np.ndarray:
    """A soft random picture, uint8 (1000, 1000, 3)."""
    small = np.random.default_rng(seed).uniform(0, 255, (30, 30, 3)).astype(np.float32)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def test_a_recoded_picture_is_known_again_although_its_points_were_found_anew(table: Table) -> None:
    few = table.select(np.arange(4))
    for name, picture in (("a", textured(1)), ("b", textured(2)), ("c", textured(3))):
        cv2.imwrite(str(table.folder / f"{name}.png"), picture)
    copy = cv2.resize(cv2.convertScaleAbs(textured(1), alpha=0.8, beta=20), (625, 625))
    cv2.imwrite(str(table.folder / "d.jpg"), copy, [cv2.IMWRITE_JPEG_QUALITY, 50])
    keypoints = few.keypoints.copy()
    keypoints[3] = keypoints[0] * (0.625, 0.625, 1)
    keypoints[3, :, :2] += np.random.default_rng(0).normal(0, 2, (19, 2))
    few = replace(few, keypoints=keypoints, pictures=np.array(["a.png", "b.png", "c.png", "d.jpg"]))
    assert [(pair.first, pair.second) for pair in find_duplicates(few, picture_hashes(few))] == [(0, 3)]
    assert find_duplicates(few) == []


def test_the_hash_of_a_mirror_image_differs() -> None:
    grey = textured(4)[..., 0]
    assert (difference_hash(grey) != difference_hash(grey[:, ::-1])).sum() > 50


def test_the_sheet_shows_rows_with_problems_and_others(table: Table) -> None:
    problem = Finding("long", "", [3, 5], ["", ""], "warning")
    sheet = draw_sheet(table, [problem])
    assert sheet.shape == (4 * 420, 6 * 360, 3)
    rows = chosen_rows(table, [3, 5], 24)
    assert rows[:2] == [3, 5] and len(set(rows)) == 24


def test_the_command_says_it_in_words_and_json(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    table = replace(table, pictures=np.array([f"{row}.jpg" for row in range(len(table))]))
    write_table(table, path, CLASSES.names)
    assert app.main(["check", str(path), "--no-pictures", "--sheet", str(tmp_path / "s.png")]) == 0
    out = capsys.readouterr().out
    assert "fit for training" in out
    assert re.search(r"s\.png: 12 of \d+ rows that look wrong \(head in red\) and 12 others .* left side is blue", out)
    write_table(changed(table, ROW, labels="somersault"), path, CLASSES.names)
    assert app.main(["check", str(path), "--json", str(tmp_path / "c.json")]) == 1
    out = capsys.readouterr().out
    assert f"t.csv row {ROW + 2} ({ROW}.jpg): 'somersault'" in out and "the head of the table is row 1" in out
    report = json.loads((tmp_path / "c.json").read_text())
    assert report["trainable"] is False and report["rows"] == 400
    assert report["findings"][0]["rows"] == [
        {"row": f"t.csv row {ROW + 2}", "picture": f"{ROW}.jpg", "detail": "'somersault'"}
    ]
    assert app.main(["check", str(tmp_path / "gone.csv")]) == 2


def test_a_json_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "c.json"):
        assert app.main(["check", str(tmp_path / "gone.csv"), "--json", str(place)]) == 2
        assert f"cannot write {place}; give" in capsys.readouterr().err


def test_a_head_begins_with_a_whole_folder() -> None:
    person = "a" * 12
    assert end_of(f"photos/crown_thrust/{person}/IMG_000000000001.jpg") == f"{person}/IMG_000000000001.jpg"
    assert end_of("x" * 50 + ".jpg") == "x" * 36 + ".jpg"
    assert end_of(f"photos/{'b' * 36}.jpg") == f"{'b' * 36}.jpg"


@pytest.mark.parametrize("sheet", ["sheet", "sheet.pdf", "nowhere/sheet.png"])
def test_a_sheet_that_is_no_picture_is_refused_before_anything_is_read(
    sheet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["check", str(tmp_path / "gone.csv"), "--sheet", str(tmp_path / sheet)]) == 2
    assert f"cannot write {tmp_path / sheet}; give a .jpg or .png" in capsys.readouterr().err
