"""How far off what is measured of detected keypoints may be, told by a small network from the whole body.

A joint that is hidden, points at the camera or lies at the other leg's place is off by more than others, and often to
one side. The network learnt from renders, whose true keypoints are known, what the detectors make of such.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from stages.angles import QUANTITIES
from stages.detectors import Runtime, open_graph_model
from stages.packets import GraphInput

TASK = "measuring_error"
FREEDOM = 3
"""Degrees of freedom of Student's t distribution, as which errors are told: most are small, a few very large."""


class Error(NamedTuple):
    """Of one quantity, in its unit: what the true value lies higher by, and how widely that scatters."""

    shift: float
    spread: float

    def above(self, value: float, edge: float) -> float:
        """Probability that the true value lies above `edge` where `value` was measured; 0 or 1 without any spread.

        Student's t distribution in its closed form for three degrees of freedom (Abramowitz & Stegun 1964, 26.7.3).
        """
        away = value + self.shift - edge
        if not self.spread:
            return float(away > 0)
        t = away / (self.spread * math.sqrt(FREEDOM))
        return 0.5 + (math.atan(t) + t / (1 + t * t)) / math.pi


class MeasuringError:
    """Runs a network of nodes (B, 19, 15) and edges (B, 75, 8) that has an output (B, 2), shift and spread, for each of
    `QUANTITIES`."""

    def __init__(self, model: str, runtime: Runtime) -> None:
        """Raises UserError when the model is missing, broken or made for something else."""
        card, self._network = open_graph_model(model, runtime, TASK, QUANTITIES, "arnis-train errors")
        self._widen = card.temperature

    def errors(self, graph: GraphInput) -> dict[str, Error]:
        """Of each of `QUANTITIES`, measured of the keypoints that the graph was made of."""
        outputs = self._network(graph.nodes[None], graph.edges[None])
        told = zip(QUANTITIES, outputs, strict=True)
        return {name: Error(float(of[0, 0]), float(of[0, 1]) * self._widen) for name, of in told}
