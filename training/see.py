"""What the detectors see in a data set of pictures: their noise and their misses, as the classifier will meet them.

Half of the pictures are seen as in a hold, by the network that looks closer, the others as in movement. Writes, into a
folder, `detectors.json`, `table.csv` (as `training.data.table` describes it, with the hand as it was seen and as it is)
and `crops/00000.npy`, ... with the hand crops of 256 rows each, black where there is none. Goes on where it stopped,
as long as the data set says the same of the pictures that are done.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import msgspec
import numpy as np
from tqdm import tqdm

from engine.errors import UserError
from engine.packet import FrameRef
from engine.stage import Context
from stages.classes import load_classes
from stages.correct import Correct, CorrectSettings
from stages.detect import Detect, DetectSettings, DetectStick, closer_model
from stages.graph import CROP_SIZE_PX, hand_crop
from stages.packets import ArnisPacket
from stages.skeleton import BODY_COUNT, GRIP, NODE_COUNT, TIP
from training.data.cells import whole_lines
from training.data.readers import read_any
from training.data.table import COLUMNS, KEYPOINT_COLUMNS, Table, append_table, written_rows
from training.processes import end_with_parent

SHARD_ROWS = 256
DETECTORS_FILE = "detectors.json"
"""Beside the table that `see` writes: whose eyes saw it."""

Seen = tuple[np.ndarray, str]
"""Keypoints float32 (19, 3) in pixels, confidence 0 where missing; the hand with the stick, empty when none is seen."""
Look = Callable[[np.ndarray, str, bool], Seen]
"""From a picture, uint8 BGR, a name of its own and whether it is of a hold to what is seen in it."""

log = logging.getLogger(__name__)


class Detectors(msgspec.Struct, frozen=True, kw_only=True):
    """Whose eyes: those of the program, unless it is told otherwise."""

    truth: bool = False
    """The table's own keypoints, nobody's eyes."""
    body: str = DetectSettings().body
    stick: str = DetectSettings().stick
    fused: str = ""
    closer: str = ""
    """Of holds, instead of `body`; `auto`: as in the program."""
    correct: Literal["evidence", "forearm", "off"] = CorrectSettings().method


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that `detectors_of` understands."""
    shipped = Detectors()
    parser.add_argument("--body", default=shipped.body, help=f"body detector (default {shipped.body})")
    parser.add_argument("--stick", default=shipped.stick, help=f"stick detector (default {shipped.stick})")
    parser.add_argument("--fused", default="", help="model folder of a network that sees both, instead of the two")
    parser.add_argument("--closer", default=DetectSettings().closer,
                        help="body detector of holds, which half of the pictures are for `see` and all for `label` "
                             "(default: as in the program; '': the same as --body)")  # fmt: skip
    parser.add_argument("--correct", default=shipped.correct, choices=("evidence", "forearm", "off"),
                        help=f"what is done to the stick then (default {shipped.correct})")  # fmt: skip


