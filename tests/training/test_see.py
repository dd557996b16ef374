"""The detectors' view of a data set: written with the pipeline's own stages, from the shipped demo clip."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("tqdm")

from stages.classes import load_classes, models_folder
from stages.skeleton import TIP
from training import app
from training.data.table import KEYPOINT_COLUMNS
from training.geopose.data import load_table
from training.see import is_of_a_hold


def test_half_of_anybodys_pictures_are_of_a_hold_whatever_the_order() -> None:
    for names in ([f"anna/IMG_{i:04d}.jpg" for i in range(200)], [f"p{i}/front.jpg" for i in range(200)]):
        held = [is_of_a_hold(name) for name in names]
        assert 70 < sum(held) < 130
        assert 70 < sum(a != b for a, b in zip(held, held[1:], strict=False)) < 130


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
    table = load_table(tmp_path / "seen/table.csv", load_classes().names, tmp_path / "seen/crops")
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
    raw = load_table(tmp_path / "as_detected/table.csv", load_classes().names)
    assert raw.keypoints[0, :17] == pytest.approx(table.keypoints[0, :17])
    assert np.abs(raw.keypoints[0, TIP, :2] - table.keypoints[0, TIP, :2]).max() > 0
