"""Trains the heatmap detector on cached crops: deterministic by seed, resumable after every epoch."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from engine.clock import now_ns
from engine.errors import UserError
from training.files import whole_file
from training.stick.cache import load_samples, sources_hash
from training.stick.card_text import name_of
from training.stick.data import Batch, Loader, Samples, make_sample
from training.stick.export import load_weights
from training.stick.network import MAP_SIZE, Maps, StickNet
from training.weights import WEIGHTS_FILE

log = logging.getLogger(__name__)

_CHECKPOINT = "checkpoint.pt"
START_ANEW = "delete that folder or choose another --work to start anew"
_END_SIGMA = 1.0
_SHAFT_SIGMA = 1.0
_SHAFT_WEIGHT = 10.0
_FINE_TUNING = 0.5
"""Of the rates, for weights that know sticks already."""
_BFLOAT16: bool = torch.cpu._is_avx512_bf16_supported()
"""Emulated, it makes a step eight times slower than float32 (9.5 against 1.2 s of CPU for 16 crops)."""


class FitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the network is trained."""

    epochs: int = 12
    samples_per_epoch: int = 6400
    batch: int = 16
    seed: int = 7
    clip_share: float = 0.25
    """Share of real frames (with drawn sticks or none) in an epoch."""
    head_rate: float = 2e-3
    backbone_rate: float = 4e-4
    weight_decay: float = 1e-3
    averaging: float = 0.998
    """Decay of the moving average of the weights, which is what gets exported."""
    threads: int = 2


class _Done(NamedTuple):
    """What earlier calls did of a training."""

    epochs: int = 0
    hard: list[np.ndarray] = []
    """Which crops are hard, of each shard; or empty."""
    minutes: float = 0.0
    init: str = ""
    """The weights that were begun with; which, need not be said to resume."""


class Losses(msgspec.Struct):
    """Parts of the loss of a batch."""

    heat: Tensor
    """Cross-entropy of the places of grip and tip, nats for both."""
    shaft: Tensor
    ends: Tensor
    presence: Tensor

    def parts(self) -> list[float]:
        return [float(part.detach()) for part in (self.heat, self.shaft, self.ends, self.presence)]

    def total(self) -> Tensor:
        return self.heat + 10 * self.shaft + 4 * self.ends + self.presence


