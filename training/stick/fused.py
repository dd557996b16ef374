"""The fused network: person and stick as one instance of 19 keypoints, in ultralytics' YOLO pose form.

It is trained in two phases. OKS with the true, small sigmas is flat as long as the points are far off, and nothing is
learned; so the first phase has wide ones, and the second, which goes on from it, the true ones.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from engine.errors import UserError
from stages.skeleton import BODY_COUNT, NODE_COUNT
from training.notes import read_note
from training.stick.card_text import UNTOLD, data_text, name_of
from training.stick.fit import stopped
from training.stick.fused_data import write_clips, write_lists, write_yaml
from training.stick.yolo import checkpoint_epoch, for_export, with_threads, yolo_class

log = logging.getLogger(__name__)


class Phase(msgspec.Struct, frozen=True):
    """A part of the training with sigmas of its own."""

    name: str
    share: float
    """Of all epochs."""
    widen: float
    """Factor on the sigmas of `training.synth.write`: COCO's, and 0.04 and 0.03 for grip and tip."""
    rate: float
    """Learning rate at its start."""


PHASES = (Phase("wide", 0.6, 4.0, 1e-3), Phase("narrow", 0.4, 1.0, 5e-4))

FINE_TUNING = 0.4
"""Factor on the learning rates where the weights know bodies already: that is to be kept."""


class FusedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the fused network is trained."""

    model: str = "yolo11n-pose.yaml"
    """ultralytics' description of the network; with `init` it is that of the weights."""
    size: int = 320
    """Side of the input in pixels, a multiple of 32."""
    epochs: int = 20
    pictures: int = 0
    """Renders to train on; 0: all of the table."""
    clip_share: float = 0.25
    """Share of real frames among all pictures."""
    batch: int = 16
    seed: int = 7
    threads: int = 2
    init: str = ""
    """Name of the weights that it began with, for the card."""
    data: str = UNTOLD
    """What it learns from, for the card."""
    knows_bodies: bool = False
    """Whether those find keypoints already."""


class Step(NamedTuple):
    """What is to be done for a phase."""

    phase: Phase
    action: Literal["start", "resume", "done"]
    weights: Path


def phase_epochs(epochs: int) -> list[int]:
    """Epochs of each phase, at least one each; the last takes what remains."""
    counts = [max(1, round(phase.share * epochs)) for phase in PHASES[:-1]]
    return [*counts, max(1, epochs - sum(counts))]


def plan(run: Path, resume: bool, epoch_of: Callable[[Path], int]) -> list[Step]:
    """What each phase still needs, by the checkpoints in `run`; `epoch_of` is -1 for one whose training has ended.

    Raises UserError when there is nothing to resume, or a training that was stopped would be begun anew.
    """
    files = [run / phase.name / "weights" / "last.pt" for phase in PHASES]
    if resume and not files[0].is_file():
        raise UserError(f"checkpoint {files[0]} does not exist; leave out --resume to start anew")
    steps: list[Step] = []
    for phase, file in zip(PHASES, files, strict=True):
        earlier_done = all(step.action == "done" for step in steps)
        if not (earlier_done and file.is_file()):
            steps.append(Step(phase, "start", file))
        else:
            steps.append(Step(phase, "done" if epoch_of(file) < 0 else "resume", file))
    if resume:
        return steps
    if files[0].is_file() and any(step.action != "done" for step in steps):
        raise stopped(run)
    return [Step(phase, "start", file) for phase, file in zip(PHASES, files, strict=True)]


def write_data(table: Path | None, clips: Sequence[Path], folder: Path, settings: FusedSettings) -> None:
    """Write lists of renders and pictures of clips, in the place of those of an earlier run.

    Raises UserError when there is nothing to learn from.
    """
    shutil.rmtree(folder, ignore_errors=True)
    share = settings.clip_share
    count = write_lists(table, folder, settings.pictures, settings.seed) if table else 0
    wanted = round(count * share / (1 - share)) if count else settings.pictures or 2000
    written = write_clips(clips, folder / "clips", wanted, settings.seed) if clips and wanted else 0
    if not count + written:
        raise UserError("no picture to learn from; give --table, or --clips in which a person is seen")


def fit_fused(
    table: Path | None, clips: Sequence[Path], run: Path, settings: FusedSettings, resume: bool = False,
    init: Path | None = None,
) -> Path:  # fmt: skip
    """Train both phases and return the weights; `resume` goes on with the data, size and length of the run begun.

    Raises UserError when ultralytics, data or checkpoint is missing.
    """
    yolo_class()
    steps = plan(run, resume, checkpoint_epoch)
    data = run / "dataset"
    if not resume:
        knows_bodies = init is not None and yolo_class()(str(_existing(init))).task == "pose"
        write_data(table, clips, data, settings)
        run.mkdir(parents=True, exist_ok=True)
        begun = msgspec.structs.replace(
            settings, init=name_of(init) if init else "", data=data_text(table, clips), knows_bodies=knows_bodies
        )
        (run / "settings.json").write_bytes(msgspec.json.encode(begun))
    settings = read_settings(run)
    before = _kept(init, run) if init and not resume else init
    for step, epochs in zip(steps, phase_epochs(settings.epochs), strict=True):
        log.info("phase %s: %s, %d epochs, sigmas x %g", step.phase.name, step.action, epochs, step.phase.widen)
        if step.action == "resume":
            with_threads(yolo_class()(str(step.weights)), settings.threads).train(resume=True)
        elif step.action == "start":
            for later in steps[steps.index(step) :]:  # of an earlier run, which must not be taken for this one's
                later.weights.unlink(missing_ok=True)
            sigmas = write_yaml(data, step.phase.widen, ends_only=settings.knows_bodies)
            _start(step.phase, epochs, sigmas, run, settings, before)
        before = step.weights
    return steps[-1].weights


