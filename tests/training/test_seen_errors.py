"""True keypoints get the errors that detectors made of people alike, and of nobody who is held out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from engine.errors import UserError
from stages.classes import load_classes
from stages.graph import mirror_keypoints, torso_length
from stages.skeleton import (
    GRIP,
    LEFT_ANKLE,
    LEFT_EAR,
    LEFT_HIP,
    LEFT_KNEE,
    LEFT_SHOULDER,
    RIGHT_ANKLE,
    RIGHT_KNEE,
    RIGHT_WRIST,
    TIP,
)
from training import app
from training.data.readers import read_any
from training.data.table import Table, make_table, write_table
from training.geopose.batches import Mixture, training_batches
from training.geopose.data import PoseTable, pose_table
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.seen_errors import LIKEST, SeenErrors
from training.geopose.settings import FitSettings

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[2] / "training" / "synth" / "pose_statistics.json"
UNIT_PX = 80.0
HIGH, LOW = "crown_thrust", "right_knee_block"


def bodies(labels: list[str], seed: int = 0) -> np.ndarray:
    """True keypoints of whole bodies with a stick, float32 (N, 19, 3), in pixels; those of a class are much alike."""
    everybody, classes = PoseStatistics(STATISTICS, CLASSES.names).draw(4000, np.random.default_rng(9))
    whole = (everybody[..., 2] > 0).all(1)
    places = {name: np.flatnonzero(whole & (classes == number))[0] for number, name in enumerate(CLASSES.names)}
    keypoints = everybody[[places[label] for label in labels]].astype(np.float32)
    keypoints[..., :2] += np.random.default_rng(seed).normal(0, 0.02, keypoints[..., :2].shape)
    keypoints[..., :2] = keypoints[..., :2] * UNIT_PX + [300, 250]
    keypoints[..., 2] = 1
    return keypoints


def table_of(keypoints: np.ndarray, labels: list[str], **texts: list[str]) -> Table:
    count = len(labels)
    return make_table(Path(), [f"{i}.jpg" for i in range(count)], labels, np.full((count, 2), 640), keypoints,
                      [f"row {i}" for i in range(count)], **texts)  # fmt: skip


def samples(seen: np.ndarray, labels: list[str], **texts: list[str]) -> PoseTable:
    return pose_table(table_of(seen, labels, **texts), CLASSES.names)


def test_a_body_gets_the_errors_of_those_that_look_like_it() -> None:
    labels = [HIGH] * 20 + [LOW] * 20
    true = bodies(labels)
    seen = true.copy()
    unit = torso_length(true)
    seen[:20, RIGHT_WRIST, 0] += 0.2 * unit[:20]
    seen[:20, :, 2] = 0.6
    seen[20:, LEFT_ANKLE] = 0
    errors = SeenErrors(samples(seen, labels, hands=["right"] * 40), true)
    assert len(errors) == 40
    wanted = bodies([HIGH] * 8 + [LOW] * 8, seed=1)
    twice = wanted.copy()
    twice[..., :2] *= 2
    for asked, scale in ((wanted, 1), (twice, 2)):
        got = errors.seen(asked, np.random.default_rng(0))
        moved = (got - asked)[..., :2]
        expected = 0.2 * torso_length(wanted[:8]) * scale
        np.testing.assert_allclose(moved[:8, RIGHT_WRIST, 0], expected, rtol=1e-3)
        others = np.delete(np.arange(19), RIGHT_WRIST)
        np.testing.assert_allclose(moved[:8, others], 0, atol=1e-3)
        np.testing.assert_allclose(got[:8, :, 2], 0.6)
        assert not got[8:, LEFT_ANKLE].any() and (got[8:, :LEFT_ANKLE, 2] == 1).all()
    np.testing.assert_array_equal(twice[..., :2], wanted[..., :2] * 2)
    many = errors.seen(np.tile(wanted, (70, 1, 1)), np.random.default_rng(0))
    assert not many[:, LEFT_ANKLE].any(1).reshape(70, 16)[:, 8:].any(), "more than are compared at once"


def test_who_is_alike_is_told_by_the_points_that_are_there() -> None:
    labels = [HIGH] * 20 + [LOW] * 20
    true = bodies(labels)
    seen = true.copy()
    seen[:20, RIGHT_WRIST, 0] += 0.2 * torso_length(true)[:20]
    seen[20:, RIGHT_WRIST, 0] -= 0.2 * torso_length(true)[20:]
    errors = SeenErrors(samples(seen, labels, hands=["right"] * 40), true)
    wanted = bodies([HIGH] * 8 + [LOW] * 8, seed=1)
    for missing in ([LEFT_KNEE, RIGHT_KNEE, LEFT_ANKLE, RIGHT_ANKLE], [GRIP, TIP], list(range(LEFT_SHOULDER))):
        cut = wanted.copy()
        cut[:, missing] = 0
        got = errors.seen(cut, np.random.default_rng(0))
        assert not got[:, missing].any(), "nothing is made up"
        moved = (got - cut)[:, RIGHT_WRIST, 0]
        assert (moved[:8] > 0).all() and (moved[8:] < 0).all(), missing
    cut = wanted.copy()
    cut[:, LEFT_HIP] = 0
    np.testing.assert_array_equal(errors.seen(cut, np.random.default_rng(0)), cut)
    assert errors.seen(wanted[:0], np.random.default_rng(0)).shape == (0, 19, 3), "a step without any"


def test_the_stick_alone_tells_who_is_alike_and_several_lend() -> None:
    labels = [HIGH] * 40
    true = bodies(labels)
    true[20:, TIP] = true[20:, GRIP] * 2 - true[20:, TIP]  # pointing the other way
    true[20:, TIP, 2] = 1
    seen = true.copy()
    shares = np.where(np.arange(40) < 20, 1, -1) * np.linspace(0.1, 0.3, 40)
    seen[:, RIGHT_WRIST, 0] += shares * torso_length(true)
    errors = SeenErrors(samples(seen, labels, hands=["right"] * 40), true)
    moved = (errors.seen(true, np.random.default_rng(0)) - true)[:, RIGHT_WRIST, 0]
    assert (moved[:20] > 0).all() and (moved[20:] < 0).all()
    again = [(errors.seen(true[:1], np.random.default_rng(k)) - true[:1])[0, RIGHT_WRIST, 0] for k in range(60)]
    assert len(set(np.round(again, 3))) == LIKEST


def test_left_handers_count_in_their_mirrored_form_whatever_hand_was_seen() -> None:
    labels = [HIGH] * 10
    true = bodies(labels)
    seen = true.copy()
    seen[:, RIGHT_WRIST, 1] -= 0.1 * torso_length(true)
    left = mirror_keypoints(seen)
    for told in ("left", "right"):
        people = samples(left, labels, hands=[told] * 10, true_hands=["left"] * 10)
        errors = SeenErrors(people, true)
        assert len(errors) == 10
        moved = errors.seen(true, np.random.default_rng(0)) - true
        np.testing.assert_allclose(moved[:, RIGHT_WRIST, 1], -0.1 * torso_length(true), rtol=0.3)
        assert abs(moved[..., 0]).max() < 0.05 * UNIT_PX


def test_who_was_taken_for_somebody_else_lends_nothing_nor_does_one_of_whom_nothing_is_known() -> None:
    labels = [HIGH] * 12
    true = bodies(labels)
    seen = true.copy()
    seen[:3, :, 0] += 2 * UNIT_PX
    seen[3:, RIGHT_WRIST, 1] += 0.1 * UNIT_PX
    truth = true.copy()
    truth[3] = 0
    truth[4, LEFT_ANKLE] = 0
    truth[5] = seen[5]
    truth[6, LEFT_EAR] = 0
    assert len(SeenErrors(samples(seen, labels, hands=["right"] * 12), truth)) == 6, "an ear is nothing to go by"
    with pytest.raises(UserError, match="not as it was seen"):
        SeenErrors(samples(seen, labels, hands=["right"] * 12), seen)
    with pytest.raises(UserError, match="no errors can be lent"):
        SeenErrors(samples(seen + [400, 0, 0], labels, hands=["right"] * 12), truth)


def test_errors_of_people_who_are_held_out_are_not_lent() -> None:
    labels = [HIGH] * 20
    true = bodies(labels)
    seen = true + np.array([1, 0, 0], np.float32)
    seen[10:, LEFT_ANKLE] = 0
    people = samples(seen, labels, hands=["right"] * 20)
    exact = samples(bodies([HIGH] * 30, seed=1), [HIGH] * 30, hands=["right"] * 30)
    learnt = Mixture(people.select(np.arange(10)), exact=exact, truth=true).with_faults_of(FitSettings(faults="none"))
    for batch in training_batches(learnt, FitSettings(batch=8), np.random.default_rng(0)):
        assert batch.mask[:, LEFT_ANKLE].all(), "only the other ten lost their ankle"
    everybody = replace(learnt, table=people)
    missing = [1 - b.mask[:, LEFT_ANKLE] for b in training_batches(everybody, FitSettings(batch=50),
                                                                   np.random.default_rng(0))]  # fmt: skip
    assert np.concatenate(missing).sum() > 10, "more than their own ten"


def test_what_a_crop_is_to_tell_stays_the_true_shaft() -> None:
    labels = [HIGH] * 20
    true = bodies(labels)
    seen = true.copy()
    seen[:, TIP, 0] += 0.3 * torso_length(true)
    people = samples(seen, labels, hands=["right"] * 20)
    exact = samples(true, labels, hands=["right"] * 20)
    mixture = Mixture(people.select(np.arange(10)), exact=exact, truth=true).with_faults_of(FitSettings(faults="none"))
    batch = next(training_batches(mixture, FitSettings(batch=30), np.random.default_rng(0)))
    shaft = (true[:, TIP] - true[:, GRIP])[:, :2] / torso_length(true)[:, None]
    assert abs(batch.shaft[10:, :2].mean(0) - shaft.mean(0)).max() < 0.02, "of the exact ones"
    assert abs(batch.shaft[:10, 0].mean() - shaft[:, 0].mean() - 0.3) < 0.05, "of the table as it was seen"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """seen.csv, true.csv of the same pictures, exact.csv of others, foreign.csv of none of these."""
    out = tmp_path_factory.mktemp("seen")
    labels = [name for name in CLASSES.names for _ in range(8)]
    true = bodies(labels)
    seen = true + np.random.default_rng(0).normal(0, 2, true.shape).astype(np.float32) * [1, 1, 0]
    groups = [f"p{i % 8}" for i in range(len(labels))]
    for name, points, start in (("seen", seen, 0), ("true", true, 0), ("exact", bodies(labels, 1), 500),
                                ("foreign", true, 900)):  # fmt: skip
        table = table_of(points, labels, groups=groups, hands=["right"] * len(labels))
        pictures = np.array([f"{i + start}.jpg" for i in range(len(labels))])
        who = np.array([f"x{g}" if start else g for g in groups])
        write_table(replace(table, pictures=pictures, groups=who), out / f"{name}.csv", CLASSES.names)
    return out


def fit_words(folder: Path, run: Path, *more: str) -> list[str]:
    return ["fit", "--table", str(folder / "seen.csv"), "--run", str(run), "--epochs", "1", "--threads", "1", *more]


def test_with_the_truth_exact_samples_are_learnt_from_as_they_might_be_seen(folder: Path, tmp_path: Path) -> None:
    exact, truth = ["--exact", str(folder / "exact.csv")], ["--truth", str(folder / "true.csv")]
    told = []
    for number, words in enumerate(([*exact, *truth], [*exact, *truth, "--lend-errors"], truth)):
        assert app.main(fit_words(folder, tmp_path / str(number), *words)) == 0
        told.append(json.loads((tmp_path / str(number) / "report.json").read_text())["training"])
    assert [t["mixture"]["as_seen"] for t in told] == [False, True, False]
    assert [t["mixture"]["exact"] for t in told] == [104, 104, 0]
    assert len({t["data_sha256"] for t in told}) == 3, "another run is not gone on with"


def test_a_truth_of_other_pictures_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = fit_words(folder, tmp_path, "--exact", str(folder / "exact.csv"), "--lend-errors")
    assert app.main(words) == 2
    assert "--lend-errors needs --exact" in capsys.readouterr().err
    assert app.main([*words, "--truth", str(folder / "foreign.csv")]) == 2
    assert "names none of these pictures" in capsys.readouterr().err


def test_a_truth_of_people_who_stand_elsewhere_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = read_any(folder / "true.csv", CLASSES.names)
    write_table(replace(elsewhere, keypoints=elsewhere.keypoints + [400, 0, 0]), folder / "else.csv", CLASSES.names)
    words = fit_words(folder, tmp_path / "run", "--start", "geopose", "--exact", str(folder / "exact.csv"))
    assert app.main([*words, "--truth", str(folder / "else.csv"), "--lend-errors"]) == 2
    assert "no errors can be lent" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_folds_are_refused_before_the_first_is_trained_where_one_has_nobody_who_lends(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = read_any(folder / "true.csv", CLASSES.names)
    write_table(known.select(known.groups == "p7"), folder / "one.csv", CLASSES.names)
    words = fit_words(folder, tmp_path / "run", "--folds", "4", "--exact", str(folder / "exact.csv"), "--lend-errors")
    assert app.main([*words, "--truth", str(folder / "one.csv")]) == 2
    assert "no errors can be lent" in capsys.readouterr().err and not (tmp_path / "run" / "fold0").exists()


def test_a_truth_of_rows_without_a_picture_is_of_none_of_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("seen", "true"):
        rows = read_any(folder / f"{name}.csv", CLASSES.names)
        write_table(replace(rows, pictures=np.full(len(rows), "")), tmp_path / f"{name}.csv", CLASSES.names)
    words = ["fit", "--table", str(tmp_path / "seen.csv"), "--run", str(tmp_path / "run"), "--epochs", "1"]
    assert app.main([*words, "--truth", str(tmp_path / "true.csv")]) == 2
    assert "names none of these pictures" in capsys.readouterr().err
