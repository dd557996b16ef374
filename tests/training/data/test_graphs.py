"""Tables as torch-geometric graphs: the arrays that serving builds, in batches, read back without running code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch_geometric")

from torch_geometric.loader import DataLoader

from engine.errors import UserError
from stages.classes import load_classes
from stages.graph import DIRECTED_EDGES, build_graph, mirror_keypoints
from stages.skeleton import BLAZE35, COCO19
from training import app
from training.data.graphs import build_graphs, load_graphs
from training.data.table import make_table, write_table

NAMES = load_classes().names


def keypoints(count: int, nodes: int = 19) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.dstack([rng.uniform(0, 300, (count, nodes, 2)), np.ones((count, nodes))]).astype(np.float32)


def test_a_written_file_holds_what_serving_would_see(tmp_path: Path) -> None:
    points = keypoints(3)
    table = make_table(
        tmp_path, [""] * 3, [NAMES[4], "somersault", NAMES[0]], np.zeros((3, 2)), points, ["r"] * 3,
        hands=["right", "right", "right"], true_hands=["right", "", "left"], groups=["a", "b", "c"],
        views=["front", "left", "left"],
    )  # fmt: skip
    write_table(table, tmp_path / "t.csv", NAMES)
    assert app.main(["graphs", str(tmp_path / "t.csv"), "--out", str(tmp_path / "g.pt")]) == 0
    file = load_graphs(tmp_path / "g.pt")
    graphs = file["graphs"]
    nodes, edges, mask = build_graph(np.stack([points[0], points[1], mirror_keypoints(points[2])]))
    for i, graph in enumerate(graphs):
        np.testing.assert_allclose(graph.x, nodes[i], atol=1e-3)
        np.testing.assert_allclose(graph.edge_attr, edges[i], atol=1e-3)
        assert graph.mask.tolist() == (mask[i] > 0).tolist()
    assert graphs[0].edge_index.T.tolist() == DIRECTED_EDGES.tolist()
    assert [int(graph.y) for graph in graphs] == [4, -1, 0]
    assert [graph.hand for graph in graphs] == ["right", "right", "left"]
    assert [graph.seen_from for graph in graphs] == ["front", "left", "right"], "as the mirrored nodes face"
    assert file["classes"] == list(NAMES) and file["layout"] == "coco19" and len(file["node_features"]) == 15
    batch = next(iter(DataLoader(graphs, batch_size=3)))
    assert batch.x.shape == (57, 15) and batch.group == ["a", "b", "c"]


def test_a_place_where_no_file_can_be_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table(tmp_path, [""], [NAMES[0]], np.zeros((1, 2)), keypoints(1), ["r"])
    write_table(table, tmp_path / "t.csv", NAMES)
    assert app.main(["graphs", str(tmp_path / "t.csv"), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path}: Is a directory" in capsys.readouterr().err


def test_mediapipes_landmarks_make_richer_graphs(tmp_path: Path) -> None:
    points = keypoints(2, 35)
    table = make_table(
        tmp_path, [""] * 2, [NAMES[0]] * 2, np.zeros((2, 2)), points[:, BLAZE35.coco], ["r"] * 2, points,
        hands=["right", "left"],
    )  # fmt: skip
    right, left = build_graphs(table, NAMES, BLAZE35)
    assert right.x.shape == left.x.shape == (35, 15) and right.edge_index.shape == (2, len(BLAZE35.directed_edges))
    assert right.mask.all()
    plain = build_graphs(table, NAMES, COCO19)
    for rich, poor in ((right, plain[0]), (left, plain[1])):
        np.testing.assert_allclose(rich.x[BLAZE35.coco.tolist()], poor.x, atol=1e-5)


def test_a_table_without_landmarks_says_what_it_lacks(tmp_path: Path) -> None:
    table = make_table(tmp_path, [""], [NAMES[0]], np.zeros((1, 2)), keypoints(1), ["t.csv row 2"])
    with pytest.raises(UserError, match="t.csv row 2: layout blaze35 needs kp0 to kp34"):
        build_graphs(table, NAMES, BLAZE35)
