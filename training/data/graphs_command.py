"""`arnis-train graphs`: writes a table as torch-geometric graphs, for those who go on in PyG.

from training.data.graphs import load_graphs
file = load_graphs("graphs.pt")
file["graphs"][0]                 # Data(x=[19, 15], edge_index=[2, 75], edge_attr=[75, 8], y=[1], mask=[19], ...)
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from stages.classes import load_classes
from stages.skeleton import COCO19, LAYOUTS
from training.data.graphs import build_graphs, save_graphs
from training.data.readers import read_all

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `graphs`."""
    layout_help = (
        "nodes and edges (default: %(default)s); blaze35 is MediaPipe's 33 landmarks, grip and tip, and needs a table "
        "with kp0 to kp34"
    )
    parser.add_argument("tables", type=Path, nargs="+", help=".csv, .json, data.yaml, or a folder with one of them")
    parser.add_argument("--out", type=Path, required=True, help="file to write, for torch.load")
    parser.add_argument("--layout", choices=LAYOUTS, default=COCO19.name, help=layout_help)
    parser.add_argument("--crops", action="store_true", help="also cut out the weapon hand of every picture")
    parser.add_argument("--classes", type=Path, help="your own class file (default: models/classes.toml)")


def run(args: argparse.Namespace) -> int:
    """Build the graphs and write them; 0 on success."""
    names, layout = load_classes(args.classes).names, LAYOUTS[args.layout]
    graphs = build_graphs(read_all(args.tables, names), names, layout, args.crops)
    save_graphs(graphs, args.out, names, layout)
    unknown = sum(int(graph.y) < 0 for graph in graphs)
    log.info("%s: %d graphs of %d nodes, %d of them of no known class", args.out, len(graphs), layout.count, unknown)
    return 0
