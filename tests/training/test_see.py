"""The detectors' view of a data set: written with the pipeline's own stages, from the shipped demo clip."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import av
import cv2
import msgspec
import numpy as np
import pytest

pytest.importorskip("tqdm")

from engine.errors import UserError
from stages.classes import load_classes, models_folder
from stages.skeleton import GRIP, LEFT_WRIST, NODE_COUNT, TIP
from training import app, see, seen_folder
from training.data.cells import whole_lines
from training.data.readers import read_any
from training.data.table import KEYPOINT_COLUMNS, make_table, write_table
from training.geopose.data import pose_table, read_source
from training.see import Detectors, is_of_a_hold


def test_half_of_anybodys_pictures_are_of_a_hold_whatever_the_order() -> None:
    for names in ([f"anna/IMG_{i:04d}.jpg" for i in range(200)], [f"p{i}/front.jpg" for i in range(200)]):
        held = [is_of_a_hold(name) for name in names]
        assert 70 < sum(held) < 130
        assert 70 < sum(a != b for a, b in zip(held, held[1:], strict=False)) < 130


def write_people(folder: Path, count: int) -> Path:
    """A table of grey pictures; everybody's grip is at the left wrist, and `grip_hand` says right by mistake."""
    points = np.random.default_rng(0).uniform(100, 300, (count, NODE_COUNT, 3)).astype(np.float32)
    points[..., 2] = 1
    points[:, GRIP] = points[:, LEFT_WRIST]
    names = [f"{i}.png" for i in range(count)]
    for name in names:
        cv2.imwrite(os.fspath(folder / name), np.full((400, 400, 3), 128, np.uint8))
    table = make_table(
        folder, names, ["neutral"] * count, np.full((count, 2), 400), points, names, hands=["right"] * count,
        true_hands=["left"] * count,
    )  # fmt: skip
    write_table(table, folder / "table.csv", load_classes().names)
    return folder / "table.csv"


def test_the_truth_holds_the_hand_that_really_has_the_stick(tmp_path: Path) -> None:
    """And a run that was killed before the head of its table was on the disk goes on."""
    data, out = write_people(tmp_path, 2), tmp_path / "exact"
    (out / "crops").mkdir(parents=True)
    (out / "table.csv").touch()
    (out / "detectors.json").write_bytes(msgspec.json.encode(Detectors(truth=True, closer="auto")))
    assert app.main(["see", str(data), "--truth", "--out", str(out)]) == 0
    assert read_any(out / "table.csv").hands.tolist() == ["left", "left"]
    assert len(pose_table(read_any(out / "table.csv"), load_classes().names, out / "crops")) == 2


def test_a_folder_whose_hands_were_told_otherwise_is_not_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_people(tmp_path, 2), tmp_path / "seen"
    (out / "crops").mkdir(parents=True)
    (out / "detectors.json").write_bytes(msgspec.json.encode(Detectors()))
    assert app.main(["see", str(data), "--closer", "", "--out", str(out)]) == 2
    assert "was begun with hand none" in capsys.readouterr().err
    assert app.main(["see", str(data), "--truth", "--hand", "left", "--out", str(out)]) == 2
    assert "leave --hand out" in capsys.readouterr().err


def test_a_table_cut_off_in_a_line_is_gone_on_with_from_its_whole_files_of_crops(tmp_path: Path) -> None:
    data, out = write_people(tmp_path, 6), tmp_path / "exact"
    whole = whole_lines(data)
    (out / "crops").mkdir(parents=True)
    files = [out / "crops" / f"{number:05d}.npy" for number in range(4)]
    for file, rows in zip(files, (1, 2, 2, 1), strict=True):
        np.save(file, np.zeros((rows, 2, 2, 3), np.uint8))
    files[3].write_bytes(files[3].read_bytes()[:-3])
    text = "\r\n".join(",".join(line) for line in whole[:6])
    for cut, rows, whole_files in ((0, 5, 3), (9, 3, 2)):
        (out / "table.csv").write_text(text[: len(text) - cut] + ("" if cut else "\r\n"), newline="")
        assert seen_folder.done_rows(out / "table.csv", out / "crops") == (rows, whole_files)
        assert whole_lines(out / "table.csv") == whole[: 1 + rows]
        assert sorted((out / "crops").iterdir()) == files[:whole_files]


