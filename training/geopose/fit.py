"""Training: AdamW with a cosine, the best epoch chosen on people that training never sees, resumable at any epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from stages.classes import ClassFile
from training.geopose.data import Batch, Mixture, PoseTable, graphs_with_crops, training_batches
from training.geopose.network import GeoPoseNet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitSettings:
    """How long and how hard."""

    epochs: int = 30
    batch: int = 192
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    patience: int = 8
    """Epochs without a better validation loss after which it stops."""
    family_weight: float = 0.3
    chamber_weight: float = 0.3
    geometry_weight: float = 0.1
    averaging: float = 0.99
    """Decay of the running mean of the weights, which is what gets validated and shipped."""
    threads: int = 2
    seed: int = 0


class HierarchicalLoss:
    """Cross-entropy of the pose, and of its family and chamber as sums of the poses' probabilities."""

    def __init__(self, classes: ClassFile, settings: FitSettings) -> None:
        self._settings = settings
        self._groups = [
            (weight, torch.tensor([names.index(getattr(c, level)) for c in classes.classes]), len(names))
            for level, names, weight in (
                ("family", classes.families, settings.family_weight),
                ("chamber", classes.chambers, settings.chamber_weight),
            )
        ]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits (B, classes), labels int64 (B,) -> scalar."""
        total = functional.cross_entropy(logits, labels)
        probabilities = logits.softmax(1)
        for weight, group_of, count in self._groups:
            sums = probabilities.new_zeros(len(logits), count).index_add(1, group_of, probabilities)
            total = total + weight * functional.nll_loss(torch.log(sums + 1e-7), group_of[labels])
        return total


def fit(
    classes: ClassFile,
    mixture: Mixture,
    validation: PoseTable,
    settings: FitSettings,
    run: Path,
    start: Path | None = None,
) -> Path:
    """Train, and return the file of the best weights, `run`/best.pt; goes on from `run`/last.pt where there is one.

    `start` are the weights of an earlier run to begin with.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = load_weights(start, len(classes.classes)) if start else GeoPoseNet(len(classes.classes))
    if start is None:
        _standardise(model, mixture, settings.seed)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: _rate(epoch, settings.epochs))
    loss = HierarchicalLoss(classes, settings)
    parts: dict[str, Any] = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    run.mkdir(parents=True, exist_ok=True)
    epoch, best, best_epoch = _resume(run / "last.pt", parts)
    while epoch < settings.epochs and epoch - best_epoch <= settings.patience:
        started = now_ns()
        # Seeded by the epoch, so that a resumed run equals one that was never stopped.
        torch.manual_seed(settings.seed * 1000 + epoch)
        rng = np.random.default_rng([settings.seed, epoch])
        trained = _epoch(model, average, optimiser, loss, tqdm(training_batches(mixture, settings.batch, rng),
                         desc=f"epoch {epoch + 1}", leave=False), settings)  # fmt: skip
        schedule.step()
        logits, labels = predict(average.module, validation)
        held_out, correct = float(loss(logits, labels)), float((logits.argmax(1) == labels).float().mean())
        log.info("epoch %d: loss %.3f, validation loss %.3f, top-1 %.3f, %.0f s", epoch + 1, trained, held_out, correct,
                 (now_ns() - started) / NS_PER_S)  # fmt: skip
        epoch += 1
        if held_out < best:
            best, best_epoch = held_out, epoch
            torch.save(average.module.state_dict(), run / "best.pt")
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({"epoch": epoch, "best": best, "best_epoch": best_epoch, **state}, run / "last.pt")
    return run / "best.pt"


def load_weights(file: Path, class_count: int) -> GeoPoseNet:
    """The network with the weights of a `best.pt`, ready to predict; raises UserError when there is none."""
    if not file.is_file():
        raise UserError(f"weights {file} do not exist; train them with `arnis-train fit`")
    model = GeoPoseNet(class_count)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


@torch.no_grad()
def predict(model: GeoPoseNet, table: PoseTable) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of a table."""
    model.eval()
    logits = [_forward(model, batch)[0] for batch in graphs_with_crops(table)]
    return torch.cat(logits), torch.from_numpy(table.labels)


def _epoch(
    model: GeoPoseNet,
    average: AveragedModel,
    optimiser: torch.optim.Optimizer,
    loss: HierarchicalLoss,
    batches: Iterable[Batch],
    settings: FitSettings,
) -> float:
    model.train()
    losses = []
    for batch in batches:
        logits, geometry = _forward(model, batch)
        total = loss(logits, torch.from_numpy(batch.labels))
        if geometry is not None:
            total = total + settings.geometry_weight * geometry
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        average.update_parameters(model)
        losses.append(float(total.detach()))
    return float(np.mean(losses))


def _forward(model: GeoPoseNet, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Logits, and the loss of the shaft told by the crop stream, through which only the crops that are there run."""
    nodes, edges, mask = (torch.from_numpy(array) for array in (batch.nodes, batch.edges, batch.mask))
    present = torch.from_numpy(batch.crop_present)
    seen = torch.zeros(len(nodes), model.hand.width)
    geometry = None
    if len(batch.crop):
        inner = model.hand(torch.from_numpy(batch.crop))
        seen = seen.index_copy(0, present.nonzero().squeeze(1), inner)
        shaft = torch.from_numpy(batch.shaft)[present > 0]
        error = functional.smooth_l1_loss(model.crop_geometry(inner), shaft[:, :2], reduction="none").sum(1)
        geometry = (error * shaft[:, 2]).sum() / shaft[:, 2].sum().clamp(min=1)
    return model.combine(model.skeleton(nodes, edges, mask), seen, present), geometry


def _standardise(model: GeoPoseNet, mixture: Mixture, seed: int) -> None:
    """Set the network's own normalisation from one batch of what it will be trained on; over present nodes only."""
    batch = next(training_batches(mixture, 4096, np.random.default_rng(seed)))
    nodes = batch.nodes[batch.mask > 0]
    model.skeleton.node_shift.copy_(torch.from_numpy(nodes.mean(0)))
    model.skeleton.node_scale.copy_(torch.from_numpy(1 / np.maximum(nodes.std(0), 0.1)))


def _rate(epoch: int, epochs: int) -> float:
    """Cosine from 1 to 0.02 after one epoch of warming up at a quarter."""
    return 0.25 if epoch == 0 else 0.02 + 0.49 * (1 + math.cos(math.pi * epoch / epochs))


def _resume(file: Path, parts: dict[str, Any]) -> tuple[int, float, int]:
    """Epochs done, best validation loss and its epoch; loads all parts when there is a checkpoint."""
    if not file.is_file():
        return 0, float("inf"), 0
    state = torch.load(file, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    log.info("going on after epoch %d of %s", state["epoch"], file)
    return state["epoch"], state["best"], state["best_epoch"]


