"""What the detectors see in a data set of pictures: their noise and their misses, as the classifier will meet them.

Half of the pictures are seen as in a hold, by the network that looks closer, the others as in movement. Writes, into a
folder, `detectors.json`, `table.csv` (as `training.data.table` describes it, with the hand as it was seen and as it is)
and `crops/00000.npy`, ... with the hand crops of some rows each, black where there is none. Goes on where it stopped,
as long as the data set says the same of the pictures that are done.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import msgspec
import numpy as np
from tqdm import tqdm

from engine.errors import UserError
from engine.numbers import at_least
from engine.packet import FrameRef
from engine.stage import Context
from stages.cards import load_card, sha256_of
from stages.classes import load_classes
from stages.correct import Correct, CorrectMethod, CorrectSettings
from stages.detect import Detect, DetectSettings, DetectStick, closer_model, hand_in_picture, make_hand
from stages.detectors import Runtime
from stages.graph import CROP_SIZE_PX, hand_crop
from stages.packets import HANDS, ArnisPacket, GateDecision
from stages.skeleton import BODY_COUNT, GRIP, NODE_COUNT, TIP
from training.data.pictures import is_cut_off
from training.data.readers import read_any
from training.data.table import Table, append_table
from training.files import packed, whole_file
from training.notes import read_note
from training.processes import end_with_parent, helpers
from training.seen_folder import DETECTORS_FILE, SHARD_ROWS, done_rows, refuse_another_table

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
    hand: str = ""
    """Network that tells which hand holds the stick, or that hand; empty: the program's. In older folders, which don't
    say, it was the wrist nearer to the grip."""
    correct: CorrectMethod = CorrectSettings().method
    sha256: dict[str, str] = {}
    """Of each network's file: one trained anew sees otherwise under the same name. Older folders don't say."""
    pictures: int = 0
    """How many are to be looked at; 0: an older folder, which doesn't say."""

    def identified(self) -> Detectors:
        """With the SHA-256 of the files. Raises UserError when a model is missing or broken."""
        if self.truth:
            return self
        settings = DetectSettings(body=self.body, stick=self.stick, fused=self.fused, closer=self.closer)
        names = [self.fused] if self.fused else [self.body, self.stick, closer_model(settings)]
        names += [self.hand] if self.hand not in HANDS else []
        files = {name: Path(name) if Path(name).suffix == ".task" else load_card(name)[1] for name in names if name}
        return msgspec.structs.replace(self, sha256={name: sha256_of(file) for name, file in files.items()})


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that `detectors_of` understands."""
    shipped = Detectors()
    parser.add_argument("--body", default=shipped.body, help=f"body detector (default {shipped.body})")
    parser.add_argument("--stick", default=shipped.stick, help=f"stick detector (default {shipped.stick})")
    parser.add_argument("--fused", default="", help="model folder of a network that sees both, instead of the two")
    parser.add_argument("--closer", default=DetectSettings().closer,
                        help="body detector of holds, which half of the pictures are for `see` and all for `label` "
                             "(default: as in the program; '': the same as --body)")  # fmt: skip
    parser.add_argument("--hand", default=DetectSettings().hand,
                        help="left or right if all hold the stick so, else a network that tells it "
                             "(default: as in the program)")  # fmt: skip
    parser.add_argument("--correct", default=shipped.correct, choices=get_args(CorrectMethod),
                        help=f"what is done to the stick then (default {shipped.correct})")  # fmt: skip


def detectors_of(args: argparse.Namespace) -> Detectors:
    """The detectors that the arguments name."""
    truth = bool(getattr(args, "truth", False))
    return Detectors(
        truth=truth, body=args.body, stick=args.stick, fused=args.fused, closer=args.closer,
        hand="" if truth else args.hand,
        correct=args.correct,
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `see`."""
    parser.add_argument(
        "data", type=Path, help="data set: a table with pictures, or a folder with one (made by `synth`)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is seen")
    parser.add_argument("--truth", action="store_true", help="take the true keypoints instead of the detectors'")
    add_detector_arguments(parser)
    parser.add_argument("--classes", type=Path, help="your own class file (default: models/classes.toml)")
    parser.add_argument("--processes", type=at_least(1), default=1, help="processes (default 1)")
    parser.add_argument("--limit", type=at_least(1), help="look at no more than this many pictures")