def rewritten(data: Path, **parts: np.ndarray) -> None:
    names = load_classes().names
    write_table(replace(read_any(data, names), **parts), data, names)


def test_a_folder_that_is_not_finished_is_not_learnt_from(tmp_path: Path) -> None:
    out = tmp_path / "seen"
    command = ["see", str(write_people(tmp_path, 40)), "--truth", "--out", str(out)]
    assert app.main(command) == 0
    lines = (out / "table.csv").read_text().splitlines(keepends=True)
    (out / "table.csv").write_text("".join(lines[:33]))  # as when it is killed after the first file of crops
    for source in (out, out / "table.csv"):
        with pytest.raises(UserError, match="seen has 32 of 40 pictures, as `see` was stopped; repeat its command"):
            read_source(source, load_classes().names)
    assert app.main(command) == 0
    assert len(read_source(out, load_classes().names)[0]) == 40
    (tmp_path / "others").mkdir()
    others = write_people(tmp_path / "others", 50)
    assert app.main(["see", str(others), "--truth", "--out", str(out), "--limit", "50"]) == 2, "of another folder"
    assert len(read_source(out, load_classes().names)[0]) == 40, "which costs this one nothing"


def test_a_table_of_other_classes_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = write_people(tmp_path, 2)
    rows = read_any(table)
    write_table(replace(rows, labels=np.array(["hoch", "neutral"])), table, load_classes().names)
    assert app.main(["see", str(table), "--truth", "--out", str(tmp_path / "seen")]) == 0
    assert "the class file has no hoch; is it another one (--classes)?" in caplog.text


def test_a_folder_that_is_done_says_so_and_nothing_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["see", str(write_people(tmp_path, 3)), "--truth", "--out", str(tmp_path / "exact")]
    assert app.main([*command, "--limit", "2"]) == app.main(command) == 0
    assert len(read_any(tmp_path / "exact/table.csv")) == 3
    monkeypatch.delattr(see, "look_at")
    with caplog.at_level("INFO"):
        assert app.main(command) == 0
    assert "all of its 3 pictures were looked at before" in caplog.text


def test_a_table_without_pictures_is_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_people(tmp_path, 3)
    rewritten(data, pictures=np.array(["0.png", "", "2.png"]))
    assert app.main(["see", str(data), "--truth", "--out", str(tmp_path / "exact")]) == 2
    assert "row 3 of" in (said := capsys.readouterr().err) and "names no picture to look at" in said
    assert not (tmp_path / "exact").exists()


def test_a_folder_made_from_another_table_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_people(tmp_path, 3), tmp_path / "exact"
    table = read_any(data)
    command = ["see", str(data), "--truth", "--out", str(out)]
    assert app.main(command) == 0
    made = (out / "table.csv").read_bytes()
    moved = table.keypoints.copy()
    moved[1, TIP, 0] += 3
    for parts, message in (
        ({"labels": np.array(["neutral", "crown_thrust", "neutral"])},
         "label_name of 1.png was 'neutral' and is 'crown_thrust' now; delete the folder, or choose another --out"),
        ({"pictures": np.array(["0.png", "2.png", "1.png"])}, "image_path of 2.png was '../1.png'"),
        ({"keypoints": moved}, "kp18_x of 1.png was "),
    ):  # fmt: skip
        rewritten(data, **parts)
        assert app.main(command) == 2
        assert message in capsys.readouterr().err
        write_table(table, data, load_classes().names)
    assert app.main([*command, "--limit", "2"]) == 2
    assert "holds 3 pictures, and now it is to hold 2" in capsys.readouterr().err
    assert (out / "table.csv").read_bytes() == made
    assert app.main(command) == 0


