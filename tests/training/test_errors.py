"""`arnis-train errors` makes the network that tells how far off what is measured may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from stages.cards import load_card
from stages.classes import load_classes
from stages.detectors import Runtime
from stages.doubt import MeasuringError
from stages.graph import build_graph
from stages.packets import GraphInput
from stages.skeleton import GRIP, RIGHT_WRIST
from training import app
from training.data.table import make_table, write_table
from training.geopose.pose_statistics import PoseStatistics
from training.synth.skeletons import STATISTICS

PEOPLE = 20
ROWS = 600
LOW = np.arange(ROWS) // PEOPLE % 2 == 0
"""Every second picture of each person."""
UNSURE = 0.3
OFF_PX = 20.0


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Canonical keypoints with a stick; a torso is 100 pixels long."""
    drawn, _ = PoseStatistics(STATISTICS, load_classes().names).draw(2 * ROWS, np.random.default_rng(0))
    drawn = drawn[drawn[:, GRIP, 2] > 0][:ROWS]
    drawn[..., 2] = np.where(drawn[..., 2] > 0, 0.9, 0)
    return (drawn * [100, 100, 1] + [400, 300, 0]).astype(np.float32)


@pytest.fixture(scope="module")
def seen(truth: np.ndarray) -> np.ndarray:
    """As a detector sees them that lets every second right wrist hang too low, and knows that."""
    seen, rng = truth.copy(), np.random.default_rng(1)
    seen[..., :2] += rng.normal(0, 1, seen[..., :2].shape)
    seen[LOW, RIGHT_WRIST, 1] += rng.normal(OFF_PX, OFF_PX / 2, LOW.sum())
    seen[LOW, RIGHT_WRIST, 2] = UNSURE
    return seen


def write_rows(
    file: Path, keypoints: np.ndarray, first: int = 0, hands: str = "right", true_hands: str = ""
) -> Path:
    count = len(keypoints)
    write_table(
        make_table(
            file.parent, [f"{first + number}.jpg" for number in range(count)], ["crown_thrust"] * count,
            np.full((count, 2), 800, np.int32), keypoints, [f"row {number}" for number in range(count)], None,
            groups=[f"p{number % PEOPLE}" for number in range(count)], hands=[hands] * count,
            true_hands=[true_hands] * count,
        ),
        file,
        load_classes().names,
    )  # fmt: skip
    return file


def train(seen: Path, truth: Path, output: Path) -> int:
    return app.main(["errors", "--seen", str(seen), "--truth", str(truth), "--output", str(output)])


@pytest.fixture(scope="module")
def made(seen: np.ndarray, truth: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors")
    assert train(write_rows(folder / "seen.csv", seen), write_rows(folder / "truth.csv", truth), folder / "model") == 0
    return folder / "model"


def test_what_it_makes_tells_how_far_off_a_joint_is_and_to_which_side(made: Path, seen: np.ndarray) -> None:
    network = MeasuringError(str(made), Runtime("onnxruntime", 1))
    told = np.array([network.errors(graph_of(keypoints))["right_hand_height"] for keypoints in seen[:100]])
    wrong, right = told[LOW[:100]], told[~LOW[:100]]
    assert np.median(wrong[:, 0]) == pytest.approx(OFF_PX / 100, abs=0.05), "the true hand is higher"
    assert abs(np.median(right[:, 0])) < 0.05
    assert np.median(wrong[:, 1]) > 3 * np.median(right[:, 1])


def test_the_card_says_what_was_gained(made: Path) -> None:
    card, _ = load_card(made)
    assert card.metrics["people"] == PEOPLE // 10
    assert card.metrics["mean_error_after_shift"] < card.metrics["mean_error_as_seen"]
    cues = card.metrics["cues"]
    assert cues["pictures"] == card.metrics["samples"] and 0 < cues["told"] <= cues["true_faults"]
    assert cues["untrue"] < 0.2 * cues["given"]


def test_a_mistaken_hand_and_a_bystander_count_for_nothing(
    seen: np.ndarray, truth: np.ndarray, made: Path, tmp_path: Path
) -> None:
    others = seen.copy()
    others[5::10, :, 0] += 150
    mistaken = write_rows(tmp_path / "truth.csv", truth, hands="left", true_hands="right")
    assert train(write_rows(tmp_path / "seen.csv", others, true_hands="right"), mistaken, tmp_path) == 0
    card, before = load_card(tmp_path)[0], load_card(made)[0]
    assert card.metrics["mean_error_as_seen"] == pytest.approx(before.metrics["mean_error_as_seen"], abs=0.05)
    assert 0 < card.metrics["cues"]["pictures"] < before.metrics["cues"]["pictures"]


def test_the_same_seed_gives_the_same_weights(made: Path, tmp_path: Path) -> None:
    assert train(made.parent / "seen.csv", made.parent / "truth.csv", tmp_path) == 0
    assert load_card(tmp_path)[0].sha256 == load_card(made)[0].sha256


def test_the_truth_of_other_pictures_is_refused(
    seen: np.ndarray, truth: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = write_rows(tmp_path / "others.csv", truth[:60], first=ROWS)
    assert train(write_rows(tmp_path / "seen.csv", seen[:60]), others, tmp_path / "model") == 2
    assert "names none of these pictures" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def graph_of(keypoints: np.ndarray) -> GraphInput:
    nodes, edges, mask = build_graph(keypoints)
    return GraphInput(nodes=nodes, edges=edges, mask=mask)
