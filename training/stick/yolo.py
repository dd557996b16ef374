"""The competitor: a YOLO pose network with one class and two keypoints, from random weights, on the same crops.

Exported behind the same contract as the heatmap network (uint8 crop in; points and presence out), so that both are
served and judged alike. The box is the stick's, widened, and the OKS sigmas are wide: with a thin box and sigmas of
0.03 the keypoint loss is saturated from the start and nothing is learned.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import UserError
from training.stick.cache import load_samples
from training.stick.data import Samples, make_sample
from training.stick.fit import START_ANEW, stopped
from training.stick.network import SIZE_PX

log = logging.getLogger(__name__)

_BOX_MARGIN = 0.08
_SIGMA = 0.25
_LAST = Path("yolo", "weights", "last.pt")


class YoloSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the competitor is trained."""

    model: str = "yolo11n-pose.yaml"
    epochs: int = 10
    pictures: int = 3000
    batch: int = 32
    seed: int = 7
    clip_share: float = 0.25
    threads: int = 2


def write_dataset(cache: Path, folder: Path, settings: YoloSettings) -> Path:
    """Write crops and labels in ultralytics' layout, in the place of those of an earlier run, and return `data.yaml`;
    sticks are drawn into real frames here.

    Raises UserError when the cache is empty.
    """
    renders, clips = load_samples(cache, "train"), load_samples(cache, "clips")
    if not renders and not clips:
        raise UserError(f"cache {cache} holds no training crops; give --table or --clips to fill it")
    shutil.rmtree(folder, ignore_errors=True)
    share = (settings.clip_share if clips else 0.0) if renders else 1.0
    from_clips = round(settings.pictures * share)
    _write_split(clips, folder, "train", "clip", from_clips, settings.seed)
    _write_split(renders, folder, "train", "render", settings.pictures - from_clips, settings.seed)
    _write_split(renders or clips, folder, "val", "one", 1, settings.seed)  # ultralytics demands it; it chooses nothing
    data = {
        "path": str(folder.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": {0: "stick"},
        "kpt_shape": [2, 3],
        "flip_idx": [0, 1],
        "kpt_oks_sigmas": [_SIGMA, _SIGMA],
    }
    path = folder / "data.yaml"
    path.write_text(json.dumps(data, indent=1))  # JSON is YAML
    return path


def _write_split(shards: list[Samples], folder: Path, split: str, prefix: str, count: int, seed: int) -> None:
    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    places = [(shard, i) for shard in shards for i in range(len(shard))]
    if not places:
        return
    chosen = np.random.default_rng(seed).permutation(max(count, len(places)))[:count]
    for k in chosen:
        shard, i = places[int(k) % len(places)]
        rng = np.random.default_rng((seed, int(k)))
        image, _, target = make_sample(shard, i, rng, augment=False, hands=True)
        cv2.imwrite(str(images / f"{prefix}_{k:06d}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        (labels / f"{prefix}_{k:06d}.txt").write_text(label_line(target))


def label_line(target: np.ndarray) -> str:
    """One line of a pose label: class, box, grip and tip, 0..1; empty without a visible stick."""
    if target[6] != 1:
        return ""
    ends = target[:4].reshape(2, 2)
    low = np.clip(ends.min(0) - _BOX_MARGIN, 0, 1)
    high = np.clip(ends.max(0) + _BOX_MARGIN, 0, 1)
    box = [*((low + high) / 2), *(high - low)]
    points = [v for end in ends for v in (*np.clip(end, 0, 1), 2)]
    return "0 " + " ".join(f"{v:.5f}" for v in [*box, *points]) + "\n"


def fit_yolo(cache: Path, run: Path, settings: YoloSettings, resume: bool = False) -> Path:
    """Train and return the weights file (`last.pt`); a run that was stopped goes on with `resume`."""
    YOLO = yolo_class()
    last = run / _LAST
    if resume:
        if not last.is_file():
            raise UserError(f"checkpoint {last} does not exist; leave out --resume to start anew")
        with_threads(YOLO(str(last)), settings.threads).train(resume=True)
        return last
    data = write_dataset(cache, run / "dataset", settings)
    with_threads(YOLO(settings.model, task="pose"), settings.threads).train(
        data=str(data), epochs=settings.epochs, imgsz=SIZE_PX, batch=settings.batch, seed=settings.seed, device="cpu",
        workers=0, amp=False, mosaic=0.0, degrees=10.0, scale=0.2, translate=0.08, fliplr=0.5, optimizer="AdamW",
        lr0=1e-3, warmup_epochs=1.0, pose=12.0, plots=False, val=False, project=str(run.resolve()), name="yolo",
        exist_ok=True, deterministic=True,
    )  # fmt: skip
    return last


def with_threads(network: Any, threads: int) -> Any:
    """ultralytics takes all cores but one when a training starts; this sets what was asked for."""
    network.add_callback("on_train_start", lambda trainer: torch.set_num_threads(threads))
    return network


def refuse_unfinished(run: Path) -> None:
    """Raises UserError when a training that was stopped is there, which a new one would overwrite."""
    if (run / _LAST).is_file() and (epoch := checkpoint_epoch(run / _LAST)) >= 0:
        raise stopped(run, f" after epoch {epoch + 1}")


def checkpoint_epoch(file: Path) -> int:
    """Last finished epoch of an ultralytics checkpoint, -1 when its training has ended.

    Raises UserError when the file is damaged.
    """
    yolo_class()  # the file holds objects of the package
    try:
        return int(torch.load(file, map_location="cpu", weights_only=False)["epoch"])
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError):
        raise UserError(f"checkpoint {file} is damaged; {START_ANEW}") from None


class ServedYolo(nn.Module):
    """uint8 NHWC RGB crops (B, S, S, 3) to points (B, 2, 3) and presence (B,): the surest box's keypoints."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image: uint8 (B, SIZE_PX, SIZE_PX, 3)."""
        answer = self.network(image.permute(0, 3, 1, 2).float() / 255)
        rows = answer[0] if isinstance(answer, (tuple, list)) else answer  # (B, 4 box + 1 score + 6, anchors)
        best = rows[:, 4].argmax(1)
        chosen = rows.gather(2, best[:, None, None].expand(-1, rows.shape[1], 1))[..., 0]
        points = chosen[:, 5:].reshape(-1, 2, 3)
        return points / points.new_tensor([SIZE_PX, SIZE_PX, 1.0]), chosen[:, 4]


def load_yolo(weights: Path) -> ServedYolo:
    """The trained competitor, ready for export. Raises UserError when the file is missing."""
    YOLO = yolo_class()
    if not weights.is_file():
        raise UserError(f"weights {weights} do not exist; train first with `arnis-train detector --kind yolo`")
    return ServedYolo(for_export(YOLO(str(weights)).model)).eval()


def for_export(network: Any) -> Any:
    """An ultralytics network in the form that answers raw rows, (B, values, anchors), for inputs of any batch."""
    network = network.float()
    if hasattr(network.model[-1], "one2one_cv2"):
        network.model[-1].end2end = False  # before fusing, which drops the head that is not used
    network = network.fuse().eval()
    for module in network.modules():
        if hasattr(module, "export"):
            module.export, module.dynamic, module.format = True, True, "onnx"
    return network


def yolo_class() -> Any:
    """ultralytics' YOLO, told to fetch and to install nothing. Raises UserError when it is not installed."""
    # Read when the package is imported.
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    try:
        from ultralytics import YOLO  # type: ignore[attr-defined]
    except ModuleNotFoundError as error:
        raise UserError(f"--kind yolo and fused need {error.name}; run `pip install '.[train]'`") from None
    return YOLO
