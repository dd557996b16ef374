"""Tables as torch-geometric graphs, built by the functions that serving uses.

A graph has `x`, `edge_index`, `edge_attr`, `mask` (bool, which nodes are there), `y` (place of its class, -1 when it is
not in the class file), and as text `label`, `group`, `seen_from` (its view: `Data.view` is a method), `split`, `hand`
and `picture`. Left-handers are mirrored, view and all, whichever hand a detector took for theirs. With crops it has
`crop` too, uint8 (1, 3, 128, 128) RGB of the weapon hand, (0, 3, 128, 128) where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage
from tqdm import tqdm

from engine.errors import UserError
from stages.graph import CROP_SIZE_PX, EDGE_FEATURES, NODE_FEATURES, build_graph, hand_crop
from stages.skeleton import COCO19, Layout
from training.data.table import Table
from training.files import packed, whole_file


def save_graphs(graphs: list[Data], path: Path, names: Sequence[str], layout: Layout) -> None:
    """Write graphs with what their columns and numbers mean."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "graphs": graphs, "classes": list(names), "layout": layout.name, "nodes": list(layout.names),
        "node_features": list(NODE_FEATURES), "edge_features": list(EDGE_FEATURES),
    }  # fmt: skip
    with whole_file(path) as part:
        part.write_bytes(packed(lambda file: torch.save(content, file)))


def load_graphs(path: Path) -> dict[str, Any]:
    """What `save_graphs` wrote: graphs, classes, layout, nodes, node_features, edge_features."""
    # These are all that a Data consists of; nothing else in the file is run.
    with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
        content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def build_graphs(table: Table, names: Sequence[str], layout: Layout = COCO19, crops: bool = False) -> list[Data]:
    """One `Data` a row, in order; raises UserError when the table lacks the layout's points."""
    table = table.as_held()
    nodes, edges, mask = build_graph(canonical_points(table, layout), layout)
    edge_index = torch.from_numpy(np.ascontiguousarray(layout.directed_edges.T))
    places = {name: place for place, name in enumerate(names)}
    left, views, graphs = table.left_handed(), table.canonical_views(), []
    for i in tqdm(range(len(table)), "build graphs", disable=None):
        graph = Data(
            x=torch.from_numpy(nodes[i]), edge_index=edge_index, edge_attr=torch.from_numpy(edges[i]),
            y=torch.tensor([places.get(str(table.labels[i]), -1)]), mask=torch.from_numpy(mask[i] > 0),
            label=str(table.labels[i]), group=str(table.groups[i]), seen_from=str(views[i]),
            split=str(table.splits[i]), hand="left" if left[i] else "right", picture=str(table.pictures[i]),
        )  # fmt: skip
        if crops:
            graph.crop = _crop(table, i, bool(left[i]))
        graphs.append(graph)
    return graphs


def canonical_points(table: Table, layout: Layout) -> np.ndarray:
    """float32 (N, K, 3) in the layout, weapon hand on the right."""
    if layout is COCO19:
        return table.canonical()
    if table.landmarks.shape[1] != layout.count:
        raise UserError(f"{table.rows[0]}: layout {layout.name} needs kp0 to kp{layout.count - 1}; take coco19, or a "
                        f"table with these columns: {', '.join(layout.names[:3])}, ... {layout.names[-1]}")  # fmt: skip
    points, left = table.landmarks.copy(), table.left_handed()
    points[left] = points[left][:, layout.mirror]
    points[left, :, 0] *= -1
    return points


def _crop(table: Table, i: int, left: bool) -> torch.Tensor:
    """uint8 (1, 3, 128, 128), or (0, 3, 128, 128) when there is no picture or no hand, so that batches concatenate."""
    picture = table.read_picture(i)
    crop = None if picture is None else hand_crop(picture, table.keypoints[i], "left" if left else "right")
    if crop is None:
        return torch.zeros((0, 3, CROP_SIZE_PX, CROP_SIZE_PX), dtype=torch.uint8)
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))[None]
