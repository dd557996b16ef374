"""How sure it is that a quantity really lies where it was measured."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.errors import UserError
from stages.angles import QUANTITIES
from stages.cards import CARD_FILE, load_card, model_folder
from stages.detectors import Runtime
from stages.doubt import Error, MeasuringError
from stages.graph import build_graph
from stages.packets import GraphInput

CPU = Runtime("onnxruntime", 1)


@pytest.mark.parametrize(("t", "probability"), [(0.0, 0.5), (1.638, 0.9), (3.182, 0.975), (-2.353, 0.05)])
def test_errors_follow_students_t_distribution(t: float, probability: float) -> None:
    """Quantiles for three degrees of freedom, as tables of the distribution have them."""
    assert Error(shift=0.0, spread=4.0).above(100.0 + 4.0 * t, 100.0) == pytest.approx(probability, abs=2e-4)
    assert Error(shift=4.0 * t, spread=4.0).above(100.0, 100.0) == pytest.approx(probability, abs=2e-4)


def test_without_an_error_it_lies_where_it_was_measured() -> None:
    assert Error(0.0, 0.0).above(101.0, 100.0) == 1.0 and Error(0.0, 0.0).above(99.0, 100.0) == 0.0


def test_a_joint_that_was_hardly_seen_is_doubted_more() -> None:
    shipped, sure = MeasuringError("measuring_error", CPU), standing()
    unsure = sure.copy()
    unsure[[7, 9], 2] = 0.15  # left elbow and wrist
    before, after = (shipped.errors(graph_of(keypoints)) for keypoints in (sure, unsure))
    assert set(before) == set(QUANTITIES)
    assert after["left_elbow_deg"].spread > 1.2 * before["left_elbow_deg"].spread
    assert all(error.spread > 0 for error in before.values())


def test_errors_go_to_one_side_and_the_cards_temperature_widens_them(tmp_path: Path) -> None:
    model = shutil.copytree(model_folder("measuring_error"), tmp_path / "mine")
    card = model / CARD_FILE
    card.write_text(re.sub(r"(?m)^temperature = .*", "temperature = 2.0", card.read_text()))
    graph, shipped = graph_of(standing()), load_card("measuring_error")[0]
    before, after = (MeasuringError(name, CPU).errors(graph) for name in ("measuring_error", str(model)))
    for name in QUANTITIES:
        assert after[name].spread == pytest.approx(before[name].spread * 2.0 / shipped.temperature)
        assert after[name].shift == before[name].shift != 0.0


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="task weapon_hand, not for measuring_error"):
        MeasuringError("weapon_hand", CPU)


def test_a_network_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    model = shutil.copytree(model_folder("weapon_hand"), tmp_path / "mine")
    card = model / CARD_FILE
    card.write_text(card.read_text().replace('task = "weapon_hand"', 'task = "measuring_error"'))
    with pytest.raises(UserError, match=r"gives score, not nodes, edges and .*; make one with `arnis-train errors`"):
        MeasuringError(str(model), CPU)


def graph_of(keypoints: np.ndarray) -> GraphInput:
    nodes, edges, mask = build_graph(keypoints)
    return GraphInput(nodes=nodes, edges=edges, mask=mask)


def standing() -> np.ndarray:
    """Faces the camera, torso 100, the stick in the right hand; all is seen well."""
    points = np.array([
        (0, -130), (5, -135), (-5, -135), (10, -132), (-10, -132), (30, -100), (-30, -100), (40, -60), (-60, -60),
        (30, -30), (-30, -20), (15, 0), (-15, 0), (15, 80), (-15, 80), (20, 160), (-20, 160), (-30, -12), (-120, -30),
    ], np.float32)  # fmt: skip
    return np.column_stack([points, np.full(19, 0.9, np.float32)]).astype(np.float32)
