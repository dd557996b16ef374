"""The loop of training, run by Lightning: AdamW with a cosine, a running mean of the weights, the best epoch chosen on
people that training never sees, resumable after any epoch with the same result."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from stages.classes import NEUTRAL_KIND, ClassFile
from training.ahead import made_ahead
from training.geopose.batches import Batch, Mixture, droppable_edges, graphs_with_crops, training_batches
from training.geopose.checkpoint import write_checkpoint
from training.geopose.data import PoseTable
from training.geopose.fit import streams
from training.geopose.losses import ArcFace, HierarchicalLoss, margin_ramp
from training.geopose.network import together
from training.geopose.settings import FitSettings

log = logging.getLogger(__name__)

_BACKBONE_RATE = 0.1
"""Of the learning rate, for a pretrained backbone."""
_LEAST_RATE = 0.02


class Task(LightningModule):
    """One network, its losses, its data and its metrics."""

    def __init__(
        self, network: nn.Module, classes: ClassFile, mixture: Mixture, validation: PoseTable, settings: FitSettings
    ) -> None:
        super().__init__()
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
        self.settings, self._mixture = settings, mixture
        self.first_epoch = 0
        kinds = [c.kind for c in classes.classes]
        self._neutral = kinds.index(NEUTRAL_KIND) if NEUTRAL_KIND in kinds else None
        self._loss = HierarchicalLoss(classes, settings)
        self._validation = list(graphs_with_crops(validation))
        count = len(kinds)
        self.arcface = _arcface(network, self._validation[0], count, settings) if settings.arcface > 0 else None
        self.held_out, self.top1 = MeanMetric(), MulticlassAccuracy(count, average="micro")
        self.macro_f1 = MulticlassF1Score(count)

    def train_dataloader(self) -> _Epochs:
        return _Epochs(self, self._mixture, self.settings, self._neutral)

    def val_dataloader(self) -> DataLoader[Batch]:
        # A bare list would be taken for a list of loaders.
        return DataLoader(self._validation, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning asks for the first batch of a resumed run before it has counted the epochs that are done.
        self.first_epoch = checkpoint["epoch"] + 1

    def on_train_epoch_start(self) -> None:
        # Seed and rate follow from the epoch's number, so that a resumed run equals one that was never stopped.
        torch.manual_seed(self.settings.seed * 1000 + self.current_epoch)
        for group in self.optimizers().param_groups:
            group["lr"] = group["full_rate"] * rate_at(self.current_epoch, self.settings)
        frozen = self.settings.pretrained and self.current_epoch < self.settings.frozen_epochs
        for module in _backbones(self.network, self.settings):
            module.requires_grad_(not frozen).train(not frozen)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with dropped_edges(self.network, self.settings.drop_edge, len(batch.nodes)):
            answers, graph, geometry = streams(self.network, batch)
        labels, others, share = (torch.from_numpy(a) for a in (batch.labels, batch.other_labels, batch.share))
        total = torch.zeros(())
        for logits in answers:  # each opinion learns by itself
            losses = share * self._loss(logits, labels)
            if (batch.share < 1).any():
                losses = losses + (1 - share) * self._loss(logits, others)
            total = total + losses.mean()
        if geometry is not None:
            total = total + self.settings.geometry_weight * geometry
        if self.arcface is not None:
            ramp = margin_ramp(self.current_epoch, self.settings.epochs)
            total = total + self.settings.arcface * (share * self.arcface(_pooled(graph), labels, ramp)).mean()
        self.log("loss", total, on_step=False, on_epoch=True, batch_size=len(labels))
        return total

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, labels = together(streams(self.average.module, batch)[0]), torch.from_numpy(batch.labels)
        self.held_out.update(self._loss(logits, labels))
        self.top1.update(logits, labels)
        self.macro_f1.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"inner_loss": self.held_out, "inner_top1": self.top1, "inner_macro_f1": self.macro_f1})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        slow = {p for module in _backbones(self.network, self.settings) for p in module.parameters()}
        fast = [p for p in (*self.network.parameters(), *_parameters(self.arcface)) if p not in slow]
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        groups: list[dict[str, Any]] = [{"params": fast, "lr": rate, "full_rate": rate}]
        if slow:
            rate *= _BACKBONE_RATE
            groups.append(
                {"params": [p for p in self.network.parameters() if p in slow], "lr": rate, "full_rate": rate}
            )
        return torch.optim.AdamW(groups, weight_decay=decay)


class _Epochs:
    """The batches of whatever epoch it is, drawn anew for each."""

    def __init__(self, task: Task, mixture: Mixture, settings: FitSettings, neutral: int | None) -> None:
        self._task, self._mixture, self._settings, self._neutral = task, mixture, settings, neutral

    def __len__(self) -> int:
        return self._mixture.steps(self._settings.batch)

    def __iter__(self) -> Iterator[Batch]:
        epoch = max(self._task.current_epoch, self._task.first_epoch)
        rng = np.random.default_rng([self._settings.seed, epoch])
        return made_ahead(training_batches(self._mixture, self._settings, rng, self._neutral))


class Best(Callback):
    """Keeps the running mean of the weights of the best epoch, and stops when none has been better for long."""

    def __init__(self, file: Path, patience: int, facts: dict[str, Any]) -> None:
        self._file, self._patience, self._facts = file, patience, facts
        self._loss, self._epoch, self._seconds_before = float("inf"), 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self._loss, "epoch": self._epoch, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loss, self._epoch = state_dict["loss"], state_dict["epoch"]
        self._seconds_before = state_dict.get("seconds", 0.0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = now_ns()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch + 1
        log.info("epoch %d: inner loss %.3f, top-1 %.3f, macro-F1 %.3f, %.0f s so far", epoch, figures["inner_loss"],
                 figures["inner_top1"], figures["inner_macro_f1"], self._seconds())  # fmt: skip
        if not math.isfinite(figures["inner_loss"]):
            raise UserError(f"the training in {self._file.parent} diverged in epoch {epoch}: its loss is no number any "
                            "more; delete the folder and give a lower --rate")  # fmt: skip
        if figures["inner_loss"] < self._loss:
            self._loss, self._epoch = figures["inner_loss"], epoch
            weights = pl_module.average.module.state_dict()
            state = {"epoch": epoch, "loss": self._loss, "finished": False, "weights": weights}
            write_checkpoint(self._facts | state, self._file)
        trainer.should_stop = epoch - self._epoch >= self._patience

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        told = {"finished": True, "seconds": self._seconds()}
        write_checkpoint(torch.load(self._file, weights_only=True) | told, self._file)

    def _seconds(self) -> float:
        """That the training has taken, over all the calls that it needed."""
        return self._seconds_before + (now_ns() - self._started) / NS_PER_S


def train(task: Task, settings: FitSettings, run: Path, facts: dict[str, Any]) -> None:
    """Run the loop to its end, from `run`/last.ckpt where there is one."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    last = run / "last.ckpt"
    checkpoint = ModelCheckpoint(dirpath=run, filename="last", save_on_train_epoch_end=True,
                                 enable_version_counter=False)  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=settings.epochs, gradient_clip_val=5.0,
        logger=TensorBoardLogger(run, name="", version="board"),
        callbacks=[Best(run / "best.pt", settings.patience, facts), checkpoint], num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, deterministic="warn", log_every_n_steps=50,
    )  # fmt: skip
    if last.is_file():
        log.info("going on from %s", last)
    try:
        trainer.fit(task, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        log.info("stopped; the same command goes on from the last whole epoch")
        raise KeyboardInterrupt from None


def rate_at(epoch: int, settings: FitSettings) -> float:
    """Share of the learning rate: a quarter in the first epoch, then cosines from 1 to 0.02, each twice as long."""
    first = settings.epochs / (2 ** (settings.restarts + 1) - 1)
    if epoch == 0:
        return 0.25
    cycle = min(int(math.log2(epoch / first + 1)), settings.restarts)
    begun, length = first * (2**cycle - 1), first * 2**cycle
    return _LEAST_RATE + (1 - _LEAST_RATE) / 2 * (1 + math.cos(math.pi * min((epoch - begun) / length, 1)))


@contextmanager
def dropped_edges(network: nn.Module, rate: float, samples: int) -> Iterator[None]:
    """Each of a batch's samples lacks a share of the edges of the body, in every layer alike.

    Layers of attention say which of their slots are in use by `used` (N, D) and `number` (N, D), the slot's edge.
    """
    layers: list[Any] = [m for m in network.modules() if rate > 0 and hasattr(m, "used") and hasattr(m, "number")]
    before = [layer.used for layer in layers]
    may_go = torch.from_numpy(droppable_edges())
    kept = 1 - ((torch.rand(samples, len(may_go)) < rate) & may_go).float()
    try:
        for layer in layers:
            layer.used = layer.used * kept[:, layer.number.flatten()].view(-1, *layer.number.shape)
        yield
    finally:
        for layer, used in zip(layers, before, strict=True):
            layer.used = used


def _backbones(network: nn.Module, settings: FitSettings) -> list[nn.Module]:
    """What learns more slowly: ImageNet features, never random ones."""
    features = getattr(getattr(network, "hand", None), "features", None)
    return [features] if settings.pretrained and features is not None else []


def _arcface(network: nn.Module, batch: Batch, count: int, settings: FitSettings) -> ArcFace:
    with torch.no_grad():
        width = _pooled(streams(network.eval(), batch)[1]).shape[1]
    network.train()
    return ArcFace(width, count, settings.arcface_scale, settings.arcface_margin)


def _pooled(graph: Tensor) -> Tensor:
    """(B, width) of what a graph stream says, (B, width) or (B, nodes, width)."""
    return graph if graph.dim() == 2 else graph.mean(1)


def _parameters(module: nn.Module | None) -> list[nn.Parameter]:
    return list(module.parameters()) if module is not None else []