def run(args: argparse.Namespace) -> int:
    """Look at the pictures that are not in the table yet; 0 on success."""
    names = load_classes(args.classes).names
    table = read_any(args.data, names)
    if args.truth and args.hand != DetectSettings().hand:
        raise UserError("--truth takes the hand from the table; leave --hand out, or correct the column `true_hand`")
    if unknown := sorted({*table.labels.tolist()} - {"", *names}):
        log.warning("%s: the class file has no %s; is it another one (--classes)?", args.data, ", ".join(unknown))
    for row, picture in zip(table.rows, table.pictures, strict=True):
        if not picture:  # planned poses have none
            raise UserError(f"{row} of {args.data} names no picture to look at; give a table that does")
    see(table.select(slice(args.limit)), names, args.out, detectors_of(args), args.processes)
    return 0


def see(data: Table, names: tuple[str, ...], out: Path, detectors: Detectors, processes: int = 1) -> None:
    """Write table and crops of a data set's pictures, going on after the shards that are there."""
    (out / "crops").mkdir(parents=True, exist_ok=True)
    begun = _keep_detectors(out / DETECTORS_FILE, detectors)
    table = out / "table.csv"
    refuse_another_table(table, _as_true(data) if detectors.truth else data, names, with_keypoints=detectors.truth)
    _write_detectors(msgspec.structs.replace(begun, pictures=len(data)), out / DETECTORS_FILE)
    done, files = done_rows(table, out / "crops")
    if done == len(data):
        log.info("%s: all of its %d pictures were looked at before", out, done)
        return
    log.info("%d pictures to look at, %d are done", len(data), done)
    rest = data.select(slice(done, None))
    for number, (seen, crops) in enumerate(look_at(rest, detectors, processes), files):
        (out / "crops" / f"{number:05d}.npy").write_bytes(packed(partial(np.save, arr=crops)))
        append_table(seen, table, names)


def _keep_detectors(file: Path, detectors: Detectors) -> Detectors:
    """Those by which the folder was begun, or is begun now. Raises UserError when they are others."""
    detectors = detectors.identified()
    if file.is_file():
        begun = read_detectors(file)
        names = [name for name in begun.__struct_fields__ if name not in ("sha256", "pictures")]
        pairs = [(name, getattr(begun, name), getattr(detectors, name)) for name in names]
        changed = [f"{name} {was or 'none'}" for name, was, asked in pairs if was != asked]
        if changed:
            raise UserError(f"{file.parent} was begun with {', '.join(changed)}; say the same, or choose another --out")
        anew = [name for name, digest in begun.sha256.items() if detectors.sha256.get(name) != digest]
        if anew:
            raise UserError(f"{file.parent} was begun with another {' and '.join(anew)}, which was trained anew since; "
                            "choose another --out, or delete the folder")  # fmt: skip
        return begun
    if (file.parent / "table.csv").is_file():
        raise UserError(f"{file.parent} does not say whose eyes saw it; delete it, or choose another --out")
    _write_detectors(detectors, file)
    return detectors


def _write_detectors(detectors: Detectors, file: Path) -> None:
    with whole_file(file) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(detectors)))


def read_detectors(file: Path) -> Detectors:
    """Whose eyes a folder's file names. Raises UserError when it is damaged."""
    return read_note(file, Detectors, f"delete {file.parent} and let `see` write it anew")


