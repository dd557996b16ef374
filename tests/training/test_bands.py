"""Bands are where good examples lie, and only what can tell right from wrong is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.angles import measure
from stages.classes import load_classes
from stages.feedback import read_bands
from stages.graph import mirror_keypoints
from stages.skeleton import GRIP
from training import app
from training.bands import MIN_SAMPLES, band_of, format_bands, learn_bands
from training.data.table import make_table, write_table
from training.geopose.pose_statistics import PoseStatistics
from training.synth.skeletons import STATISTICS

DEGREES = (0.0, 180.0)


def test_a_band_is_the_tenth_to_ninetieth_percentile_a_little_widened() -> None:
    band = band_of(np.linspace(90.0, 110.0, 101), "deg", DEGREES)
    assert band is not None
    assert (band.low, band.high, band.samples) == (87.0, 113.0, 101)


def test_a_band_ends_where_the_joint_does() -> None:
    band = band_of(np.linspace(170.0, 180.0, 101), "deg", DEGREES)
    assert band is not None and band.high == 180.0


def test_unseen_examples_do_not_count() -> None:
    values = np.full(200, np.nan)
    values[:MIN_SAMPLES] = 90.0
    band = band_of(values, "deg", DEGREES)
    assert band is not None and band.samples == MIN_SAMPLES
    assert band_of(values[1:], "deg", DEGREES) is None


def test_a_quantity_that_may_be_anything_gets_no_band() -> None:
    assert band_of(np.linspace(20.0, 160.0, 500), "deg", DEGREES) is None
    assert band_of(np.linspace(-1.0, 1.0, 500), "torso", (-np.inf, np.inf)) is None


def test_most_examples_lie_in_the_bands_learned_from_them_and_survive_the_file(tmp_path: Path) -> None:
    classes = load_classes()
    keypoints, labels = PoseStatistics(STATISTICS, classes.names).draw(4000, np.random.default_rng(1))
    (tmp_path / "bands.toml").write_text(format_bands(learn_bands(keypoints, labels, classes)))
    bands = read_bands(tmp_path / "bands.toml")
    assert "neutral" not in bands and len(bands) == 12
    values = measure(keypoints[labels == classes.names.index("crown_thrust")])
    for name, band in bands["crown_thrust"]["any"].items():
        seen = values[name][np.isfinite(values[name])]
        assert 0.8 <= np.mean((seen >= band.low) & (seen <= band.high)) <= 1.0


def test_the_command_writes_a_file_that_feedback_reads(tmp_path: Path) -> None:
    out = tmp_path / "bands.toml"
    assert app.main(["bands", "--statistics", str(STATISTICS), "--samples", "3000", "--out", str(out)]) == 0
    assert "crown_thrust" in read_bands(out)


def test_a_left_hander_whose_true_hand_is_corrected_gives_the_bands_of_a_right_hander(tmp_path: Path) -> None:
    classes = load_classes()
    keypoints, labels = PoseStatistics(STATISTICS, classes.names).draw(3000, np.random.default_rng(1))
    keypoints[..., :2] = 300 + 100 * keypoints[..., :2]
    names = [classes.names[label] for label in labels]
    bands = []
    for hand, points in (("right", keypoints), ("left", mirror_keypoints(keypoints))):
        table = make_table(
            tmp_path, [""] * len(names), names, np.zeros((len(names), 2)), points, ["r"] * len(names),
            hands=["right"] * len(names), true_hands=[hand] * len(names),
        )  # fmt: skip
        table = table.select(points[:, GRIP].any(1))
        write_table(table, tmp_path / "t.csv", classes.names)
        assert app.main(["bands", "--table", str(tmp_path / "t.csv"), "--out", str(tmp_path / "b.toml")]) == 0
        bands.append(read_bands(tmp_path / "b.toml"))
    assert bands[0] == bands[1]


def test_without_being_told_where_it_writes_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.main(["bands", "--statistics", str(STATISTICS), "--samples", "3000"]) == 0
    assert (tmp_path / "bands.toml").is_file()


def test_too_few_examples_are_told_and_no_empty_file_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bands.toml"
    assert app.main(["bands", "--statistics", str(STATISTICS), "--samples", "50", "--out", str(out)]) == 2
    assert "no pose has a band" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("arguments", [[], ["--table", "nowhere.csv"], ["--statistics", "nowhere.json"]])
def test_missing_input_is_one_sentence_and_exit_code_two(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["bands", *arguments, "--out", str(tmp_path / "bands.toml")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
