"""What the detectors see in a data set of pictures: their noise and their misses, as the classifier will meet them.

Writes, into a folder, `table.csv` (columns as in the data set's own table, with the hand as it was seen and as it is)
and `crops/00000.npy`, ... with the hand crops of 256 rows each, black where there is none. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import msgspec
import numpy as np
from tqdm import tqdm

from engine.errors import UserError
from engine.packet import FrameRef
from engine.stage import Context
from stages.correct import Correct, CorrectSettings
from stages.detect import Detect, DetectSettings
from stages.graph import CROP_SIZE_PX, hand_crop
from stages.packets import ArnisPacket
from stages.skeleton import BODY_COUNT, GRIP, NODE_COUNT, TIP

SHARD_ROWS = 256
KEYPOINT_COLUMNS = [f"kp{node}_{part}" for node in range(NODE_COUNT) for part in ("x", "y", "conf")]

Seen = tuple[np.ndarray, str]
"""Keypoints float32 (19, 3) in pixels, confidence 0 where missing; the hand with the stick, empty when none is seen."""
Look = Callable[[np.ndarray, dict[str, str]], Seen]
"""From a picture, uint8 BGR, and its row of the table to what is seen in it."""

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `see`."""
    parser.add_argument("data", type=Path, help="folder of a data set with table.csv (made by `synth`)")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is seen")
    parser.add_argument("--truth", action="store_true", help="take the true keypoints instead of the detectors'")
    parser.add_argument("--body", help="body detector instead of the default one")
    parser.add_argument("--processes", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--limit", type=int, help="look at no more than this many pictures")


def run(args: argparse.Namespace) -> int:
    """Look at the pictures that are not in the table yet; 0 on success."""
    rows = read_rows(args.data / "table.csv")[: args.limit]
    see(rows, args.data, args.out, args.truth, args.processes, args.body)
    return 0


def read_rows(table: Path) -> list[dict[str, str]]:
    """Rows of a table; raises UserError when there is none."""
    if not table.is_file():
        raise UserError(f"table {table} does not exist; draw a data set with `arnis-train synth`")
    with table.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get(KEYPOINT_COLUMNS[-1]) is not None]


def see(
    rows: list[dict[str, str]], data: Path, out: Path, truth: bool, processes: int = 1, body: str | None = None
) -> None:
    """Write table and crops of `rows`, whose pictures lie in `data`."""
    (out / "crops").mkdir(parents=True, exist_ok=True)
    table = out / "table.csv"
    done = _whole_shards(table, out / "crops")
    shards = [rows[start : start + SHARD_ROWS] for start in range(done * SHARD_ROWS, len(rows), SHARD_ROWS)]
    log.info("%d pictures to look at, %d are done", sum(map(len, shards)), done * SHARD_ROWS)
    # A fork of a process that already runs torch's or OpenCV's threads inherits their locks and can hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_open, initargs=(truth, body)) as pool:
        pictures = [(data, shard) for shard in shards]
        results = tqdm(pool.map(_look_at, pictures), total=len(shards), unit="shard")
        for number, (seen, crops) in enumerate(results, done):
            np.save(out / "crops" / f"{number:05d}.npy", crops)
            fresh = not table.exists()
            with table.open("a", newline="") as stream:
                writer = csv.DictWriter(stream, list(seen[0]))
                if fresh:
                    writer.writeheader()
                writer.writerows(seen)


def true_keypoints(image: np.ndarray, row: dict[str, str]) -> Seen:
    """What the table says."""
    values = np.array([row[column] or "nan" for column in KEYPOINT_COLUMNS], np.float32).reshape(NODE_COUNT, 3)
    values[~np.isfinite(values).all(1), 2] = 0
    # The renders grade visibility; a hidden joint is still where it is.
    values[values[:, 2] > 0, 2] = np.maximum(values[values[:, 2] > 0, 2], 0.5)
    return values, row["grip_hand"]


class _OnePicture:
    """Frame access of the stages, for one picture at a time."""

    def __init__(self) -> None:
        self.image = np.zeros((1, 1, 3), np.uint8)

    @contextmanager
    def read(self, ref: FrameRef) -> Iterator[np.ndarray]:
        yield self.image


def detected_keypoints(body: str | None = None) -> Look:
    """Body and stick as the pipeline's own stages find and correct them; `body` names another body detector."""
    frames = _OnePicture()
    context = Context(worker="see", streams=[], frames=frames, request_stop=lambda: None, health=dict)
    # One thread each: there are several processes, and threads that wait for one another waste what is left.
    detect = Detect(msgspec.structs.replace(DetectSettings(threads=1), **({"body": body} if body else {})))
    correct = Correct(CorrectSettings())
    detect.open(context)
    correct.open(context)

    def look(image: np.ndarray, row: dict[str, str]) -> Seen:
        frames.image = image
        height, width = image.shape[:2]
        # In a video the detector looks where the person was in the frame before: so the second look counts.
        for number in range(2):
            packet = ArnisPacket(
                stream=row["image_path"], sequence=number, pts=number / 30, captured_at_ns=0,
                frame=FrameRef("", 0, 0, width, height),
            )  # fmt: skip
            packet = detect.process(packet)
        return keypoints_of(correct.process(packet))

    return look


def keypoints_of(packet: ArnisPacket) -> Seen:
    """Person and stick of a packet; what is not there has confidence 0."""
    keypoints = np.zeros((NODE_COUNT, 3), np.float32)
    if packet.person is not None:
        keypoints[:BODY_COUNT] = packet.person.keypoints
    if packet.stick is None:
        return keypoints, ""
    keypoints[GRIP], keypoints[TIP] = packet.stick.grip, packet.stick.tip
    return keypoints, packet.stick.hand


_look: Look = true_keypoints


def _open(truth: bool, body: str | None) -> None:
    """Start of a process: load the detectors once."""
    global _look
    cv2.setNumThreads(1)
    _look = true_keypoints if truth else detected_keypoints(body)


def _look_at(shard: tuple[Path, list[dict[str, str]]]) -> tuple[list[dict[str, str]], np.ndarray]:
    data, rows = shard
    seen, crops = [], np.zeros((len(rows), CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
    for number, row in enumerate(rows):
        image = cv2.imread(os.fspath(data / row["image_path"]))
        if image is None:
            raise UserError(f"picture {data / row['image_path']} cannot be read; draw the data set anew")
        keypoints, hand = _look(image, row)
        crop = hand_crop(image, keypoints, "left" if hand == "left" else "right")
        if crop is not None:
            crops[number] = crop
        values = ["" if not conf > 0 else f"{v:.3f}" for x, y, conf in keypoints.tolist() for v in (x, y, conf)]
        cells = dict(zip(KEYPOINT_COLUMNS, values, strict=True))
        seen.append({**row, "true_hand": row["grip_hand"], "grip_hand": hand, **cells})
    return seen, crops


def _whole_shards(table: Path, crops: Path) -> int:
    """How many full shards are there; anything half written is cut off."""
    if not table.exists():
        return 0
    with table.open(newline="") as stream:
        lines = list(csv.reader(stream))
    whole = min((len(lines) - 1) // SHARD_ROWS, len(list(crops.glob("[0-9]*.npy"))))
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows(lines[: 1 + whole * SHARD_ROWS])
    for file in sorted(crops.glob("[0-9]*.npy"))[whole:]:
        file.unlink()
    return whole