def look_at(
    data: Table,
    detectors: Detectors,
    processes: int = 1,
    shard_rows: int = SHARD_ROWS,
    all_held: bool = False,
    skip_bad: bool = False,
) -> Iterator[tuple[Table, np.ndarray]]:
    """Shards of the table as the detectors see its pictures, with hand crops uint8 (rows, 128, 128, 3), in order; half
    of the pictures are seen as in a hold, or all.

    A picture that cannot be read is left out, as one that is cut off, if bad ones are to be skipped; else it raises
    UserError.
    """
    shards = [data.select(slice(start, start + shard_rows)) for start in range(0, len(data), shard_rows)]
    with (
        helpers(processes, _open, (detectors,)) as pool,
        tqdm(total=len(data), unit="picture", disable=None) as bar,
    ):
        waiting = deque(pool.submit(_look_at, shard, all_held, skip_bad) for shard in shards)
        for shard in shards:
            yield waiting.popleft().result()  # and forget its crops
            bar.update(len(shard))


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
    context = Context(streams=[], frames=frames, request_stop=lambda: None, health=dict)
    # One thread each: there are several processes, and threads that wait for one another waste what is left.
    settings = DetectSettings(threads=1, closer="", body=detectors.body, stick=detectors.stick, fused=detectors.fused,
                              hand=detectors.hand or DetectSettings().hand)  # fmt: skip
    closer = closer_model(msgspec.structs.replace(settings, closer=detectors.closer))
    quick, stick, correct = Detect(settings), DetectStick(settings), Correct(CorrectSettings(method=detectors.correct))
    exact = Detect(msgspec.structs.replace(settings, body=closer)) if closer else quick
    for stage in (quick, exact, stick, correct):
        stage.open(context)
    weapon_hand = make_hand(settings.hand, Runtime("onnxruntime", 1))

    def look(image: np.ndarray, name: str, held: bool) -> Seen:
        frames.image = image
        height, width = image.shape[:2]
        body = exact if held else quick
        # In a video the detector looks where the person was in the frame before: so the second look counts.
        still = held
        for number in range(2):
            packet = ArnisPacket(
                stream=name, sequence=number, pts=number / 30, captured_at_ns=0, gate=GateDecision(still=still),
                frame=FrameRef("", 0, 0, width, height),
            )  # fmt: skip
            packet = stick.process(body.process(packet))
            # A stick that is missed is looked for elsewhere in the next frames of a video; here there is one.
            still = held or packet.stick is None
        if packet.stick is not None:
            # One picture has one vote, however often it was looked at.
            packet.stick.hand = hand_in_picture(weapon_hand.rightness(keypoints_of(packet)[0][None]))[0]
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


def _look_at(data: Table, all_held: bool, skip_bad: bool) -> tuple[Table, np.ndarray]:
    data = data if _look else data.as_held()
    crops = np.zeros((len(data), CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
    keypoints, hands, sizes = data.keypoints.copy(), [""] * len(data), data.sizes.copy()
    good = np.ones(len(data), bool)
    for i in range(len(data)):
        path = data.picture_path(i)
        image = None if skip_bad and is_cut_off(path) else data.read_picture(i)
        if image is None:
            if not skip_bad:
                wrong = "is no picture; replace it" if path.is_file() else "is not there; bring it back"
                raise UserError(f"{data.rows[i]}: {path} {wrong} or delete the row")
            good[i] = False
            continue
        name = str(data.pictures[i])
        held = all_held or is_of_a_hold(name)
        keypoints[i], hands[i] = _look(image, name, held) if _look else true_keypoints(data, i)
        sizes[i] = image.shape[1::-1]
        crop = hand_crop(image, keypoints[i], "left" if hands[i] == "left" else "right")
        if crop is not None:
            crops[i] = crop
    keypoints[~(keypoints[..., 2] > 0)] = 0
    seen = replace(data, keypoints=keypoints, hands=np.array(hands, dtype=str), true_hands=data.true_hands, sizes=sizes)
    return seen.select(good), crops[good]