def fit(cache: Path, run: Path, settings: FitSettings, resume: bool = False, init: Path | None = None) -> Path:
    """Train on the shards `train` and `clips` of a cache; returns the file of the averaged weights.

    `run` receives `checkpoint.pt` (to resume) and `weights.pt`. `init` are weights to start from: they know sticks, so
    the rates are halved and what they find hard is drawn more often.
    Raises UserError when the cache is empty, or what is to be resumed was begun otherwise.
    """
    begun_ns = now_ns()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    run.mkdir(parents=True, exist_ok=True)
    net = (StickNet() if init is None else load_weights(init)).to(memory_format=torch.channels_last)
    average = copy.deepcopy(net)
    run_depthwise_in_float32(net)
    rates = [rate * (1 if init is None else _FINE_TUNING) for rate in (settings.head_rate, settings.backbone_rate)]
    optimiser = torch.optim.AdamW(net.parameter_groups(*rates), weight_decay=settings.weight_decay)
    steps = settings.epochs * (settings.samples_per_epoch // settings.batch)
    # A little more than a tenth: when that is exactly one step, OneCycleLR divides by zero.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.1 + 1e-9)
    facts = {"settings": msgspec.to_builtins(settings), "sources": sources_hash(cache)}
    facts |= {"init": name_of(init) if init else ""}
    if resume:
        done = _resume(run, facts, net, average, optimiser, schedule)
        facts["init"] = done.init
    else:
        done = _Done()
        for name in (_CHECKPOINT, WEIGHTS_FILE):  # of an earlier run, which must not be taken for this one's
            (run / name).unlink(missing_ok=True)
    hard = done.hard
    shards = load_samples(cache, "train") + load_samples(cache, "clips")
    if not shards:
        raise UserError(f"cache {cache} holds no training crops; give --table or --clips to fill it")
    log.info("training on %d crops", sum(map(len, shards)))
    if hard and [len(mask) for mask in hard] != [len(shard) for shard in shards]:
        raise UserError(_changed(run))
    if init is not None and not resume:
        hard = [hardest(average, shard) for shard in shards]
    loader = Loader(shards, settings.batch, settings.seed, settings.clip_share, hard)
    for epoch in range(done.epochs, settings.epochs):
        started_ns = now_ns()
        means = _epoch(net, average, loader, epoch, settings, optimiser, schedule)
        state = facts | {"net": net.state_dict(), "average": average.state_dict(), "epoch": epoch + 1}
        state |= {"minutes": done.minutes + (now_ns() - begun_ns) / 60e9}
        state |= {"hard": [torch.from_numpy(mask) for mask in hard]}
        state |= {"optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        _write(state, run / _CHECKPOINT)
        _write(average.state_dict(), run / WEIGHTS_FILE)
        log.info("epoch %d: %s, %.0f s", epoch, means, (now_ns() - started_ns) / 1e9)
    return run / WEIGHTS_FILE


def stopped(run: Path, when: str = "") -> UserError:
    """That a run holds a training which a new one would overwrite."""
    return UserError(f"{run} holds a training that was stopped{when}; add --resume to go on, or {START_ANEW}")


def refuse_unfinished(run: Path) -> None:
    """Raises UserError when a training that was stopped is there, which a new one would overwrite."""
    state = _checkpoint(run)
    if state and state["schedule"]["last_epoch"] < state["schedule"]["total_steps"]:
        raise stopped(run, f" after epoch {state['epoch']}")


def minutes_before(run: Path) -> float:
    """Minutes that the calls took whose epochs are in a run's checkpoint; older ones don't say, and count for none."""
    return float(_checkpoint(run).get("minutes", 0.0))


def hardest(net: StickNet, samples: Samples) -> np.ndarray:
    """bool (N,): the third of the crops, as they are served, at which a network's loss is largest; none of real frames,
    into which sticks are drawn anew each time."""
    if samples.drawable:
        return np.zeros(len(samples), bool)
    net.eval()
    rng, losses = np.random.default_rng(0), []
    with torch.no_grad():
        for index in tqdm(range(len(samples)), "find hard cases", disable=None):
            parts = make_sample(samples, index, rng, augment=False)
            losses.append(float(batch_losses(net, Batch(*(part[None].copy() for part in parts))).total()))
    return np.asarray(losses > np.quantile(losses, 2 / 3))


def _epoch(
    net: StickNet,
    average: StickNet,
    loader: Loader,
    epoch: int,
    settings: FitSettings,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> str:
    net.train()
    sums, count = np.zeros(4), 0
    batches = settings.samples_per_epoch // settings.batch
    for batch in tqdm(loader.epoch(epoch, settings.samples_per_epoch), f"epoch {epoch}", batches, disable=None):
        losses = batch_losses(net, batch)
        optimiser.zero_grad()
        losses.total().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        _update_average(average, net, min(settings.averaging, (1 + schedule.last_epoch) / (20 + schedule.last_epoch)))
        sums += losses.parts()
        count += 1
        if count % 100 == 0:
            log.info("epoch %d step %d: %s", epoch, count, _describe(sums / count))
    return _describe(sums / max(count, 1))


def _describe(means: np.ndarray) -> str:
    return "heat {:.3f} shaft {:.4f} ends {:.4f} presence {:.4f}".format(*means)


def batch_losses(net: StickNet, batch: Batch) -> Losses:
    """Losses of a batch; the convolutions run in bfloat16 on CPUs that have it, which halves their time."""
    images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)
    targets = torch.from_numpy(batch.targets)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_BFLOAT16):
        maps = net(images.to(memory_format=torch.channels_last), torch.from_numpy(batch.bodies))
    wanted, shaft_weight, vectors = target_maps(targets)
    # With an end outside the crop the stick cannot be drawn in the target, so such a picture does not count.
    counted = targets[:, 4] * targets[:, 5]
    there = wanted[:, :2].flatten(2)
    surprise = -(there * F.log_softmax(maps.heat[:, :2].flatten(2), 2)).sum((1, 2))
    heat = surprise.sum() / there.sum((1, 2)).gt(0).sum().clamp(min=1)
    bce = F.binary_cross_entropy_with_logits(maps.heat[:, 2], wanted[:, 2], reduction="none")
    shaft = (bce * (1 + _SHAFT_WEIGHT * wanted[:, 2]) * counted[:, None, None]).mean()
    error = F.smooth_l1_loss(maps.ends, vectors, reduction="none", beta=0.02).sum(1)
    ends = (error * shaft_weight).sum() / shaft_weight.sum().clamp(min=1)
    logit = net.decode(_detached_heat(maps)).presence
    known = (targets[:, 6] >= 0).float()
    presence = F.binary_cross_entropy_with_logits(logit, targets[:, 6].clamp(min=0), reduction="none")
    return Losses(heat, shaft, ends, (presence * known).sum() / known.sum().clamp(min=1))


def run_depthwise_in_float32(net: nn.Module) -> None:
    """Keep the 5 x 5 depthwise convolutions out of autocast: their bfloat16 backward is 3 to 5 times slower on CPUs."""

    def in_float32(convolve: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return convolve(x.float())

        return run

    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.kernel_size[0] == 5:
            module.forward = in_float32(module.forward)  # type: ignore[method-assign,assignment]


def _detached_heat(maps: Maps) -> Maps:
    """Presence judges what the maps found; it must not bend them."""
    return Maps(maps.heat.detach(), maps.ends.detach(), maps.context)


def target_maps(targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places of grip and tip and coverage of the shaft (B, 3, M, M), weight of the vectors (B, M, M), and the vectors
    to both ends (B, 4, M, M), of targets (B, 7)."""
    centres = (torch.arange(MAP_SIZE) + 0.5) / MAP_SIZE
    x, y = centres[None, None, :], centres[None, :, None]
    gx, gy, tx, ty = (targets[:, i, None, None] for i in range(4))
    has = ((targets[:, 4] * targets[:, 5] > 0) & (targets[:, 6] != 0)).float()[:, None, None]

    def bump(distance2: Tensor, sigma: float) -> Tensor:
        return torch.exp(-distance2 * MAP_SIZE**2 / (2 * sigma**2))

    def place(px: Tensor, py: Tensor) -> Tensor:
        spread = bump((x - px) ** 2 + (y - py) ** 2, _END_SIGMA)
        return spread / spread.sum((1, 2), keepdim=True).clamp(min=1e-6)

    dx, dy = tx - gx, ty - gy
    share = (((x - gx) * dx + (y - gy) * dy) / (dx**2 + dy**2).clamp(min=1e-6)).clamp(0, 1)
    off_shaft2 = (x - gx - share * dx) ** 2 + (y - gy - share * dy) ** 2
    shaft = bump(off_shaft2, _SHAFT_SIGMA)
    heat = torch.stack([place(gx, gy), place(tx, ty), shaft], 1)
    full = torch.zeros_like(shaft)
    vectors = torch.stack([gx - x + full, gy - y + full, tx - x + full, ty - y + full], 1)
    return heat * has[:, None], (shaft > 0.3).float() * has, vectors


def _update_average(average: StickNet, net: StickNet, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def _checkpoint(run: Path) -> dict[str, Any]:
    """Empty when there is none."""
    path = run / _CHECKPOINT
    return dict(torch.load(path, weights_only=True)) if path.is_file() else {}


def _changed(run: Path) -> str:
    return f"what is learnt from has changed since {run} was begun; give the same --table and --clips, or {START_ANEW}"


def _refuse_other(state: dict[str, Any], facts: dict[str, Any], run: Path) -> None:
    """Raises UserError when a checkpoint is not of a training with these facts; older ones don't tell theirs."""
    asked = facts["settings"]
    # Threads are the machine's.
    names = [name for name in state.get("settings", {}) if name in asked and name != "threads"]
    was = [f"{name} {state['settings'][name]}" for name in names if state["settings"][name] != asked[name]]
    if was:
        raise UserError(f"{run} was begun with {', '.join(was)}; say the same to resume it, or {START_ANEW}")
    if facts["init"] and state.get("init", facts["init"]) != facts["init"]:
        begun = state["init"] or "random weights"
        raise UserError(f"{run} was begun with {begun}; say the same --init to resume it, or {START_ANEW}")
    if state.get("sources", facts["sources"]) != facts["sources"]:
        raise UserError(_changed(run))


def _resume(
    run: Path,
    facts: dict[str, Any],
    net: StickNet,
    average: StickNet,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
) -> _Done:
    path, state = run / _CHECKPOINT, _checkpoint(run)
    if not state:
        raise UserError(f"checkpoint {path} does not exist; leave out --resume to start anew")
    _refuse_other(state, facts, run)
    try:
        net.load_state_dict(state["net"])
    except RuntimeError:
        raise UserError(f"checkpoint {path} is of an earlier network; {START_ANEW}") from None
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    if state["schedule"]["total_steps"] != schedule.total_steps:
        raise UserError(
            f"checkpoint {path} belongs to a run of another length; resume with the same --epochs and --samples"
        )
    schedule.load_state_dict(state["schedule"])
    hard = [mask.numpy() for mask in state.get("hard", [])]
    return _Done(int(state["epoch"]), hard, state.get("minutes", 0.0), state.get("init", facts["init"]))


def _write(state: object, path: Path) -> None:
    """A run that is stopped while saving must stay resumable."""
    with whole_file(path) as part:
        torch.save(state, part)
