"""`arnis-train label`: pictures in folders named like the classes become a table, labelled by the shipped detectors.

    crown_thrust/anna/1.jpg, crown_thrust/ben_02.jpg, ...   (`training.data.pictures` tells how people are named)

What the detectors got wrong can be corrected in CVAT or Label Studio: `--out poses.json` writes COCO keypoints, and
`arnis-train convert corrected.json poses.csv --out poses.csv` takes the corrections in.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.errors import UserError
from engine.numbers import at_least
from stages.angles import VIEWS, view_of
from stages.classes import load_classes
from stages.packets import HANDS
from stages.skeleton import NODE_COUNT, TIP
from training.data.pictures import as_class_name, class_and_group, list_pictures, other_kinds
from training.data.readers import refuse_overwriting, write_any
from training.data.table import Table, make_table
from training.see import Detectors, add_detector_arguments, detectors_of, look_at

log = logging.getLogger(__name__)

_CLEAR_COUNT, _CLEAR_SHARE = 4, 0.75
_SHARD_ROWS = 16
"""Small, so that the bar moves and processes share the work."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `label`."""
    parser.add_argument("folder", type=Path, help="folder with a folder of pictures for each class")
    parser.add_argument("--out", type=Path, required=True, help="table to write: .csv, or .json for COCO keypoints")
    parser.add_argument("--classes", type=Path, help="your own class file (default: models/classes.toml)")
    add_detector_arguments(parser)
    parser.add_argument("--processes", type=at_least(1), default=1, help="processes (default 1)")


def run(args: argparse.Namespace) -> int:
    """Label the pictures and write the table, at Ctrl-C with those that were labelled by then; 0 on success."""
    names = load_classes(args.classes).names
    refuse_overwriting(args.out, ())
    pictures = pictures_of(args.folder, names)
    table, missing = label(pictures, detectors_of(args), args.processes)
    write_any(table, args.out, names)
    seen = (table.keypoints[..., 2] > 0).any(1)
    log.info(
        "%s: %d pictures, %d classes, %d people or recordings; nobody seen in %d, no stick in %d of the others; "
        "%d pictures skipped",
        args.out, len(table), len(set(table.labels)), len(set(table.groups) - {""}), int((~seen).sum()),
        int((seen & (table.keypoints[:, TIP, 2] == 0)).sum()), len(pictures) - missing - len(table),
    )  # fmt: skip
    if missing:
        log.warning("stopped: %d of %d pictures are missing; to have these too, delete %s and repeat the command",
                    missing, len(pictures), args.out)  # fmt: skip
        raise KeyboardInterrupt
    return 0


def pictures_of(folder: Path, names: Sequence[str]) -> Table:
    """The pictures with class and group and without keypoints; raises UserError when folders are not named so."""
    if not folder.is_dir():
        raise UserError(f"folder {folder} does not exist; give one that holds a folder of pictures for each class")
    pictures = [path.relative_to(folder) for path in list_pictures(folder)]
    others, kinds = other_kinds(folder), ".jpg, .png, .webp, .bmp or .tif"
    if not pictures:
        instead = f", only {others}; save them as JPEG" if others else "; put a folder of them for each class there"
        raise UserError(f"folder {folder} holds no {kinds} pictures{instead}")
    if others:
        log.warning("passed over in %s: %s; save those that are pictures as JPEG", folder, others)
    for picture in pictures:
        if len(picture.parts) < 2:
            raise UserError(f"{folder / picture} lies in no class's folder; move it into one, such as {names[0]}")
        if as_class_name(picture.parts[0]) not in names:
            place = folder / picture.parts[0]
            raise UserError(f"folder {place} is no class; rename it, or give your class file with --classes")
    files = [picture.as_posix() for picture in pictures]
    labels, groups = zip(*(class_and_group(file, names) for file in files), strict=True)
    empty = np.zeros((len(files), NODE_COUNT, 3), np.float32)
    sizes = np.zeros((len(files), 2), np.int32)
    return make_table(folder, files, labels, sizes, empty, [f"picture {file}" for file in files], groups=groups)


def label(pictures: Table, detectors: Detectors, processes: int = 1) -> tuple[Table, int]:
    """The table with keypoints, hands and views as the detectors see them, without pictures that are none, and how many
    are missing since Ctrl-C came before them; raises UserError when none is left."""
    parts: list[Table] = []
    missing = 0
    try:
        for part, _ in look_at(pictures, detectors, processes, _SHARD_ROWS, all_held=True, skip_bad=True):
            parts.append(part)
    except KeyboardInterrupt:
        if not any(map(len, parts)):
            raise
        missing = max(0, len(pictures) - len(parts) * _SHARD_ROWS)
    seen = Table.joined(parts)
    looked_at = pictures.pictures[: len(pictures) - missing]
    for i in np.flatnonzero(~np.isin(looked_at, seen.pictures)).tolist():
        log.warning("skipped: %s is no picture or cut off; replace it and label it into another table, for `convert`",
                    pictures.picture_path(i))  # fmt: skip
    if not len(seen):
        raise UserError(f"none of the pictures in {pictures.folder} can be read; replace them")
    views = np.array([*VIEWS, ""])[view_of(seen.keypoints)]
    told = detectors.hand in HANDS
    hands = np.full(len(seen), detectors.hand) if told else usual_hands(seen.hands, seen.groups)
    return replace(seen, views=views, hands=hands, true_hands=hands), missing


def usual_hands(hands: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """str (N,): the hand in which most pictures of a person show the stick, also where none is seen: it may be labelled
    there by hand. As seen where that is not clear.

    Nobody changes hands between pictures as often as a detector mistakes wrists that lie side by side.
    """
    usual = hands.copy()
    for group in np.unique(groups[groups != ""]):
        own = groups == group
        seen = hands[own & (hands != "")]
        left = float((seen == "left").mean()) if len(seen) else 0.5
        if len(seen) >= _CLEAR_COUNT and abs(left - 0.5) >= _CLEAR_SHARE - 0.5:
            usual[own] = "left" if left > 0.5 else "right"
    return usual
