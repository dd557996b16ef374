"""Pictures in class-named folders become a table; hands and views are told from what the detectors see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.classes import load_classes, models_folder
from training import app
from training.data import label_command
from training.data.label_command import usual_hands
from training.data.readers import read_any
from training.data.table import Table

NAMES = load_classes().names


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    return path


@pytest.fixture
def seeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors that see the same person, with the stick in the left hand, in each picture."""

    def look_at(data: Table, *_: object, **__: bool) -> Iterator[tuple[Table, np.ndarray]]:
        points = np.ones((len(data), 19, 3), np.float32) * (20, 30, 0.8)
        hands = np.full(len(data), "left")
        yield replace(data, keypoints=points, hands=hands, sizes=np.full((len(data), 2), 64)), np.zeros(0)

    monkeypatch.setattr(label_command, "look_at", look_at)


@pytest.mark.usefixtures("seeing")
def test_a_folder_for_each_class_becomes_a_table_that_can_be_read(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("Crown Thrust/anna/1.jpg", "crown_thrust/ben_02.png", "neutral/IMG_77.jpg"):
        picture(photos / name)
    for out in (tmp_path / "t.csv", photos / "t.json"):
        assert app.main(["label", str(photos), "--out", str(out)]) == 0
        table = read_any(out)
        assert table.labels.tolist() == ["crown_thrust", "crown_thrust", "neutral"]
        assert table.groups.tolist() == ["anna", "ben", ""]
        assert table.hands.tolist() == table.true_hands.tolist() == ["left"] * 3
        assert all(table.picture_path(i).is_file() for i in range(3))


@pytest.mark.usefixtures("seeing")
def test_a_hand_that_is_told_is_that_of_every_picture(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "neutral" / "anna_1.jpg")
    assert app.main(["label", str(tmp_path / "photos"), "--hand", "right", "--out", str(tmp_path / "t.csv")]) == 0
    assert read_any(tmp_path / "t.csv").true_hands.tolist() == ["right"], "whatever was seen, also nothing"


@pytest.mark.usefixtures("seeing")
def test_corrections_from_another_tool_overrule_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, table, corrected = tmp_path / "photos", tmp_path / "t.csv", tmp_path / "elsewhere" / "c.json"
    picture(photos / "neutral" / "anna_1.jpg")
    assert app.main(["label", str(photos), "--out", str(table)]) == 0
    assert app.main(["convert", str(table), "--out", str(corrected)]) == 0
    corrected.write_text(corrected.read_text().replace("20.0", "21.5"))
    assert app.main(["convert", str(corrected), str(table), "--out", str(table)]) == 0
    again = read_any(table)
    assert (again.keypoints[0, :, 0] == 21.5).all() and again.picture_path(0).is_file()
    assert app.main(["label", str(photos), "--out", str(table)]) == 2, "corrections are not labelled over"
    assert "may hold corrections" in capsys.readouterr().err and (read_any(table).keypoints == again.keypoints).all()


@pytest.mark.usefixtures("seeing")
def test_further_pictures_are_put_to_those_of_before(tmp_path: Path) -> None:
    for name, who in (("old", "anna_1.jpg"), ("new", "ben_1.jpg")):
        picture(tmp_path / name / "neutral" / who)
        assert app.main(["label", str(tmp_path / name), "--out", str(tmp_path / f"{name}.csv")]) == 0
    old, new = str(tmp_path / "old.csv"), str(tmp_path / "new.csv")
    assert app.main(["convert", old, new, "--out", old]) == 0
    assert sorted(read_any(tmp_path / "old.csv").groups.tolist()) == ["anna", "ben"]


@pytest.mark.usefixtures("seeing")
def test_label_studios_names_of_uploaded_pictures_are_the_pictures_own(tmp_path: Path) -> None:
    photos, table, corrected = tmp_path / "photos", tmp_path / "t.csv", tmp_path / "elsewhere" / "c.json"
    for name in ("anna_1.jpg", "ben_1.jpg"):
        picture(photos / "neutral" / name)
    assert app.main(["label", str(photos), "--out", str(table)]) == 0
    assert app.main(["convert", str(table), "--out", str(corrected)]) == 0
    exported = json.loads(corrected.read_text().replace("20.0", "21.5"))
    for number, entry in enumerate(exported["images"]):
        entry["file_name"] = f"images/{number}a2b3c4d-{Path(entry['file_name']).name}"
    corrected.write_text(json.dumps(exported))
    assert app.main(["convert", str(corrected), str(table), "--out", str(table)]) == 0
    again = read_any(table)
    assert len(again) == 2 and set(again.groups.tolist()) == {"anna", "ben"}
    assert (again.keypoints[..., 0] == 21.5).all() and all(again.picture_path(i).is_file() for i in range(2))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no .jpg, .png"),
        (["neutral/anna_1.heic"], "only 1 .heic; save them as JPEG"),
        (["1.jpg"], "lies in no class's folder"),
        (["somersault/1.jpg"], "somersault is no class; rename it, or give your class file with --classes"),
    ],
)
def test_other_folders_are_one_sentence_and_exit_code_two(
    files: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for file in files:
        picture((tmp_path / "photos" / file).with_suffix(".jpg")).rename(tmp_path / "photos" / file)
    assert app.main(["label", str(tmp_path / "photos"), "--out", str(tmp_path / "t.csv")]) == 2
    assert message in capsys.readouterr().err


def demo_picture(path: Path) -> bytes:
    """A JPEG of the person of the demo clip; returns its bytes."""
    clip = cv2.VideoCapture(str(models_folder() / "demo.mp4"))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), clip.read()[1])
    return path.read_bytes()


