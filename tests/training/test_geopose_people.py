"""Nobody is tested by a network that knows them, or it is said; a run is exported with what it was trained on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from engine.errors import UserError
from stages.classes import ClassFile, load_classes, models_folder
from training import app
from training.data.table import make_table, write_table
from training.geopose.batches import Mixture
from training.geopose.data import keypoint_table
from training.geopose.fit import data_hash, fit, load_trained, read_checkpoint
from training.geopose.folds import GROUPED, UNGROUPED
from training.geopose.parts import load_parts
from training.geopose.people import groups_with_warning, hashed, people_facts, refuse_met
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.settings import FitSettings

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[2] / "training" / "synth" / "pose_statistics.json"
FAST = ["--epochs", "1", "--threads", "1"]
PEOPLE = [f"p{i}" for i in range(12)]
GROWN = ["anna", *PEOPLE]
"""One more, and somebody else is drawn to be tested."""


def write(path: Path, people: list[str], splits: list[str] | None = None) -> Path:
    """A table of ten samples of each."""
    count = 10 * len(people)
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(count, np.random.default_rng(0))
    keypoints[..., :2] = keypoints[..., :2] * 60 + [160, 120]
    names = [CLASSES.names[label] for label in labels]
    groups = [person for person in people for _ in range(10)]
    table = make_table(path.parent, [f"{i}.jpg" for i in range(count)], names, np.full((count, 2), 320), keypoints,
                       [f"row {i}" for i in range(count)], groups=groups)  # fmt: skip
    if splits:
        table = replace(table, splits=np.array([split for split in splits for _ in range(10)]))
    write_table(table, path, CLASSES.names)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "t.csv", PEOPLE)


@pytest.fixture(scope="module")
def run_folder(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    assert app.main(["fit", "--table", str(table), *FAST, "--run", str(run)]) == 0
    return run


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said of it, in one sentence."""
    capsys.readouterr()
    assert app.main(list(words)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("arnis-train: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_split_of_its_own_with_somebody_on_two_sides_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = write(tmp_path / "t.csv", ["anna", "anna", "ben", "cleo"], ["train", "test", "val", "train"])
    said = mistake(capsys, "fit", "--table", str(both), *FAST, "--run", str(tmp_path / "run"))
    assert "`split` has anna in more than one part" in said and "empty it" in said


def test_a_split_of_its_own_needs_people_too(tmp_path: Path) -> None:
    nameless = write(tmp_path / "t.csv", ["", "", ""], ["train", "val", "test"])
    with pytest.raises(UserError, match="--no-groups"):
        load_parts(nameless, CLASSES)
    assert load_parts(nameless, CLASSES, no_groups=True).groups == UNGROUPED


def test_a_run_is_not_measured_on_whom_it_was_trained_on(
    table: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grown = write(tmp_path / "t.csv", GROWN)
    said = mistake(capsys, "export", "--table", str(grown), "--run", str(run_folder))
    assert "was trained on p" in said and "train anew" in said and not (run_folder / "model").exists()
    best = run_folder / "best.pt"
    words = ["explain", "--model", str(best), "--table", str(grown), "--out", str(tmp_path / "out")]
    assert "was trained on p" in mistake(capsys, *words)
    parts = load_parts(table, CLASSES)
    refuse_met(read_checkpoint(best), best, parts.test.people, parts.validation.people)
    refuse_met({}, best, parts.train.people)  # An older checkpoint does not say.


def test_a_checkpoint_names_nobody(run_folder: Path) -> None:
    state = read_checkpoint(run_folder / "best.pt")
    assert set(state["trained_on"]) < set(hashed(np.array(PEOPLE)).values())
    assert not any(person in str({**state, "weights": ""}) for person in ("'p1'", "'p11'"))


def test_a_run_is_not_exported_under_other_classes(
    table: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = (models_folder() / "classes.toml").read_text().split("[[class]]")
    own = tmp_path / "classes.toml"
    own.write_text("[[class]]".join([entries[0], *entries[:0:-1]]))
    words = ["export", "--table", str(table), "--run", str(run_folder), "--classes", str(own)]
    assert "other classes" in mistake(capsys, *words)
    moved = msgspec.structs.replace(CLASSES.classes[0], chamber="elsewhere")
    with pytest.raises(UserError, match="other classes"):
        load_trained(run_folder / "best.pt", ClassFile((moved, *CLASSES.classes[1:])))


def test_an_older_checkpoint_is_told_by_the_names_of_its_classes(run_folder: Path, tmp_path: Path) -> None:
    state = read_checkpoint(run_folder / "best.pt")
    new = ("classes_sha256", "start_sha256", "mixture", "trained_on", "stopped_by", "begun_on", "groups")
    torch.save({name: value for name, value in state.items() if name not in new}, tmp_path / "best.pt")
    assert load_trained(tmp_path / "best.pt", CLASSES)[1]["epoch"] == 1
    with pytest.raises(UserError, match="other classes"):
        load_trained(tmp_path / "best.pt", ClassFile(CLASSES.classes[::-1]))
    nobody = keypoint_table(*PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0)))
    with pytest.raises(UserError, match="older version"):
        fit(CLASSES, Mixture(nobody), nobody, FitSettings(epochs=1, threads=1), tmp_path, "geopose_graph")


def test_a_run_that_has_not_ended_is_not_exported(
    table: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(read_checkpoint(run_folder / "best.pt") | {"finished": False}, tmp_path / "best.pt")
    assert "stopped in its epoch 1" in mistake(capsys, "export", "--table", str(table), "--run", str(tmp_path))


def test_everything_that_is_learnt_from_tells_a_run_from_another(tmp_path: Path) -> None:
    samples = keypoint_table(*PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0)))
    samples = replace(samples, crops=np.zeros((60, 128, 128, 3), np.uint8))
    repainted, first = samples.crops.copy(), np.arange(60) == 0
    repainted[0, 5, 7] = 255
    others = [
        replace(samples, crops=repainted), replace(samples, wrong_hand=first),
        replace(samples, views=np.where(first, "left", samples.views)),
    ]  # fmt: skip
    hashes = {data_hash(Mixture(table), samples) for table in (samples, *others)}
    assert len(hashes) == 4


def test_a_run_that_began_with_other_weights_or_classes_is_another(tmp_path: Path) -> None:
    nobody = keypoint_table(*PoseStatistics(STATISTICS, CLASSES.names).draw(60, np.random.default_rng(0)))
    settings = FitSettings(epochs=1, batch=60, threads=1)

    def train(run: str, settings: FitSettings = settings, classes: ClassFile = CLASSES) -> Path:
        return fit(classes, Mixture(nobody), nobody, settings, tmp_path / run, "geopose_graph")

    start = train("first")
    began = replace(settings, start=str(start))
    train("next", began)
    torch.save(read_checkpoint(start) | {"temperature": 2.0}, start)
    train("next", began)
    shutil.copyfile(train("second", replace(settings, seed=1)), start)
    with pytest.raises(UserError, match="other start"):
        train("next", began)
    moved = msgspec.structs.replace(CLASSES.classes[0], chamber="elsewhere")
    with pytest.raises(UserError, match="other classes"):
        train("second", replace(settings, seed=1), ClassFile((moved, *CLASSES.classes[1:])))


def test_weights_that_have_met_the_tested_people_are_told_of(
    table: Path, run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In one training, in folds and in a comparison."""
    report = json.loads((run_folder / "report.json").read_text())
    assert report["groups"] == GROUPED and report["training"]["mixture"]["samples"] > 60
    start = ["--start", str(run_folder / "best.pt")]
    grown = write(tmp_path / "t.csv", GROWN)
    assert app.main(["fit", "--table", str(grown), *FAST, *start, "--run", str(tmp_path / "one")]) == 0
    assert app.main(["fit", "--table", str(grown), *FAST, *start, "--folds", "2", "--run", str(tmp_path / "two")]) == 0
    words = ["ablate", "--table", str(grown), *FAST, *start, "--folds", "2", "--variants", "geopose_graph"]
    assert app.main([*words, "--run", str(tmp_path / "three")]) == 0
    told = [json.loads((tmp_path / run / "report.json").read_text())["groups"] for run in ("one", "two")]
    told.append((tmp_path / "three" / "ablation.md").read_text())
    for text in told:
        assert "have met" in text and "such as p" in text and "nobody is tested" not in text
    assert caplog.text.count("figures on people met flatter") == 3


def test_weights_that_have_met_nobody_here_leave_the_test_as_it_is(run_folder: Path) -> None:
    strangers, best = np.array(["zoe", "yan"]), str(run_folder / "best.pt")
    assert groups_with_warning(GROUPED, best, strangers) == GROUPED
    assert groups_with_warning(GROUPED, "geopose", strangers) == GROUPED
    assert "have met 1 of 2, such as s1p0003" in groups_with_warning(GROUPED, "geopose", np.array(["zoe", "s1p0003"]))
    assert "do not say" in groups_with_warning(GROUPED, "nowhere/none", strangers)
    assert groups_with_warning(UNGROUPED, best, np.array(["row 0", "row 1"])) == UNGROUPED


def test_weights_that_began_with_others_that_do_not_say_do_not_say_either(
    table: Path, run_folder: Path, tmp_path: Path
) -> None:
    state, parts = read_checkpoint(run_folder / "best.pt"), load_parts(table, CLASSES)
    old = {name: value for name, value in state.items() if name not in ("trained_on", "stopped_by", "begun_on")}
    for start, untold in (({}, False), (state, False), (old, True), (state | {"begun_untold": True}, True)):
        facts = people_facts(Mixture(parts.train), parts.validation, start)
        assert facts["begun_untold"] == untold
        torch.save(state | facts, tmp_path / "best.pt")
        told = groups_with_warning(GROUPED, str(tmp_path / "best.pt"), np.array(["zoe"]))
        assert ("do not say" in told) == untold


def test_weights_that_are_not_there_are_said_to_be_nothing_else(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for more in ([], ["--folds", "2"]):
        words = ["fit", "--table", str(table), "--start", "nix", "--run", str(tmp_path), *more]
        assert "weights nix do not exist" in mistake(capsys, *words)
    assert "have met" not in caplog.text


def test_trees_are_not_compared_with_weights_to_begin_with(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ablate", "--table", str(table), "--run", str(tmp_path), "--start", "geopose", "--variants", "angles_rf"]
    assert "angles_rf is none; leave it out" in mistake(capsys, *words)


def test_an_evaluation_says_whom_it_is_on(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    assert app.main(["evaluate", "--data", str(table), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["groups"] == GROUPED
    nameless = write(tmp_path / "t.csv", [""] * 3)
    assert app.main(["evaluate", "--data", str(nameless), "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert "name nobody" in figures["groups"] and figures["top1_interval_by_person"] is None
