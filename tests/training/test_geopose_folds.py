"""Folds never mix people, refuse tables that name none, and comparisons of variants say what chance would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from engine.errors import UserError
from stages.classes import load_classes
from training import app
from training.classifiers import NAMES, make_classifier
from training.data.readers import read_any
from training.data.table import make_table, write_table
from training.geopose.ablation import effect_variants, parse_variant
from training.geopose.batches import Mixture
from training.geopose.data import PoseTable, pose_table
from training.geopose.folds import OWN_GROUPS, _inner, named, splits, with_groups, without_neutral
from training.geopose.measure import person_interval
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.report.page import write_report
from training.geopose.settings import FitSettings

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[2] / "training" / "synth" / "pose_statistics.json"
SAMPLES = 260
FAST = ["--epochs", "1", "--threads", "1"]


def write(path: Path, groups: list[str]) -> Path:
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(SAMPLES, np.random.default_rng(0))
    keypoints[..., :2] = keypoints[..., :2] * 60 + [160, 120]
    names = [CLASSES.names[label] for label in labels]
    views = [("front", "left")[i % 2] for i in range(SAMPLES)]
    table = make_table(path.parent, [f"{i}.jpg" for i in range(SAMPLES)], names, np.full((SAMPLES, 2), 320), keypoints,
                       [f"row {i}" for i in range(SAMPLES)], groups=groups, views=views)  # fmt: skip
    write_table(table, path, CLASSES.names)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "t.csv", [f"p{i // 5}" for i in range(SAMPLES)])


def test_no_person_is_on_both_sides_of_a_fold(table: Path) -> None:
    samples = pose_table(read_any(table), CLASSES.names)
    tested = np.zeros(len(samples), int)
    for train, test in splits(samples, 5, seed=0):
        assert not set(samples.people[train]) & set(samples.people[test])
        tested[test] += 1
    assert (tested == 1).all()
    with pytest.raises(UserError, match="cannot be split in 99 folds"):
        splits(samples, 99, seed=0)
    few = samples.select(np.unique(samples.labels, return_index=True)[1])
    with pytest.raises(UserError, match="no class has more than 1 pictures"):
        splits(few, 2, seed=0)


def test_small_tables_have_fewer_inner_folds(table: Path) -> None:
    samples = pose_table(read_any(table), CLASSES.names)
    few = samples.select(np.concatenate([np.flatnonzero(samples.labels == label)[:2] for label in range(12)]))
    kept, inner = _inner(few, seed=0)
    assert len(kept) and len(inner) and not set(few.people[kept]) & set(few.people[inner])


class Listener:
    """A classifier that notes whom it learns from; guesses."""

    def __init__(self) -> None:
        self.heard: list[tuple[set[str], set[str], set[str]]] = []

    def fit(self, train: Mixture, inner: PoseTable, settings: FitSettings, run: Path) -> float:
        assert train.table is not None and train.exact is not None
        self.heard.append((set(train.table.people), set(train.exact.people), set(inner.people)))
        return 1.0

    def logits(self, table: PoseTable) -> np.ndarray:
        return np.zeros((len(table), len(CLASSES.classes)))


def test_a_fold_learns_nothing_exact_of_those_it_is_tested_or_stopped_by(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    monkeypatch.setattr("training.geopose.folds.make_classifier", lambda name, classes: listener)
    words = ["fit", "--table", str(table), "--folds", "3", *FAST, "--run", str(tmp_path / "run")]
    source = tmp_path / "exact"
    (source / "crops").mkdir(parents=True)
    shutil.copyfile(table, source / "table.csv")
    np.save(source / "crops" / "00000.npy", np.zeros((SAMPLES, 128, 128, 3), np.uint8))
    assert app.main([*words, "--exact", str(source)]) == 0
    everybody = set(pose_table(read_any(table), CLASSES.names).people)
    assert len(listener.heard) == 3
    for trained, exact, inner in listener.heard:
        tested = everybody - trained - inner
        assert tested and inner and not exact & (tested | inner)
        assert exact == trained


def test_a_table_that_names_nobody_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    samples = pose_table(read_any(write(tmp_path / "t.csv", [""] * SAMPLES)), CLASSES.names)
    with pytest.raises(UserError, match="--no-groups"):
        with_groups(samples, allow_none=False)
    grouped, text = with_groups(samples, allow_none=True)
    assert len(np.unique(grouped.people)) == SAMPLES and "flatter" in text


def test_a_sample_that_names_nobody_leaves_the_others_their_people(tmp_path: Path) -> None:
    groups = [f"p{i // 5}" for i in range(SAMPLES)]
    samples = pose_table(read_any(write(tmp_path / "t.csv", ["", "", *groups[2:]])), CLASSES.names)
    with pytest.raises(UserError, match="--no-groups"):
        with_groups(samples, allow_none=False)
    grouped, text = with_groups(samples, allow_none=True)
    assert grouped.people[2:].tolist() == groups[2:] and len(np.unique(grouped.people)) == SAMPLES // 5 + 2
    assert f"people or recordings, and 2 of {SAMPLES} samples that name nobody" in text and "has no groups" not in text
    assert set(named(grouped.people)) == set(groups)


def test_a_group_for_every_picture_is_not_said_to_be_by_person(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = write(tmp_path / "t.csv", [f"p{i}" for i in range(SAMPLES)])
    words = ["--table", str(own), "--run", str(tmp_path), "--folds", "2"]
    caplog.set_level("INFO")
    assert app.main(["fit", "--model", "angles_rf", *words]) == 0
    assert app.main(["evaluate", "--data", str(own)]) == 0
    assert caplog.text.count(f"tested on {OWN_GROUPS}") == 2
    assert json.loads((tmp_path / "report.json").read_text())["groups"] == OWN_GROUPS
    assert app.main(["ablate", "--variants", "angles_rf", *words]) == 0
    told = (tmp_path / "ablation.md").read_text()
    assert f"split by {OWN_GROUPS}" in told and "95 % by person" not in told


def test_without_neutral_the_labels_close_up() -> None:
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(100, np.random.default_rng(0))
    from training.geopose.data import keypoint_table

    poses, classes = without_neutral(keypoint_table(keypoints, labels), CLASSES)
    assert "neutral" not in classes.names and len(classes.names) == 12
    kept = [CLASSES.names[label] for label in labels if CLASSES.names[label] != "neutral"]
    assert [classes.names[label] for label in poses.labels] == kept


def test_folds_of_trees_give_a_report_with_every_figure(table: Path, tmp_path: Path) -> None:
    words = ["fit", "--table", str(table), "--model", "angles_rf", "--folds", "3", "--poses-only", *FAST]
    assert app.main([*words, "--run", str(tmp_path), "--truth", str(table)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    wanted = {"top1", "macro_f1", "top2", "kappa", "ece", "by_view", "per_class", "confusion", "coverage", "classes",
              "samples", "people", "top1_interval_by_person", "risk_coverage", "look_alikes", "folds"}  # fmt: skip
    assert wanted <= set(report)
    assert report["top1"] > 0.3 and len(report["folds"]) == 3 and "people" in report["groups"]
    assert not report["threshold_certain"] and "too few to be certain" in write_report(tmp_path).read_text()
    assert np.sum(report["confusion"]) == report["samples"]
    assert report["stick"]["tip_error_median"] == 0 and 0 < report["validity"]["all"] <= 1


def test_trees_have_no_weights_to_begin_with(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    words = ["fit", "--table", str(table), "--model", "angles_rf", "--folds", "3", "--start", "geopose"]
    assert app.main([*words, "--run", str(tmp_path)]) == 2
    assert "angles_rf is none; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pairs_trees"])
def test_every_classifier_learns_and_answers_a_bare_table(name: str, table: Path, tmp_path: Path) -> None:
    samples = pose_table(read_any(table), CLASSES.names).select(np.arange(130))
    classifier = make_classifier(name, CLASSES)
    classifier.fit(Mixture(samples), samples, FitSettings(epochs=1, batch=130, threads=1), tmp_path)
    logits = classifier.logits(samples.select(np.arange(7)))
    assert logits.shape == (7, 13) and np.isfinite(logits).all()


def test_an_ablation_is_written_and_measured_once(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ablate", "--table", str(table), "--run", str(tmp_path), "--folds", "2", *FAST, "--variants"]
    variants = ["angles_rf", "angles_rf+correct=forearm"]
    assert app.main([*words, *variants]) == 0
    text = (tmp_path / "ablation.md").read_text()
    assert all(variant in text for variant in variants) and (tmp_path / "ablation.png").is_file()
    rows = json.loads((tmp_path / "ablation.json").read_text())["variants"]
    assert rows[0]["difference"] == 0 and rows[1]["difference_interval"][0] <= rows[1]["difference"]
    before = sorted(file.stat().st_mtime_ns for file in tmp_path.rglob("outcome.json"))
    assert app.main([*words, *variants]) == 0
    assert sorted(file.stat().st_mtime_ns for file in tmp_path.rglob("outcome.json")) == before
    cut = tmp_path / "angles_rf" / "outcome.json"
    cut.write_bytes(cut.read_bytes()[:-9])
    assert app.main([*words, *variants]) == 2
    assert f"{cut} is damaged" in capsys.readouterr().err


def test_settings_that_a_model_does_not_read_are_refused_and_not_among_its_effects(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    words = ["--table", str(table), "--run", str(tmp_path)]
    for asked in (["fit", "--model", "stgcn_fusion", "--set", "drop_edge=0"], ["fit", "--set", "backbone=foo"],
                  ["ablate", "--variants", "pose_vit", "angles_rf+edge_noise=0"],
                  ["ablate", "--variants", "pose_vit", "angles_rf", "--set", "edge_noise=0"]):  # fmt: skip
        assert app.main([*asked, *words]) == 2
        assert "changes nothing in" in capsys.readouterr().err
    assert app.main(["fit", "--model", "geopose", "--set", "backbone=foo", *words]) == 2
    assert "there are mobilenet_v3_small, efficientnet_lite0" in capsys.readouterr().err
    for model in ("stgcn_fusion", "pose_vit"):
        effects = effect_variants(model, True, [])
        assert f"{model}+crop=off" in effects and not any("edge" in text for text in effects)


@pytest.mark.parametrize("words", ["fit", "fit --folds 2", "ablate --variants geopose_visual"])
def test_a_network_that_would_see_nothing_is_not_trained(
    words: str, capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    model = ["--model", "geopose_visual"] if words.startswith("fit") else []
    assert app.main([*words.split(), *model, "--table", str(table), *FAST, "--run", str(tmp_path)]) == 2
    assert "geopose_visual looks at pictures of the hand alone" in capsys.readouterr().err


def test_variants_that_make_no_sense_are_named(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    for word, said in (("geopose_grph", "no model"), ("geopose+mixup", "mixup"), ("geopose+mixup=much", "mixup")):
        assert app.main(["ablate", "--table", str(table), "--run", str(tmp_path), "--variants", word]) == 2
        assert said in capsys.readouterr().err
    assert parse_variant("geopose+mixup=0.4+crop=off").changes == ("mixup=0.4",)
    assert "geopose+crop_faults=false" in effect_variants("geopose", True, [])
    assert not any("crop" in text or "limb_miss_by" in text for text in effect_variants("geopose_graph", True, []))
    assert "geopose+crop_faults=false+crop_faults=true" in effect_variants("geopose+crop_faults=false", True, [])
    assert not any("hard_negatives" in text for text in effect_variants("geopose", True, [], has_neutral=False))
    bare = effect_variants("geopose+faults=none", True, [])
    assert "geopose+faults=none+faults=mild" in bare and not any("without=" in text for text in bare)
    with pytest.raises(UserError, match="correct is one of evidence, forearm, off"):
        parse_variant("geopose_graph+correct=forarm")
    assert "geopose_graph+without=jitter" in effect_variants("geopose_graph", False, [])
    assert "geopose_graph+correct=evidence" in effect_variants("geopose_graph", False, ["forearm", "evidence"])


def test_a_difference_of_nothing_holds_zero_and_a_clear_one_does_not() -> None:
    people = np.arange(200).astype(str)
    base = np.arange(200) % 2 == 0
    low, high = person_interval(base.astype(float) - base, people, draws=1000)
    assert low == high == 0
    low, _ = person_interval(1.0 - base, people, draws=1000)
    assert low > 0.3
