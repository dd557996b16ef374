"""The graph alone, without pictures: for tables that have none."""

from __future__ import annotations

from torch import Tensor, nn

from training.classifiers.neural import OF_CROPS, NetworkModel
from training.geopose.network import GraphStream, Opinions, answers, together

_WIDTH = 128


class GraphNet(nn.Module):
    """See `protocol.PoseNetwork`; takes crops like its kin and does not look at them."""

    hand = None
    crop_geometry = None

    def __init__(self, class_count: int) -> None:
        super().__init__()
        self.skeleton = GraphStream(_WIDTH)
        self.head = nn.Sequential(nn.Linear(_WIDTH, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, class_count))
        self.opinions = Opinions(class_count)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor, crop: Tensor, crop_present: Tensor) -> Tensor:
        """As `GeoPoseNet.forward`."""
        return together(answers(self, nodes, edges, self.skeleton(nodes, edges, mask), nodes, crop_present))

    def combine(self, graph: Tensor, seen: Tensor, crop_present: Tensor) -> Tensor:
        return self.head(graph)


MODEL = NetworkModel("geopose_graph", lambda class_count, settings: GraphNet(class_count), ignored=OF_CROPS)