def test_bad_pictures_are_skipped_and_named_and_other_kinds_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = tmp_path / "photos" / "neutral"
    whole = demo_picture(photos / "anna_1.jpg")
    (photos / "anna_2.jpg").write_bytes(b"no picture")
    (photos / "anna_3.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "anna_4.jpg").write_bytes(whole + b"what a phone adds")
    for name in ("cora_09.heic", "cora_10.HEIC", "notes.txt"):
        (photos / name).touch()
    with caplog.at_level("INFO"):
        assert app.main(["label", str(tmp_path / "photos"), "--out", str(tmp_path / "t.csv")]) == 0
    assert read_any(tmp_path / "t.csv").pictures.tolist() == ["photos/neutral/anna_1.jpg", "photos/neutral/anna_4.jpg"]
    skipped = [message for message in caplog.messages if message.startswith("skipped")]
    assert ["anna_2.jpg" in skipped[0], "anna_3.jpg" in skipped[1], len(skipped)] == [True, True, 2]
    assert "2 pictures skipped" in caplog.messages[-1]
    assert "2 .heic, 1 .txt; save those that are pictures as JPEG" in caplog.text


def test_bad_pictures_alone_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos" / "neutral").mkdir(parents=True)
    (tmp_path / "photos" / "neutral" / "anna_2.jpg").write_bytes(b"no picture")
    assert app.main(["label", str(tmp_path / "photos"), "--out", str(tmp_path / "t.csv")]) == 2
    assert "can be read; replace them" in capsys.readouterr().err


def test_ctrl_c_leaves_what_was_labelled_and_says_how_many_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def look_at(data: Table, detectors: object, processes: int, rows: int, **_: bool) -> Iterator[tuple[Table, None]]:
        good = np.arange(rows) != 3  # one is no picture
        yield data.select(slice(0, rows)).select(good), None
        raise KeyboardInterrupt

    monkeypatch.setattr(label_command, "look_at", look_at)
    for number in range(20):
        picture(tmp_path / "photos" / "neutral" / f"anna_{number:02d}.jpg")
    words = ["label", str(tmp_path / "photos"), "--out", str(tmp_path / "t.csv")]
    with caplog.at_level("INFO"):
        assert app.main(words) == 130
    assert len(read_any(tmp_path / "t.csv")) == 15
    assert "1 pictures skipped" in caplog.messages[-2] and "4 of 20 pictures are missing" in caplog.messages[-1]
    assert sum(message.startswith("skipped") for message in caplog.messages) == 1
    before = (tmp_path / "t.csv").read_bytes()
    assert app.main(words) == 2, "the table may hold corrections by now"
    assert (tmp_path / "t.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("out", "message"),
    [("t.xls", "must end in .csv or .json"), ("a.csv", "is a folder"), ("file/t.csv", "choose another place")],
)
def test_a_place_that_will_not_do_is_told_before_anything_is_looked_at(
    out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(label_command, "look_at")
    picture(tmp_path / "photos" / "neutral" / "anna_1.jpg")
    (tmp_path / "a.csv").mkdir()
    (tmp_path / "file").touch()
    assert app.main(["label", str(tmp_path / "photos"), "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err


def test_a_stick_that_is_labelled_by_hand_is_in_the_hand_its_person_is_known_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_at(data: Table, *_: object, **__: bool) -> Iterator[tuple[Table, np.ndarray]]:
        points = np.ones((len(data), 19, 3), np.float32) * (20, 30, 0.8)
        points[4, 17:] = 0
        hands = np.array(["left"] * 4 + [""])
        yield replace(data, keypoints=points, hands=hands, sizes=np.full((len(data), 2), 64)), np.zeros(0)

    monkeypatch.setattr(label_command, "look_at", look_at)
    photos, table, corrected = tmp_path / "photos", tmp_path / "t.csv", tmp_path / "c.json"
    for number in range(5):
        picture(photos / "neutral" / f"anna_{number}.jpg")
    assert app.main(["label", str(photos), "--out", str(table)]) == 0
    assert app.main(["convert", str(table), "--out", str(corrected)]) == 0
    edited = json.loads(corrected.read_text())
    for annotation in edited["annotations"]:
        annotation["keypoints"] = [20.0, 30.0, 2] * 19
    corrected.write_text(json.dumps(edited))
    assert app.main(["convert", str(corrected), str(table), "--out", str(table)]) == 0
    assert read_any(table).left_handed().tolist() == [True] * 5


def test_a_person_is_left_handed_when_most_pictures_say_so() -> None:
    hands = np.array(["left", "left", "left", "right", "", "right", "left", "left"])
    groups = np.array(["anna"] * 5 + ["ben", "ben", ""])
    assert usual_hands(hands, groups).tolist() == ["left"] * 5 + ["right", "left", "left"]


@pytest.mark.usefixtures("seeing")
def test_one_table_is_not_written_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("old", "new"):
        picture(tmp_path / name / "neutral" / "anna_1.jpg")
        assert app.main(["label", str(tmp_path / name), "--out", str(tmp_path / f"{name}.csv")]) == 0
    before = (tmp_path / "old.csv").read_bytes()
    assert app.main(["convert", str(tmp_path / "new.csv"), "--out", str(tmp_path / "old.csv")]) == 2
    assert "may hold corrections" in capsys.readouterr().err and (tmp_path / "old.csv").read_bytes() == before