def _existing(weights: Path) -> Path:
    if not weights.is_file():
        raise UserError(f"weights {weights} do not exist; give a .pt file of ultralytics")
    return weights


def _kept(init: Path, run: Path) -> Path:
    """A copy of the weights to begin with: they may be those of this very run, which a new start removes."""
    copy = run / "init.pt"
    if copy.resolve() != init.resolve():
        shutil.copyfile(init, copy)
    return copy


def read_settings(run: Path) -> FusedSettings:
    """Settings of a run begun. Raises UserError when there is none."""
    file = run / "settings.json"
    if not file.is_file():
        raise UserError(f"{run} holds no run of a fused network; train one with `arnis-train detector --kind fused`")
    return read_note(file, FusedSettings, "train anew, without --resume")


def _start(phase: Phase, epochs: int, data: Path, run: Path, settings: FusedSettings, weights: Path | None) -> None:
    """Train a phase from its beginning; `weights` of fewer keypoints are grafted into the larger network."""
    network = with_threads(_network(weights, settings.model), settings.threads)
    if weights is not None and settings.knows_bodies:
        given = {name: values.clone() for name, values in network.model.state_dict().items()}
        network.add_callback("on_pretrain_routine_end", lambda trainer: _graft_trainer(trainer, given))
    rate = phase.rate * (FINE_TUNING if settings.knows_bodies else 1.0)
    network.train(
        data=str(data), epochs=epochs, imgsz=settings.size, batch=settings.batch, seed=settings.seed, device="cpu",
        workers=0, amp=False, mosaic=0.0, degrees=8.0, scale=0.4, translate=0.1, fliplr=0.5, optimizer="AdamW",
        lr0=rate, warmup_epochs=min(1.0, epochs / 3), cos_lr=True, pose=12.0, kobj=2.0, plots=False, val=False,
        project=str(run.resolve()), name=phase.name, exist_ok=True, deterministic=True,
    )  # fmt: skip


def _network(weights: Path | None, description: str) -> Any:
    """An ultralytics pose network; a pose `.pt` keeps its form, and training gives it a head of 19 points."""
    YOLO = yolo_class()
    if weights is None:
        return YOLO(description, task="pose")
    network = YOLO(str(_existing(weights)))
    return network if network.task == "pose" else YOLO(description, task="pose").load(str(weights))


def graft(network: nn.Module, given: Mapping[str, Tensor]) -> int:
    """Write weights of fewer keypoints into the layers of `network` that are larger; returns how many layers that were.

    The first keypoints then are exactly as before: they take nothing from the new channels, which stay as they are.
    ultralytics itself leaves out whatever differs in shape, so that the whole head for keypoints would start anew.
    """
    own, grafted = network.state_dict(), 0
    for name, old in given.items():
        new = own.get(name)
        if new is None or new.shape == old.shape or new.dim() != old.dim():
            continue
        if any(n < o for n, o in zip(new.shape, old.shape, strict=True)):
            continue
        new[: old.shape[0]] = 0  # of a convolution, also the columns of the new channels
        new[tuple(slice(n) for n in old.shape)] = old
        grafted += 1
    return grafted


def _graft_trainer(trainer: Any, given: Mapping[str, Tensor]) -> None:
    """Into the network that is trained and its running average, which ultralytics has just made."""
    with torch.no_grad():
        graft(trainer.ema.ema, given)
        if count := graft(trainer.model, given):
            log.info("%d tensors of the weights were grafted into larger ones", count)


class ServedFused(nn.Module):
    """float32 (1, 3, S, S) RGB 0..1 to ultralytics' raw rows (1, 4 box + 1 score + 3 x 19, anchors) in input pixels.

    Grip and tip get score 0 where the weaker one is below `stick_threshold`: then the person holds no stick.
    """

    stick_threshold: Tensor

    def __init__(self, network: nn.Module, stick_threshold: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("stick_threshold", torch.tensor(stick_threshold))

    def forward(self, images: Tensor) -> Tensor:
        answer = self.network(images)
        rows = answer[0] if isinstance(answer, (tuple, list)) else answer
        scores = rows[:, 5 + 2 :: 3]
        sticks = scores[:, BODY_COUNT:NODE_COUNT]
        kept = (sticks.amin(1, keepdim=True) >= self.stick_threshold).to(rows.dtype)
        tail = rows[:, -3 * (NODE_COUNT - BODY_COUNT) :].unflatten(1, (-1, 3))
        gated = torch.cat([tail[:, :, :2], tail[:, :, 2:] * kept[:, None]], 2).flatten(1, 2)
        return torch.cat([rows[:, : 5 + 3 * BODY_COUNT], gated], 1)


def load_fused(weights: Path, stick_threshold: float = 0.0) -> ServedFused:
    """The trained network, ready for export. Raises UserError when the file is missing."""
    if not weights.is_file():
        raise UserError(f"weights {weights} do not exist; train first with `arnis-train detector --kind fused`")
    return ServedFused(for_export(yolo_class()(str(weights)).model), stick_threshold).eval()
