"""What the answer hangs on: keypoints are taken out, the graph is built anew from what is left, the answer compared.

Attention is no proof of importance (Jain & Wallace 2019); this is the test of it, and it works for every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from torch import nn

from stages.classify import class_probabilities
from stages.graph import PRESENT_CONFIDENCE
from stages.skeleton import (
    KEYPOINT_NAMES,
    LEFT_ANKLE,
    LEFT_ELBOW,
    LEFT_HIP,
    LEFT_KNEE,
    LEFT_SHOULDER,
    LEFT_WRIST,
    NODE_COUNT,
    NOSE,
    RIGHT_ANKLE,
    RIGHT_ELBOW,
    RIGHT_HIP,
    RIGHT_KNEE,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
    TIP,
)  # fmt: skip
from training.geopose.data import PoseTable
from training.geopose.fit import predict
from training.geopose.measure import person_interval

LIMBS: dict[str, tuple[int, ...]] = {
    "head": tuple(range(NOSE, LEFT_SHOULDER)),
    "left_arm": (LEFT_ELBOW, LEFT_WRIST),
    "weapon_arm": (RIGHT_ELBOW, RIGHT_WRIST),
    "legs": (LEFT_KNEE, RIGHT_KNEE, LEFT_ANKLE, RIGHT_ANKLE),
}
"""Hidden together, because one joint alone can be guessed from its neighbours."""
CROP = "hand_picture"
_TORSO = (LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP)
"""Without it there is neither origin nor unit."""
MOST = 0.5
FEWEST_SAMPLES = 10
"""What one picture hangs on says nothing of the network."""


class TipVerdict(msgspec.Struct, frozen=True):
    """Whether the tip alone decides; shares are of the samples whose tip is seen."""

    samples: int
    changes: float
    """Share whose answer changes when the tip is hidden."""
    strongest_other: str
    """The part, other than the tip, whose hiding changes the most answers."""
    strongest_other_changes: float
    alone: float
    """Share whose answer changes when the tip is hidden and when no other single part is: neither another node, nor a
    limb, nor the picture of the hand."""
    alone_interval: tuple[float, float] | None
    """95 %, by drawing people; None of too few."""
    stays_with_tip_only: float
    """Share whose answer stays when everything but the torso (the unit of length) and the tip is hidden."""
    decides_alone: bool
    """`alone` is more than a half, of enough samples."""


class Part(msgspec.Struct, frozen=True):
    """What hiding one node, limb or picture does, over the samples that have it."""

    name: str
    samples: int
    effect: float
    """Mean loss of probability of the answer."""
    changes: float
    """Share of answers that change."""


@dataclass(frozen=True)
class Hiding:
    """What hiding each part does to each of N samples."""

    names: tuple[str, ...]
    """The 19 nodes, the limbs, the picture of the hand."""
    present: np.ndarray
    """bool (P, N): the sample has the part."""
    effect: np.ndarray
    """float (P, N): loss of probability of the answer."""
    changed: np.ndarray
    """bool (P, N): another class is named."""
    tip_only: np.ndarray
    """bool (N,): the answer stays with torso and tip only."""

    def part(self, number: int, chosen: np.ndarray) -> Part:
        """Means over those of the `chosen` samples, bool (N,), that have the part."""
        there = self.present[number] & chosen
        effect, changed = self.effect[number][there], self.changed[number][there]
        means = (float(effect.mean()), float(changed.mean())) if there.any() else (0.0, 0.0)
        return Part(self.names[number], int(there.sum()), *means)


def hide_parts(model: nn.Module, table: PoseTable, temperature: float = 1.0) -> Hiding:
    """Judge the table with each part hidden in turn."""
    parts = {name: (node,) for node, name in enumerate(KEYPOINT_NAMES)} | LIMBS
    base = _probabilities(model, table, temperature)
    answer, rows = base.argmax(1), np.arange(len(table))
    seen = table.keypoints[..., 2] >= PRESENT_CONFIDENCE
    judged = [_probabilities(model, _hidden(table, nodes), temperature) for nodes in parts.values()]
    judged.append(_probabilities(model, table.without_crops(), temperature))
    rest = tuple(node for node in range(NODE_COUNT) if node not in (*_TORSO, TIP))
    tip_only = _probabilities(model, _hidden(table, rest).without_crops(), temperature)
    return Hiding(
        names=(*parts, CROP),
        present=np.array([seen[:, list(nodes)].any(1) for nodes in parts.values()] + [table.crop_present > 0]),
        effect=np.array([base[rows, answer] - hidden[rows, answer] for hidden in judged]),
        changed=np.array([hidden.argmax(1) != answer for hidden in judged]),
        tip_only=tip_only.argmax(1) == answer,
    )


def judge_tip(hiding: Hiding, people: np.ndarray, chosen: np.ndarray) -> TipVerdict | None:
    """Over those of the `chosen` samples, bool (N,), that have a tip; None without any. `people` is str (N,)."""
    there = hiding.present[TIP] & chosen
    if not there.any():
        return None
    changed = (hiding.changed & hiding.present)[:, there]
    others = np.delete(np.arange(len(hiding.names)), TIP)
    strongest = int(others[changed[others].mean(1).argmax()])
    alone = changed[TIP] & ~changed[others].any(0)
    return TipVerdict(
        samples=int(there.sum()),
        changes=float(changed[TIP].mean()),
        strongest_other=hiding.names[strongest],
        strongest_other_changes=float(changed[strongest].mean()),
        alone=float(alone.mean()),
        alone_interval=person_interval(alone, people[there]),
        stays_with_tip_only=float(hiding.tip_only[there].mean()),
        decides_alone=len(alone) >= FEWEST_SAMPLES and bool(alone.mean() > MOST),
    )


def _probabilities(model: nn.Module, table: PoseTable, temperature: float) -> np.ndarray:
    return class_probabilities(predict(model, table)[0].numpy(), temperature)


def _hidden(table: PoseTable, nodes: Sequence[int]) -> PoseTable:
    keypoints = table.keypoints.copy()
    keypoints[:, list(nodes), 2] = 0
    return replace(table, keypoints=keypoints)
