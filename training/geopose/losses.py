"""What training minimises beside the shaft told from the crop."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.classes import ClassFile
from training.geopose.settings import FitSettings


class HierarchicalLoss:
    """Cross-entropy of the pose, and of its family and chamber as sums of the poses' probabilities."""

    def __init__(self, classes: ClassFile, settings: FitSettings) -> None:
        self._smoothing = settings.smoothing
        self._groups = [
            (weight, torch.tensor([names.index(getattr(c, level)) for c in classes.classes]), len(names))
            for level, names, weight in (
                ("family", classes.families, settings.family_weight),
                ("chamber", classes.chambers, settings.chamber_weight),
            )
        ]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits (B, classes), labels int64 (B,) -> (B,)."""
        total = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self._smoothing)
        probabilities = logits.softmax(1)
        for weight, group_of, count in self._groups:
            if weight > 0:
                sums = probabilities.new_zeros(len(logits), count).index_add(1, group_of, probabilities)
                likelihood = torch.log(sums + 1e-7)
                total = total + weight * functional.nll_loss(likelihood, group_of[labels], reduction="none")
        return total


class ArcFace(nn.Module):
    """Additive angular margin over a cosine classifier (Deng et al. 2019, eq. 3); the margin is in radians."""

    def __init__(self, width: int, class_count: int, scale: float, margin: float) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.centres = nn.Parameter(torch.randn(class_count, width))

    def forward(self, embedding: Tensor, labels: Tensor, ramp: float) -> Tensor:
        """embedding (B, width), labels int64 (B,) -> (B,); `ramp` 0..1 is the share of the margin that counts."""
        cosine = functional.normalize(embedding) @ functional.normalize(self.centres).T
        # Away from 1, where the arc cosine has no slope.
        angle = torch.acos(cosine.clamp(-1 + 1e-5, 1 - 1e-5))
        own = functional.one_hot(labels, len(self.centres)).to(angle.dtype)
        return functional.cross_entropy(self.scale * torch.cos(angle + own * self.margin * ramp), labels,
                                        reduction="none")  # fmt: skip


def margin_ramp(epoch: int, epochs: int) -> float:
    """0 for the first tenth of the epochs, 1 from the half on, linear in between."""
    return min(max((epoch / max(epochs, 1) - 0.1) / 0.4, 0.0), 1.0)
