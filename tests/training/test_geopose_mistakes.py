"""What cannot be asked of a training ends in one sentence, before or while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from engine.errors import UserError
from stages.classes import load_classes
from training import app
from training.data.table import make_table, write_table
from training.geopose.batches import Mixture
from training.geopose.data import keypoint_table, pose_table, read_source
from training.geopose.fit import fit
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.settings import FitSettings

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[2] / "training" / "synth" / "pose_statistics.json"


@pytest.mark.parametrize("words", ["--epochs 0", "--batch 0", "--threads 0", "--rate 0", "--rate -1", "--seed -1",
                                   "--set averaging=1.5", "--set patience=0", "--set drop_edge=1"])  # fmt: skip
def test_settings_out_of_bounds_are_named(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["fit", "--table", "t.csv", *words.split()]) == 2
    said = capsys.readouterr().err
    name = words.split()[-1].partition("=")[0] if "=" in words else words.split()[0].strip("-")
    assert said.count("\n") == 1 and name in said and "makes no sense: Expected" in said


def test_who_trains_before_looking_is_sent_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["fit", "--seen", str(tmp_path / "seen"), "--run", str(tmp_path / "run")]) == 2
    assert "seen does not exist; make it with `arnis-train see`" in capsys.readouterr().err


def drawn_table(path: Path, people: list[str], unseen: bool = False, only: tuple[str, ...] = CLASSES.names) -> Path:
    """Keypoints drawn from the statistics, by people in turn, of some classes only."""
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(130, np.random.default_rng(0))
    names = np.array(CLASSES.names)[labels]
    kept = np.flatnonzero(np.isin(names, only))
    groups = [people[n % len(people)] for n in range(len(kept))]
    keypoints = keypoints[kept] * (0 if unseen else 1)
    made = make_table(path.parent, [""] * len(kept), names[kept], np.full((len(kept), 2), 2), keypoints, groups,
                      groups=groups)  # fmt: skip
    write_table(made, path, CLASSES.names)
    return path


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"people": ["ben"]}, "all rows name one person or recording, ben, and 3 are the least"),
        ({"people": ["ann", "ben", "cleo"], "unseen": True}, "in no row is anybody seen; `arnis-train check` says"),
        ({"people": ["ann", "ben", "cleo"], "only": ("neutral",)}, "there is neutral alone to train on"),
    ],
)
@pytest.mark.parametrize("folds", [[], ["--folds", "2"]])
def test_a_table_that_nothing_can_be_learnt_from_says_why(
    table: dict[str, Any], message: str, folds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = drawn_table(tmp_path / "t.csv", **table)
    assert app.main(["fit", "--table", str(file), "--run", str(tmp_path / "run"), "--epochs", "1", *folds]) == 2
    assert message in capsys.readouterr().err


def test_a_class_without_pictures_is_told_of_and_a_report_of_folds_is_not_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    file = drawn_table(tmp_path / "t.csv", [f"p{n}" for n in range(9)], only=CLASSES.names[1:])
    words = ["fit", "--table", str(file), "--run", str(tmp_path / "run"), "--epochs", "1", "--threads", "1"]
    assert app.main([*words, "--folds", "2"]) == 0
    assert "no picture to train on shows crown_thrust: the model will never name it" in caplog.text
    report = (tmp_path / "run" / "report.json").read_bytes()
    assert app.main(words) == 2
    assert "run holds a measurement by folds already, and one folder has one report" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.json").read_bytes() == report


@pytest.mark.parametrize("words", ["--folds 1", "--folds 0", "--folds -2", "--drawn -1", "--crop-dropout 1.5"])
def test_numbers_out_of_bounds_are_named(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["fit", "--table", "t.csv", *words.split()])
    assert ended.value.code == 2 and f"argument {words.split()[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"classes": 3}', '{"classes": {"crown_thrust": {"front": {}}}}'])
def test_statistics_that_cannot_be_read_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(UserError, match=r"statistics .*mine\.json cannot be read .*--drawn 0"):
        PoseStatistics(tmp_path / "mine.json", CLASSES.names)


def test_a_training_that_diverges_says_so_and_leaves_nothing_to_go_on_from(tmp_path: Path) -> None:
    nobody = keypoint_table(*PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0)))
    settings = FitSettings(epochs=2, batch=60, threads=1, learning_rate=1e30, averaging=0.0)
    with pytest.raises(UserError, match="diverged in epoch 1: .* lower --rate"):
        fit(CLASSES, Mixture(nobody), nobody, settings, tmp_path, "geopose_graph")
    assert not (tmp_path / "last.ckpt").exists() and not (tmp_path / "best.pt").exists()


def test_a_backbone_that_cannot_learn_is_refused(tmp_path: Path) -> None:
    nobody = keypoint_table(*PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0)))
    settings = FitSettings(epochs=1, batch=60, threads=1, backbone="efficientnet_lite0")
    with pytest.raises(UserError, match="efficientnet_lite0 learns nothing .* --pretrained"):
        fit(CLASSES, Mixture(nobody), nobody, settings, tmp_path, "geopose")


def test_an_interrupted_training_says_that_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    nobody = keypoint_table(*PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0)))
    settings = FitSettings(epochs=3, batch=60, threads=1)
    caplog.set_level("INFO")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("training.geopose.loop.Task.training_step", interrupted)
        fit(CLASSES, Mixture(nobody), nobody, settings, tmp_path, "geopose_graph")
    assert "60 samples an epoch from the table" in caplog.text and "at most 3 epochs" in caplog.text
    assert "the same command goes on" in caplog.text


@pytest.mark.parametrize("seen", [False, True])
def test_the_hand_of_a_label_counts_and_that_of_a_sighting_stays_as_it_was_seen(tmp_path: Path, seen: bool) -> None:
    keypoints, _ = PoseStatistics(STATISTICS, CLASSES.names).draw(1, np.random.default_rng(0))
    header = "image_path,label," + ",".join(f"kp{n}_{axis}" for n in range(19) for axis in ("x", "y", "conf"))
    numbers = ",".join(str(float(v)) for v in (keypoints[0] * (100, 100, 1) + (300, 300, 0)).ravel())
    row = f"a.jpg,crown_thrust,{numbers},right,left"
    (tmp_path / "table.csv").write_text(f"{header},grip_hand,true_hand\n{row}\n")
    if seen:
        (tmp_path / "detectors.json").write_text("{}")
    rows, _ = read_source(tmp_path / "table.csv", CLASSES.names)
    assert rows.left_handed().tolist() == [not seen]
    assert pose_table(rows, CLASSES.names).wrong_hand.tolist() == [seen]


def test_drawn_samples_know_their_view_so_that_they_are_mixed_within_it() -> None:
    table = PoseStatistics(STATISTICS, CLASSES.names).table(300, np.random.default_rng(0))
    views, counts = np.unique(table.views, return_counts=True)
    assert {"front", "left", "right"} <= set(views.tolist()) and counts.min() > 20


def test_a_hand_of_which_only_one_thing_is_said_is_no_mistake_where_the_grip_is_unseen(tmp_path: Path) -> None:
    keypoints, _ = PoseStatistics(STATISTICS, CLASSES.names).draw(2, np.random.default_rng(0))
    keypoints[1, 17:] = 0
    header = "image_path,label," + ",".join(f"kp{n}_{axis}" for n in range(19) for axis in ("x", "y", "conf"))
    numbers = [",".join(str(float(v)) for v in (k * (100, 100, 1)).ravel()) for k in keypoints]
    lines = [f"{n}.jpg,crown_thrust,{text},left" for n, text in enumerate(numbers)]
    (tmp_path / "table.csv").write_text("\n".join([f"{header},grip_hand", *lines]) + "\n")
    rows, _ = read_source(tmp_path / "table.csv", CLASSES.names)
    assert not pose_table(rows, CLASSES.names).wrong_hand.any()