def detectors_of(args: argparse.Namespace) -> Detectors:
    """The detectors that the arguments name."""
    truth = bool(getattr(args, "truth", False))
    return Detectors(
        truth=truth, body=args.body, stick=args.stick, fused=args.fused, closer=args.closer, correct=args.correct
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `see`."""
    parser.add_argument(
        "data", type=Path, help="data set: a table with pictures, or a folder with one (made by `synth`)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is seen")
    parser.add_argument("--truth", action="store_true", help="take the true keypoints instead of the detectors'")
    add_detector_arguments(parser)
    parser.add_argument("--classes", type=Path, help="your own class file (default: models/classes.toml)")
    parser.add_argument("--processes", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--limit", type=int, help="look at no more than this many pictures")


def run(args: argparse.Namespace) -> int:
    """Look at the pictures that are not in the table yet; 0 on success."""
    names = load_classes(args.classes).names
    table = read_any(args.data, names)
    see(table.select(slice(args.limit)), names, args.out, detectors_of(args), args.processes)
    return 0


def see(data: Table, names: tuple[str, ...], out: Path, detectors: Detectors, processes: int = 1) -> None:
    """Write table and crops of a data set's pictures, going on after the shards that are there."""
    (out / "crops").mkdir(parents=True, exist_ok=True)
    _keep_detectors(out / DETECTORS_FILE, detectors)
    table = out / "table.csv"
    _refuse_another_table(table, data, names, detectors.truth)
    done = _done_rows(table, out / "crops", len(data))
    if done == len(data):
        log.info("%s: all of its %d pictures were looked at before", out, done)
        return
    log.info("%d pictures to look at, %d are done", len(data), done)
    rest = data.select(slice(done, None))
    for number, (seen, crops) in enumerate(look_at(rest, detectors, processes), done // SHARD_ROWS):
        np.save(out / "crops" / f"{number:05d}.npy", crops)
        append_table(seen, table, names)


def _keep_detectors(file: Path, detectors: Detectors) -> None:
    """Raises UserError when the folder was begun with others."""
    if file.is_file():
        begun = msgspec.json.decode(file.read_bytes(), type=Detectors)
        pairs = [(name, getattr(begun, name), getattr(detectors, name)) for name in begun.__struct_fields__]
        changed = [f"{name} {was or 'none'}" for name, was, asked in pairs if was != asked]
        if changed:
            raise UserError(f"{file.parent} was begun with {', '.join(changed)}; say the same, or choose another --out")
    elif (file.parent / "table.csv").is_file():
        raise UserError(f"{file.parent} does not say whose eyes saw it; delete it, or choose another --out")
    file.write_bytes(msgspec.json.format(msgspec.json.encode(detectors)))


def _refuse_another_table(file: Path, data: Table, names: tuple[str, ...], truth: bool) -> None:
    """Raises UserError when what was seen is not of the first rows of the data, as far as it depends on them."""
    if not file.is_file():
        return
    head, *lines = whole_lines(file) or [[]]
    mend = "delete the folder, or choose another --out"
    if len(lines) > len(data):
        raise UserError(f"{file.parent} holds {len(lines)} pictures, and now it is to hold {len(data)}; {mend}")
    columns = ["image_path", "label_name", "group", "view", "true_hand", "split", *(KEYPOINT_COLUMNS if truth else ())]
    first = data.select(slice(len(lines)))
    rows = written_rows(_as_true(first) if truth else first, file.parent, names)
    for number, (line, row) in enumerate(zip(lines, rows, strict=True)):
        was, asked = dict(zip(head, line, strict=False)), dict(zip(COLUMNS, row, strict=True))
        changed = next((name for name in columns if was.get(name, "") != asked[name]), None)
        if changed:
            raise UserError(
                f"{file.parent} was begun with another table: {changed} of {data.pictures[number]} was "
                f"{was.get(changed, '')!r} and is {asked[changed]!r} now; {mend}"
            )


def look_at(
    data: Table, detectors: Detectors, processes: int = 1, shard_rows: int = SHARD_ROWS, all_held: bool = False
) -> Iterator[tuple[Table, np.ndarray]]:
    """Shards of the table as the detectors see its pictures, with hand crops uint8 (rows, 128, 128, 3), in order; half
    of the pictures are seen as in a hold, or all.

    Raises UserError when a picture cannot be read.
    """
    if processes < 1:
        raise UserError(f"--processes {processes} look at nothing; give at least 1")
    shards = [data.select(slice(start, start + shard_rows)) for start in range(0, len(data), shard_rows)]
    # A fork of a process that already runs torch's or OpenCV's threads inherits their locks and can hang.
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, spawn, initializer=_open, initargs=(detectors,)) as pool,
        tqdm(total=len(data), unit="picture", disable=None) as bar,
    ):
        for seen, crops in pool.map(partial(_look_at, all_held=all_held), shards):
            yield seen, crops
            bar.update(len(seen))


def true_keypoints(data: Table, index: int) -> Seen:
    """What the table says."""
    keypoints = data.keypoints[index].copy()
    # The renders grade visibility; a hidden joint is still where it is.
    seen = keypoints[:, 2] > 0
    keypoints[seen, 2] = np.maximum(keypoints[seen, 2], 0.5)
    return keypoints, str(data.hands[index])