def test_a_picture_that_was_deleted_is_named_and_the_rest_goes_on_without_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_people(tmp_path, 3), tmp_path / "exact"
    command = ["see", str(data), "--truth", "--out", str(out)]
    (tmp_path / "1.png").unlink()
    assert app.main(command) == 2
    assert "1.png is not there; bring it back or delete the row" in capsys.readouterr().err
    table = read_any(data)
    write_table(table.select(table.pictures != "1.png"), data, load_classes().names)
    assert app.main(command) == 0
    assert len(read_any(out / "table.csv")) == 2


def test_what_detectors_saw_does_not_hang_on_keypoints_that_were_corrected(tmp_path: Path) -> None:
    data = write_people(tmp_path, 1)
    command = ["see", str(data), "--out", str(tmp_path / "seen")]
    assert app.main(command) == 0
    rewritten(data, keypoints=read_any(data).keypoints + np.float32([1, 1, 0]))
    assert app.main(command) == 0


def test_without_a_process_nothing_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_people(tmp_path, 1)
    with pytest.raises(SystemExit, match="2"):
        app.main(["see", str(data), "--out", str(tmp_path / "seen"), "--processes", "0"])
    assert "--processes: '0' makes no sense" in capsys.readouterr().err


def test_the_detectors_find_the_person_of_the_demo_clip_and_the_hand_is_cut_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with av.open(os.fspath(models_folder() / "demo.mp4")) as clip:
        frame = next(clip.decode(video=0)).to_ndarray(format="bgr24")
    cv2.imwrite(os.fspath(tmp_path / "moving.png"), frame)
    cv2.imwrite(os.fspath(tmp_path / "in_a_hold.png"), frame)
    cv2.imwrite(os.fspath(tmp_path / "nobody.png"), np.full_like(frame, 128))
    head = ["image_path", "label", "label_name", "group", "view", "width", "height", "grip_hand", "split"]
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*head, *KEYPOINT_COLUMNS])
        for name in ("moving", "in_a_hold", "nobody"):
            writer.writerow([f"{name}.png", 12, "neutral", "p0", "front", 1, 1, "right", "train", *[""] * 57])
    assert app.main(["see", str(tmp_path), "--out", str(tmp_path / "seen")]) == 0
    table = pose_table(read_any(tmp_path / "seen/table.csv"), load_classes().names, tmp_path / "seen/crops")
    assert (table.keypoints[0, :17, 2] > 0).mean() > 0.8
    assert not table.keypoints[2, :, 2].any()
    assert table.crop_present.tolist() == [1, 1, 0]
    apart = np.linalg.norm(table.keypoints[0, :17, :2] - table.keypoints[1, :17, :2], axis=1)
    assert 0 < np.median(apart) < 10, "the second is seen by the network that looks closer"
    (tmp_path / "seen/detectors.json").rename(tmp_path / "kept.json")
    assert app.main(["see", str(tmp_path), "--out", str(tmp_path / "seen")]) == 2
    assert "whose eyes saw it" in capsys.readouterr().err
    (tmp_path / "kept.json").rename(tmp_path / "seen/detectors.json")
    other = ["--correct", "off"]
    assert app.main(["see", str(tmp_path), "--out", str(tmp_path / "seen"), *other]) == 2
    assert "was begun with correct evidence" in capsys.readouterr().err
    ablate = ["ablate", "--seen", str(tmp_path / "seen"), "--run", str(tmp_path / "run"), "--variants"]
    assert app.main([*ablate, "geopose_graph+correct=forearm"]) == 2
    assert "corrected already (evidence)" in capsys.readouterr().err
    assert app.main(["see", str(tmp_path), "--out", str(tmp_path / "as_detected"), *other]) == 0
    raw = pose_table(read_any(tmp_path / "as_detected/table.csv"), load_classes().names)
    assert raw.keypoints[0, :17] == pytest.approx(table.keypoints[0, :17])
    bent = ["--correct", "forearm", "--limit", "1"]
    assert app.main(["see", str(tmp_path), "--out", str(tmp_path / "bent"), *bent]) == 0
    by_rule = pose_table(read_any(tmp_path / "bent/table.csv"), load_classes().names)
    assert np.abs(raw.keypoints[0, TIP, :2] - by_rule.keypoints[0, TIP, :2]).max() > 0
