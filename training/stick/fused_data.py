"""Data of the fused network in ultralytics' layout: renders as they are, and real frames with sticks drawn in.

Of real frames the bodies are MoveNet Thunder's (pseudo-labels), the sticks are exact, as they were drawn here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.errors import UserError
from stages.skeleton import BODY_COUNT, GRIP, MIRROR, NODE_COUNT, TIP
from training.data.ultralytics import label_file
from training.stick.clips import FRAMES_PER_CLIP, HELD_OUT, body_detector, frames_with_person, step_for
from training.stick.composite import add_distractors, add_stick
from training.stick.data import read_rows
from training.synth.write import KEYPOINT_SIGMAS, pose_label

log = logging.getLogger(__name__)

SURE = 0.3
"""Score from which a pseudo-labelled keypoint is learned; a less sure one is labelled as absent."""
STICK_SHARE, DISTRACTOR_SHARE = 0.6, 0.35
_LARGEST_SIDE_PX = 640


def write_lists(table: Path, folder: Path, pictures: int = 0, seed: int = 0) -> int:
    """Write `train.txt` and `val.txt` of the labelled renders of a table, of the training ones at most `pictures` (0:
    all); returns the number of training pictures. Raises UserError when none has a label."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [r for r in read_rows(table) if r.path.is_file() and label_file(r.path).is_file()]
    found = {split: [str(r.path.resolve()) for r in rows if r.split == split] for split in ("train", "val")}
    if not found["train"]:
        raise UserError(
            f"beside {table} there are no pose labels of training pictures; make them with `arnis-train synth`"
        )
    if pictures and pictures < len(found["train"]):
        chosen = np.random.default_rng(seed).permutation(len(found["train"]))[:pictures]
        found["train"] = [found["train"][i] for i in sorted(chosen)]
    found["val"] = found["val"] or found["train"][:1]  # ultralytics demands one; nothing is chosen by it
    for split, paths in found.items():
        (folder / f"{split}.txt").write_text("\n".join(paths) + "\n")
    return len(found["train"])


def write_clips(clips: Sequence[Path], folder: Path, pictures: int, seed: int) -> int:
    """Write about `pictures` frames of the clips that training may see, with their labels, as `images/` and `labels/`
    of `folder`; returns how many."""
    used = [clip for clip in clips if clip.stem not in HELD_OUT]
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    finder, written = body_detector(), 0
    frames_each = max(1, min(FRAMES_PER_CLIP, pictures // max(1, len(used))))
    copies = max(1, round(pictures / max(1, len(used) * frames_each)))
    for clip_number, clip in enumerate(used):
        for number, (frame, body) in enumerate(frames_with_person(clip, finder, step_for(clip, frames_each))):
            if body is None:
                continue
            for copy in range(copies):
                rng = np.random.default_rng((seed, clip_number, number, copy))
                image, keypoints = clip_sample(frame, body, rng)
                stem = f"{clip.stem}_{number:04d}_{copy}"
                cv2.imwrite(str(folder / "images" / f"{stem}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
                label = pose_label(keypoints, image.shape[1], image.shape[0])
                (folder / "labels" / f"{stem}.txt").write_text(label + "\n")
                written += 1
    log.info("%d pictures from %d clips", written, len(used))
    return written


def clip_sample(frame: np.ndarray, body: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A part of a frame round a person, mostly with a stick drawn in, and its keypoints float64 (19, 3).

    frame: uint8 (H, W, 3) BGR; body: (17, 3) in its pixels. Keypoints that are not sure or outside are NaN, NaN, 0.
    """
    image, keypoints = _cut(frame, body, rng)
    stick = add_stick(image, keypoints, rng) if rng.random() < STICK_SHARE else None
    if stick is not None:
        keypoints[GRIP], keypoints[TIP] = (*stick.grip, 1.0), (*stick.tip, 1.0)
    if rng.random() < DISTRACTOR_SHARE:
        add_distractors(image, keypoints, stick, rng)
    return image, _labelled(keypoints, image.shape[1], image.shape[0])


def _cut(frame: np.ndarray, body: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A square round the person, as far as the frame reaches, and the keypoints (19, 3) in it; sizes vary."""
    sure = body[body[:, 2] >= SURE, :2]
    sure = sure if len(sure) else body[np.isfinite(body[:, 0]), :2]
    low, high = sure.min(0), sure.max(0)
    side = float((high - low).max()) * rng.uniform(1.3, 2.6)
    centre = (low + high) / 2 + rng.normal(0, 0.06 * side, 2)
    limits = np.array([frame.shape[1], frame.shape[0]])
    start = np.clip(np.floor(centre - side / 2), 0, limits - 16).astype(int)
    end = np.clip(np.ceil(centre + side / 2), start + 16, limits).astype(int)
    part = frame[start[1] : end[1], start[0] : end[0]]
    scale = min(1.0, _LARGEST_SIDE_PX / max(part.shape[:2]))
    image = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else part.copy()
    keypoints = np.full((NODE_COUNT, 3), np.nan)
    keypoints[:, 2] = 0
    keypoints[:BODY_COUNT] = body
    keypoints[:, :2] = (keypoints[:, :2] - start) * scale
    return image, keypoints


def _labelled(keypoints: np.ndarray, width: int, height: int) -> np.ndarray:
    """Keypoints as they are learned: fully visible or absent."""
    x, y, score = keypoints.T
    learned = (score >= SURE) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    marked: np.ndarray = np.where(learned[:, None], keypoints, np.array([np.nan, np.nan, 0.0]))
    marked[learned, 2] = 1.0
    return marked


def write_yaml(folder: Path, widen: float, ends_only: bool = False) -> Path:
    """Write the description of the data for a phase with OKS sigmas `widen` times as wide, and return it.

    Lists `train.txt` and `val.txt` and the pictures of clips are those of `folder`. `ends_only` widens those of grip
    and tip alone, for a network that knows bodies.
    """
    train = [name for name in ("train.txt", "clips/images") if (folder / name).exists()]
    val = "val.txt" if (folder / "val.txt").exists() else train[0]
    data = {
        "path": str(folder.resolve()),
        "train": train,
        "val": val,
        "names": {0: "person"},
        "kpt_shape": [NODE_COUNT, 3],
        "flip_idx": [int(i) for i in MIRROR],
        "kpt_oks_sigmas": [
            round(sigma if ends_only and point < BODY_COUNT else widen * sigma, 4)
            for point, sigma in enumerate(KEYPOINT_SIGMAS)
        ],
    }
    path = folder / f"sigmas_x{widen:g}.yaml"
    path.write_text(json.dumps(data, indent=1))  # JSON is YAML
    return path