def _as_true(data: Table) -> Table:
    """A table as `--truth` writes it."""
    data = data.as_held()
    keypoints = np.array([true_keypoints(data, i)[0] for i in range(len(data))], np.float32).reshape(-1, NODE_COUNT, 3)
    keypoints[~(keypoints[..., 2] > 0)] = 0
    return replace(data, keypoints=keypoints)


class OnePicture:
    """Frame access of the stages, for one picture at a time."""

    def __init__(self) -> None:
        self.image = np.zeros((1, 1, 3), np.uint8)

    @contextmanager
    def read(self, ref: FrameRef) -> Iterator[np.ndarray]:
        yield self.image


def detected_keypoints(detectors: Detectors) -> Look:
    """Body and stick as the pipeline's own stages find and correct them."""
    frames = OnePicture()
    context = Context(worker="see", streams=[], frames=frames, request_stop=lambda: None, health=dict)
    # One thread each: there are several processes, and threads that wait for one another waste what is left.
    settings = DetectSettings(threads=1, closer="", body=detectors.body, stick=detectors.stick, fused=detectors.fused)
    closer = closer_model(msgspec.structs.replace(settings, closer=detectors.closer))
    quick, stick, correct = Detect(settings), DetectStick(settings), Correct(CorrectSettings(method=detectors.correct))
    exact = Detect(msgspec.structs.replace(settings, body=closer)) if closer else quick
    for stage in (quick, exact, stick, correct):
        stage.open(context)

    def look(image: np.ndarray, name: str, held: bool) -> Seen:
        frames.image = image
        height, width = image.shape[:2]
        body = exact if held else quick
        # In a video the detector looks where the person was in the frame before: so the second look counts.
        for number in range(2):
            packet = ArnisPacket(
                stream=name, sequence=number, pts=number / 30, captured_at_ns=0,
                frame=FrameRef("", 0, 0, width, height),
            )  # fmt: skip
            packet = stick.process(body.process(packet))
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


_look: Look | None = None
"""None: the truth is told instead."""


def _open(detectors: Detectors) -> None:
    """Start of a process: load the detectors once."""
    end_with_parent()
    global _look
    cv2.setNumThreads(1)  # there may be several processes
    _look = None if detectors.truth else detected_keypoints(detectors)


def is_of_a_hold(picture: str) -> bool:
    """True for half of all names, whatever their order: in a table, every second row could be one pose or one side."""
    return hashlib.sha256(picture.encode()).digest()[0] % 2 == 1


def _look_at(data: Table, all_held: bool) -> tuple[Table, np.ndarray]:
    data = data if _look else data.as_held()
    crops = np.zeros((len(data), CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
    keypoints, hands, sizes = data.keypoints.copy(), [], data.sizes.copy()
    for i in range(len(data)):
        image = cv2.imread(os.fspath(data.picture_path(i)))
        if image is None:
            raise UserError(f"{data.rows[i]}: {data.picture_path(i)} is no picture; replace it or delete the row")
        name = str(data.pictures[i])
        held = all_held or is_of_a_hold(name)
        keypoints[i], hand = _look(image, name, held) if _look else true_keypoints(data, i)
        hands.append(hand)
        sizes[i] = image.shape[1::-1]
        crop = hand_crop(image, keypoints[i], "left" if hand == "left" else "right")
        if crop is not None:
            crops[i] = crop
    keypoints[~(keypoints[..., 2] > 0)] = 0
    seen = replace(data, keypoints=keypoints, hands=np.array(hands, dtype=str), true_hands=data.true_hands, sizes=sizes)
    return seen, crops


def _done_rows(table: Path, crops: Path, wanted: int) -> int:
    """How many rows are there in full shards, or all that are wanted; anything half written is cut off."""
    if not table.exists():
        return 0
    lines, shards = whole_lines(table), sorted(crops.glob("[0-9]*.npy"))
    done = len(lines) - 1
    if done != wanted or len(shards) != -(-wanted // SHARD_ROWS):
        done = max(0, min(done // SHARD_ROWS, len(shards))) * SHARD_ROWS
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines[: 1 + done] if done else [])
    for file in shards[-(-done // SHARD_ROWS) :]:
        file.unlink()
    return done
