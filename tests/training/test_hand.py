"""`arnis-train hand` makes the network that tells which hand holds the stick."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from engine.errors import UserError
from stages.cards import load_card
from stages.classes import load_classes
from stages.detect import make_hand
from stages.detectors import Runtime
from stages.detectors.hand import WeaponHand
from stages.graph import mirror_keypoints
from stages.skeleton import GRIP, LEFT_HIP, LEFT_SHOULDER, LEFT_WRIST, RIGHT_HIP, RIGHT_SHOULDER
from training import app
from training.data.readers import read_any
from training.data.table import make_table, write_table
from training.geopose.pose_statistics import PoseStatistics
from training.synth.skeletons import STATISTICS

PEOPLE = 20
ROWS = 600


@pytest.fixture(scope="module")
def skeletons() -> np.ndarray:
    """Canonical keypoints with a stick."""
    drawn, _ = PoseStatistics(STATISTICS, load_classes().names).draw(2 * ROWS, np.random.default_rng(0))
    return (drawn[drawn[:, GRIP, 2] > 0] * [100, 100, 1] + [400, 300, 0]).astype(np.float32)


@pytest.fixture(scope="module")
def table(skeletons: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second person is left-handed; each is seen with the stick in the right hand."""
    left = np.arange(ROWS) % PEOPLE % 2 == 1
    keypoints = skeletons[:ROWS].copy()
    keypoints[left] = mirror_keypoints(keypoints[left]) + np.float32([800, 0, 0])
    file = tmp_path_factory.mktemp("hand") / "table.csv"
    write_rows(file, keypoints, np.where(left, "left", "right"))
    return file


def write_rows(file: Path, keypoints: np.ndarray, true_hands: np.ndarray) -> None:
    count = len(keypoints)
    write_table(
        make_table(
            file.parent, [""] * count, ["crown_thrust"] * count, np.full((count, 2), 800, np.int32), keypoints,
            [f"row {number}" for number in range(count)], None,
            groups=[f"p{number % PEOPLE}" for number in range(count)], hands=["right"] * count,
            true_hands=true_hands.tolist(),
        ),
        file,
        load_classes().names,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(table: Path) -> Path:
    folder = table.parent / "model"
    assert app.main(["hand", "--table", str(table), "--drawn", "0", "--output", str(folder)]) == 0
    return folder


def test_what_it_makes_tells_the_hand_of_people_it_has_not_met(made: Path, skeletons: np.ndarray) -> None:
    hand = make_hand(str(made), Runtime("onnxruntime", 1))
    assert isinstance(hand, WeaponHand)
    assert (hand.rightness(skeletons[ROWS : ROWS + 200]) > 0).mean() > 0.85
    card, _ = load_card(made)
    assert card.metrics["people"] == 2 and card.metrics["right"] > 0.8


def test_a_mirror_image_gets_the_opposite_answer(made: Path, skeletons: np.ndarray) -> None:
    for model in (str(made), "weapon_hand"):
        hand = make_hand(model, Runtime("onnxruntime", 1))
        said, mirrored = hand.rightness(skeletons[:20]), hand.rightness(mirror_keypoints(skeletons[:20]))
        assert mirrored == pytest.approx(-said, abs=1e-4)


def test_the_shipped_one_knows_more_than_the_nearer_wrist(skeletons: np.ndarray) -> None:
    hand = make_hand("weapon_hand", Runtime("onnxruntime", 1))
    doubtful = skeletons[:300].copy()
    doubtful[:, LEFT_WRIST] = doubtful[:, GRIP]
    assert (hand.rightness(doubtful) > 0).mean() > 0.7
    unknown = doubtful[:1].copy()
    unknown[:, [LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP]] = 0
    assert hand.rightness(unknown) == pytest.approx([0], abs=1e-4), "without a torso there is nothing to tell by"


def test_the_same_seed_gives_the_same_weights(made: Path, table: Path, tmp_path: Path) -> None:
    assert app.main(["hand", "--table", str(table), "--drawn", "0", "--output", str(tmp_path)]) == 0
    assert load_card(tmp_path)[0].sha256 == load_card(made)[0].sha256


def test_a_model_that_is_there_stays_until_the_new_one_is_whole(
    made: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_card(made)[0]
    monkeypatch.setattr("training.perceptron.save_card", None)  # whatever stops it there
    with pytest.raises(TypeError):
        app.main(["hand", "--table", str(table), "--drawn", "20", "--output", str(made)])
    assert load_card(made)[0] == before


def test_a_table_without_hands_is_refused(
    skeletons: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "untold.csv"
    write_rows(file, skeletons[:40], np.full(40, ""))
    assert app.main(["hand", "--table", str(file), "--output", str(tmp_path / "model")]) == 2
    assert "does not say in `true_hand`" in capsys.readouterr().err


def test_hands_that_nobody_told_teach_and_test_nothing(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_any(table)
    for told, code in ((np.arange(ROWS) % PEOPLE < PEOPLE // 2, 0), (np.arange(ROWS) == 0, 2)):
        write_rows(tmp_path / "t.csv", rows.keypoints, np.where(told, rows.true_hands, ""))
        assert app.main(["hand", "--table", str(tmp_path / "t.csv"), "--drawn", "0", "--output", str(tmp_path)]) == code
    assert "none has both a grip and a `true_hand`" in capsys.readouterr().err
    learnt = [int(load_card(folder)[0].data.split()[0]) for folder in (tmp_path, table.parent / "model")]
    assert learnt[0] < learnt[1]


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="task stick, not for weapon_hand"):
        make_hand("stick_heatmap", Runtime("onnxruntime", 1))
