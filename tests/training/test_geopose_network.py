"""The network's own graph attention is the published one, and the network behaves as its inputs promise."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stages.graph import DIRECTED_EDGES, EDGE_FEATURES, build_graph  # noqa: E402
from stages.skeleton import NODE_COUNT, TIP  # noqa: E402
from training.classifiers import network_model  # noqa: E402
from training.classifiers.geopose import build  # noqa: E402
from training.geopose.network import OPINIONS, DenseGATv2, answers  # noqa: E402
from training.geopose.settings import FitSettings  # noqa: E402


def test_dense_attention_equals_torch_geometric() -> None:
    geometric = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    for inputs, outputs, heads in ((15, 32, 4), (128, 64, 1)):
        ours = DenseGATv2(inputs, outputs, heads, len(EDGE_FEATURES), DIRECTED_EDGES, NODE_COUNT)
        theirs = geometric.GATv2Conv(inputs, outputs, heads, edge_dim=len(EDGE_FEATURES), add_self_loops=False)
        theirs.load_state_dict(ours.state_dict(), strict=True)
        for seed in range(20):
            rng = np.random.default_rng(seed)
            nodes, edges = torch.randn(NODE_COUNT, inputs), torch.randn(len(DIRECTED_EDGES), len(EDGE_FEATURES))
            mask = torch.from_numpy((rng.random(NODE_COUNT) < 0.8).astype(np.float32))
            there = mask.bool().numpy()
            # There is no mask over there: edges that touch a missing node are taken out instead.
            kept = there[DIRECTED_EDGES].all(1)
            wanted = theirs(nodes, torch.from_numpy(DIRECTED_EDGES[kept].T.copy()), edges[torch.from_numpy(kept)])
            got = ours(nodes[None], edges[None], mask[None])[0]
            assert (got - wanted)[there].abs().max() < 1e-5


def keypoints(count: int) -> np.ndarray:
    points = np.random.default_rng(0).uniform(0, 1, (count, NODE_COUNT, 3)).astype(np.float32)
    points[..., 2] = 0.9
    return points


def inputs(points: np.ndarray, present: float) -> list[object]:
    crop = np.random.default_rng(1).integers(0, 255, (len(points), 128, 128, 3), np.uint8)
    return [torch.from_numpy(a) for a in (*build_graph(points), crop, np.full(len(points), present, np.float32))]


def test_a_missing_node_or_crop_counts_for_nothing() -> None:
    network = build(13, FitSettings()).eval()
    points = keypoints(3)
    points[:, TIP, 2] = 0
    moved = points.copy()
    moved[:, TIP, :2] += 3
    with torch.no_grad():
        assert torch.equal(network(*inputs(points, 1.0)), network(*inputs(moved, 1.0)))
        absent = inputs(points, 0.0)
        dark = [*absent[:3], torch.zeros_like(absent[3]), absent[4]]  # type: ignore[call-overload]
        torch.testing.assert_close(network(*absent), network(*dark))


def test_a_person_is_judged_alike_alone_and_in_a_batch() -> None:
    network = build(13, FitSettings()).eval()
    every = inputs(keypoints(4), 1.0)
    with torch.no_grad():
        together = network(*every)
        alone = torch.cat([network(*(part[i : i + 1] for part in every)) for i in range(4)])  # type: ignore[index]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["geopose", "geopose_graph"])
def test_the_answer_is_what_head_and_further_opinions_say_together(name: str) -> None:
    network = network_model(name).build(13, FitSettings()).eval()
    nodes, edges, mask, crop, present = inputs(keypoints(3), 1.0)
    with torch.no_grad():
        graph = network.skeleton(nodes, edges, mask)
        seen = nodes if network.hand is None else network.hand(crop)
        each = answers(network, nodes, edges, graph, seen, present).softmax(-1)
        got = network(nodes, edges, mask, crop, present).softmax(-1)
    assert len(each) == 1 + OPINIONS and (each[0] - each[1]).abs().max() > 0.01
    wanted = each.prod(0) ** (1 / len(each))
    torch.testing.assert_close(got, wanted / wanted.sum(1, keepdim=True))


def test_a_network_without_further_opinions_answers_by_its_head() -> None:
    network = network_model("geopose_alone").build(13, FitSettings()).eval()
    nodes, edges, mask, crop, present = inputs(keypoints(3), 1.0)
    with torch.no_grad():
        wanted = network.combine(network.skeleton(nodes, edges, mask), network.hand(crop), present)
        assert torch.equal(network(nodes, edges, mask, crop, present), wanted)
