"""Which hand holds the stick, told by a small network from the keypoints of body and stick.

The wrist nearer to the grip is right for four of five pictures only: in many poses both hands are close together. How
the body stands tells it then.
"""

from __future__ import annotations

import numpy as np

from stages.detectors import Runtime, open_graph_model
from stages.graph import build_graph, mirror_keypoints
from stages.packets import Hand


class WeaponHand:
    """Runs a weapon-hand network: nodes (B, 19, 15) and edges (B, 75, 8) in; `score` (B,) out, in log-odds."""

    def __init__(self, model: str, runtime: Runtime) -> None:
        """Raises UserError when the model is missing, broken or made for something else."""
        card, self._network = open_graph_model(model, runtime, "weapon_hand", ["score"], "arnis-train hand")
        self._temperature = card.temperature

    def rightness(self, keypoints: np.ndarray) -> np.ndarray:
        """float32 (N,), -1 (surely the left hand) to 1 (surely the right one), for keypoints (N, 19, 3), missing ones
        with confidence 0. A mirror image gets the opposite; 0 where nothing tells it."""
        nodes, edges, _ = build_graph(np.concatenate([keypoints, mirror_keypoints(keypoints)]))
        as_is, mirrored = np.split(self._network(nodes, edges)[0], 2)
        return np.asarray(np.tanh((as_is - mirrored) / (2.0 * self._temperature)))


class GivenHand:
    """Somebody knows which hand it is."""

    def __init__(self, hand: Hand) -> None:
        self._rightness = 1.0 if hand == "right" else -1.0

    def rightness(self, keypoints: np.ndarray) -> np.ndarray:
        """As `WeaponHand.rightness`."""
        return np.full(len(keypoints), self._rightness)
