"""Training learns, resumes where it stopped, never mixes people, and exports what the pipeline takes."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from engine.errors import UserError
from stages.cards import load_card
from stages.classes import load_classes
from stages.classify import INPUTS, check_card
from stages.skeleton import GRIP, TIP
from training import app
from training.data.readers import read_any
from training.data.table import KEYPOINT_COLUMNS
from training.geopose import export, fit_command
from training.geopose.augment import KeypointFaults, augment_keypoints
from training.geopose.batches import Mixture, training_batches
from training.geopose.data import PoseTable, keypoint_table, pose_table, split_table
from training.geopose.fit import fit, load_trained, predict, weights_file
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.settings import FitSettings

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[2] / "training" / "synth" / "pose_statistics.json"
POSES_MADE = 80


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set as `synth` would write it: keypoints drawn from the statistics, pictures of noise."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(POSES_MADE, rng)
    keypoints[..., :2] = keypoints[..., :2] * 60 + [160, 120]
    with (folder / "table.csv").open("w", newline="") as stream:
        head = ["image_path", "label", "label_name", "group", "view", "width", "height", "grip_hand", "split"]
        writer = csv.writer(stream)
        writer.writerow([*head, *KEYPOINT_COLUMNS])
        for i, (points, label) in enumerate(zip(keypoints, labels, strict=True)):
            name, person = f"images/{i}.jpg", i // 4
            cv2.imwrite(str(folder / name), rng.integers(0, 255, (240, 320, 3), np.uint8))
            split = ("train", "train", "val", "test")[person % 4]
            cells = [f"{v:.2f}" if points[k, 2] > 0 else "" for k in range(19) for v in points[k]]
            row = [name, label, CLASSES.names[label], f"p{person}", "front", 320, 240, "right", split]
            writer.writerow([*row, *cells])
    return folder


@pytest.fixture(scope="session")
def seen(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seen")
    assert app.main(["see", str(data), "--out", str(folder), "--truth"]) == 0
    return folder


def test_seeing_the_truth_keeps_the_keypoints_and_cuts_the_hands(data: Path, seen: Path) -> None:
    table = pose_table(read_any(seen / "table.csv"), CLASSES.names, seen / "crops")
    true = pose_table(read_any(data / "table.csv"), CLASSES.names)
    assert len(table) == POSES_MADE and table.crop_present.mean() > 0.9
    present = true.keypoints[..., 2] > 0
    np.testing.assert_allclose(table.keypoints[present][:, :2], true.keypoints[present][:, :2], atol=0.01)


def test_looking_again_does_nothing_new(data: Path, seen: Path) -> None:
    before = (seen / "table.csv").read_text()
    assert app.main(["see", str(data), "--out", str(seen), "--truth"]) == 0
    assert (seen / "table.csv").read_text() == before


def test_no_person_is_in_two_parts_of_a_split(seen: Path) -> None:
    table = pose_table(read_any(seen / "table.csv"), CLASSES.names, seen / "crops")
    parts = split_table(table)
    names = [set(part.people) for part in parts]
    assert all(names) and not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    unsplit = PoseTable(**{**vars(table), "splits": np.full(len(table), "")})
    names = [set(part.people) for part in split_table(unsplit)]
    assert all(names) and not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


@pytest.mark.parametrize("people", [3, 4, 5, 6, 7, 8, 14])
def test_few_people_are_split_as_well_as_they_can_be(people: int) -> None:
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0))
    names = np.array([f"p{i % people}" for i in range(60)])
    parts = [set(part.people) for part in split_table(replace(keypoint_table(keypoints, labels), people=names))]
    assert all(parts) and sum(map(len, parts)) == people and len(set.union(*parts)) == people
    assert len(parts[0]) >= people - 3


def test_too_few_people_to_split_are_told_in_a_sentence() -> None:
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0))
    table = replace(keypoint_table(keypoints, labels), people=np.array(["anna", "ben"] * 30))
    with pytest.raises(UserError, match="2 people or recordings are too few"):
        split_table(table)
    with pytest.raises(UserError, match="`split` leaves no sample for val"):
        split_table(replace(table, splits=np.array(["train", "test"] * 30)))


def options(seen: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    fit_command.add_arguments(parser)
    return parser.parse_args(["--seen", str(seen), *words])


def test_poses_of_ones_own_are_not_mixed_with_samples_of_the_shipped_ones(seen: Path) -> None:
    assert fit_command.drawn_samples(options(seen)) == fit_command.DRAWN
    assert fit_command.drawn_samples(options(seen, "--classes", "mine.toml")) == 0
    assert fit_command.drawn_samples(options(seen, "--classes", "mine.toml", "--statistics", "mine.json")) > 0
    assert fit_command.drawn_samples(options(seen, "--classes", "mine.toml", "--drawn", "5")) == 5
    assert fit_command.drawn_samples(options(seen, "--folds", "5")) == 0


def test_exact_samples_of_validation_and_test_people_are_left_out() -> None:
    """Though the table has no split of its own, and in one of its folders a person was never seen."""
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0))
    people = np.array([f"p{i // 6}" for i in range(60)])
    exact = replace(keypoint_table(keypoints, labels), people=people)
    unseen = keypoints.copy()
    unseen[people == "p3"] = 0
    _, validation, test = split_table(replace(exact, keypoints=unseen))
    learnt = Mixture(None, exact=exact).without_people(np.concatenate([validation.people, test.people])).exact
    assert learnt is not None and not set(learnt.people) & {*validation.people, *test.people}


def test_batches_tell_the_shaft_as_it_is_in_the_turned_crop(seen: Path) -> None:
    train, _, _ = split_table(pose_table(read_any(seen / "table.csv"), CLASSES.names, seen / "crops"))
    mixture = Mixture(train, crop_dropout=0.5)
    batch = next(training_batches(mixture, FitSettings(batch=len(train)), np.random.default_rng(0)))
    plain = next(training_batches(replace(mixture, crop_faults=False), FitSettings(batch=len(train)),
                                  np.random.default_rng(0)))  # fmt: skip
    np.testing.assert_array_equal(batch.crop_present, plain.crop_present)
    moved = np.linalg.norm(batch.shaft - plain.shaft, axis=1) > 0.005
    told = (batch.crop_present > 0) & (batch.shaft[:, 2] > 0)
    assert moved[told].mean() > 0.9 and not moved[~told].any()


def test_drawn_samples_have_the_statistics_that_they_are_drawn_from() -> None:
    entry = json.loads(STATISTICS.read_text())["classes"]
    statistics = PoseStatistics(STATISTICS, CLASSES.names)
    keypoints, labels = statistics.draw(6000, np.random.default_rng(0))
    for name in ("crown_thrust", "left_knee_block"):
        mine = keypoints[labels == CLASSES.names.index(name)]
        views = entry[name].values()
        mean = np.mean([view["body_mean"] for view in views], axis=0)
        np.testing.assert_allclose(mine[:, :17, :2].mean(0), mean, atol=0.1)
        assert abs((mine[:, GRIP, 2] > 0).mean() - np.mean([view["stick_found"] for view in views])) < 0.06


def small_fit(seen: Path, run: Path, epochs: int) -> Path:
    train, validation, _ = split_table(pose_table(read_any(seen / "table.csv"), CLASSES.names, seen / "crops"))
    mixture = Mixture(train, PoseStatistics(STATISTICS, CLASSES.names), drawn=100, exact=train)
    settings = FitSettings(epochs=epochs, batch=64, threads=1, averaging=0.5)
    return fit(CLASSES, mixture, validation, settings, run)


def test_batches_hold_crops_only_for_samples_that_have_one(seen: Path) -> None:
    train, _, _ = split_table(pose_table(read_any(seen / "table.csv"), CLASSES.names, seen / "crops"))
    mixture = Mixture(train, PoseStatistics(STATISTICS, CLASSES.names), drawn=64, crop_dropout=0.5)
    for batch in training_batches(mixture, FitSettings(batch=32), np.random.default_rng(0)):
        assert len(batch.crop) == batch.crop_present.sum() > 0
        assert len(batch.labels) == len(batch.nodes) == len(batch.shaft)


@pytest.fixture(scope="session")
def run_folder(seen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    small_fit(seen, run, epochs=2)
    return run


def test_training_learns(tmp_path: Path) -> None:
    statistics = PoseStatistics(STATISTICS, CLASSES.names)
    keypoints, labels = statistics.draw(300, np.random.default_rng(1))
    held_out = keypoint_table(keypoints, labels)
    settings = FitSettings(epochs=3, batch=64, threads=1, averaging=0.8, learning_rate=5e-3)
    weights = fit(CLASSES, Mixture(None, statistics, drawn=1500), held_out, settings, tmp_path, model="geopose_graph")
    logits, _ = predict(load_trained(weights, CLASSES)[0], held_out)
    assert (logits.argmax(1).numpy() == labels).mean() > 0.3  # chance is 0.08


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    seen: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from training.geopose.loop import Task

    # The schedule's length is part of the run, so it is killed in its second epoch.
    class Killed(Exception):
        pass

    def die(self: Task, batch: object, batch_idx: int) -> None:
        if self.current_epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_train_batch_start", die)
        with pytest.raises(Killed):
            small_fit(seen, tmp_path, epochs=2)
    small_fit(seen, tmp_path, epochs=2)
    resumed, whole = (torch.load(folder / "best.pt", weights_only=True) for folder in (tmp_path, run_folder))
    assert resumed["epoch"] == whole["epoch"] and resumed["loss"] == whole["loss"]
    for name, value in whole["weights"].items():
        assert torch.equal(resumed["weights"][name], value)


def test_a_finished_run_is_not_trained_again_and_other_data_are_refused(seen: Path, run_folder: Path) -> None:
    before = (run_folder / "last.ckpt").stat().st_mtime_ns
    small_fit(seen, run_folder, epochs=2)
    assert (run_folder / "last.ckpt").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"another training \(epochs \d, not \d\)"):
        small_fit(seen, run_folder, epochs=3)


def test_the_export_is_what_the_classifier_takes_and_equals_torch(
    data: Path, seen: Path, run_folder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    words = ["export", "--seen", str(seen), "--truth", str(data / "table.csv"), "--run", str(run)]
    lower = ["--threshold", "0.1", "--output", str(tmp_path / "lower")]
    assert app.main([*words, *lower]) == 0 and load_card(tmp_path / "lower")[0].threshold >= 0.5
    assert app.main([*words, "--notes", "Mind the wall.", "--threshold", "0.99"]) == 0
    report = json.loads((run / "report.json").read_text())
    assert report["stick"]["tip_off_by_a_tenth"] == 0 and 0 < report["stick"]["sticks"] < POSES_MADE / 2
    assert app.main([*words, "--transfer", str(tmp_path / "gone.csv")]) == 2
    assert sorted(path.name for path in (run / "model").iterdir()) == ["card.toml", "model.onnx", "weights.pt"]
    # Without --output nothing shipped is overwritten; a mistake, such as the last one, leaves the model as it was.
    card, file = load_card(run / "model")
    assert card.notes == "Mind the wall." and "80 pictures of 20 people" in card.data
    check_card(card, CLASSES, "model")
    assert card.temperature > 0 and card.threshold == 0.99, "validation people ask for 0.95 at most"
    assert max(card.metrics["parity_200"].values()) <= export.PARITY_BOUND
    assert [spec.name for spec in card.inputs] == list(INPUTS)
    # The card tells the hash of each: external data of the ONNX file would not be covered.
    assert sorted(path.name for path in file.parent.iterdir()) == ["card.toml", "model.onnx", "weights.pt"]
    assert weights_file(str(file.parent)).read_bytes() == (run / "best.pt").read_bytes()


def test_mistakes_end_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["fit", "--seen", str(tmp_path), "--run", str(tmp_path)]) == 2
    assert "arnis-train see" in capsys.readouterr().err
    assert app.main(["see", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "arnis-train label" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"statistics .*gone\.json do not exist"):
        PoseStatistics(tmp_path / "gone.json", CLASSES.names)


def test_without_the_training_packages_it_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [n for n in sys.modules if n.startswith("training.geopose.")]:
        monkeypatch.delitem(sys.modules, name)
    assert app.main(["fit", "--help"]) == 2
    assert "pip install '.[train]'" in capsys.readouterr().err


def test_a_missing_keypoint_does_not_spoil_the_others() -> None:
    keypoints, _ = PoseStatistics(STATISTICS, CLASSES.names).draw(50, np.random.default_rng(0))
    keypoints[:, [GRIP, TIP]] = (np.nan, np.nan, 0)
    faulty = augment_keypoints(keypoints, np.random.default_rng(1), KeypointFaults())
    assert np.isfinite(faulty).all()
    assert (faulty[:, :17, 2] > 0).mean() > 0.9 and not faulty[:, GRIP:, 2].any()
