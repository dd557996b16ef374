"""Layouts of nodes: their mirror and their edges follow from the names, and the 19 are part of each."""

from __future__ import annotations

import numpy as np
import pytest

from stages.graph import build_graph
from stages.skeleton import BLAZE35, COCO19, KEYPOINT_NAMES, LAYOUTS, MIRROR, NODE_COUNT, Layout


def test_the_default_layout_is_the_nineteen_nodes() -> None:
    assert COCO19.names == KEYPOINT_NAMES
    assert COCO19.mirror.tolist() == MIRROR.tolist()
    assert COCO19.coco.tolist() == list(range(NODE_COUNT))


def test_the_places_of_mediapipes_landmarks_are_those_of_its_documentation() -> None:
    assert BLAZE35.coco[:17].tolist() == [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
    assert BLAZE35.count == 35


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_layout_is_whole(layout: Layout) -> None:
    assert layout.mirror[layout.mirror].tolist() == list(range(layout.count))
    assert set(layout.directed_edges[:, 0].tolist()) == set(range(layout.count))
    assert len(set(map(tuple, layout.directed_edges.tolist()))) == len(layout.directed_edges)
    assert layout.parents.shape == (layout.count,)


def test_the_nineteen_have_the_same_features_in_a_richer_layout() -> None:
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.uniform(0, 300, (4, 19, 2)), rng.uniform(0.2, 1, (4, 19, 1))], -1).astype(np.float32)
    rich = np.zeros((4, 35, 3), np.float32)
    rich[:, BLAZE35.coco] = points
    nodes, edges, mask = build_graph(rich, BLAZE35)
    own = build_graph(points)
    np.testing.assert_array_equal(nodes[:, BLAZE35.coco], own[0])
    assert mask.sum() == 4 * 19
    assert edges.shape == (4, len(BLAZE35.directed_edges), 8)
    places = {tuple(pair): i for i, pair in enumerate(BLAZE35.directed_edges.tolist())}
    same = [places[tuple(BLAZE35.coco[list(pair)].tolist())] for pair in COCO19.directed_edges]
    np.testing.assert_array_equal(edges[:, same], own[1])
