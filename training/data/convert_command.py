"""`arnis-train convert`: labelled keypoints from one form into another, and several of them into one.

Reads CSV tables, COCO keypoints JSON (as CVAT and Label Studio write it) and ultralytics pose folders. Several name the
same pictures: what the first knows overrules the others, so corrections come before the table that they correct.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from engine.errors import UserError
from stages.classes import load_classes
from training.data.merge import merged, picture_keys, untouched
from training.data.pictures import without_upload_prefix
from training.data.readers import read_any, refuse_overwriting, write_any
from training.data.table import Table

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `convert`."""
    parser.add_argument("tables", type=Path, nargs="+", help=".csv, .json, data.yaml, or a folder with one of them")
    parser.add_argument("--out", type=Path, required=True, help="table to write: .csv, or .json for COCO keypoints")
    parser.add_argument("--pictures", type=Path, help="folder from which the pictures' names start, if elsewhere")
    parser.add_argument("--classes", type=Path, help="your own class file (default: models/classes.toml)")


def run(args: argparse.Namespace) -> int:
    """Read, merge and write; 0 on success."""
    names = load_classes(args.classes).names
    refuse_overwriting(args.out, args.tables)
    tables = [read_any(path, names) for path in args.tables]
    first, last = (args.tables[place].suffix.lower() for place in (0, -1))
    if first == ".json" and last != ".json":
        _say_what_is_corrected(args.tables, tables)
    elif last == ".json" and first != ".json":
        log.warning("%s overrules %s; name corrections first, then the table that they correct", args.tables[0],
                    args.tables[-1])  # fmt: skip
    table = merged(tables)
    if args.pictures:
        if not args.pictures.is_dir():
            raise UserError(f"folder {args.pictures} does not exist; give the one from which the pictures' names start")
        table = replace(table, folder=args.pictures)
    write_any(table, args.out, names)
    there = sum(bool(name) and table.picture_path(i).is_file() for i, name in enumerate(table.pictures))
    log.info("%s: %d rows, %d of their pictures are there", args.out, len(table), there)
    return 0


def _say_what_is_corrected(paths: Sequence[Path], tables: Sequence[Table]) -> None:
    """Of an export whose corrections go into a table; raises UserError when its names are those of other pictures."""
    (first, *_), (export, *_) = paths, tables
    keys = picture_keys(tables)
    known = {key: (table, row) for table, own in zip(tables[1:], keys[1:], strict=True) for row, key in enumerate(own)}
    unknown = [row for row, key in enumerate(keys[0]) if key not in known]
    # Several unknown pictures of one name would become one row.
    if 2 * len(unknown) > len(export) or len({keys[0][row] for row in unknown}) < len(unknown):
        name = str(export.pictures[unknown[0]])
        file = without_upload_prefix(PurePath(name).name)
        pictures = tables[-1].pictures.tolist()
        like = next((known for known in pictures if PurePath(known).name == file), pictures[0])
        raise UserError(
            f"{first}: {len(unknown)} of its {len(export)} pictures are not in {paths[-1]}, which knows {like!r} and "
            f"no {name!r}; give them the names that were exported, or convert {first} alone if they are new pictures"
        )
    changed = [_is_corrected(export, row, *known[key]) for row, key in enumerate(keys[0]) if key in known]
    log.info("%s: %d rows corrected, %d as they were, %d pictures that the table does not know", first, sum(changed),
             len(changed) - sum(changed), len(unknown))  # fmt: skip


def _is_corrected(export: Table, row: int, table: Table, old: int) -> bool:
    """True when an export says anything else of a picture than the table."""
    if not untouched(export.keypoints[row], table.keypoints[old])[export.known[row]].all():
        return True
    # What is only guessed from an export's name overrules nothing.
    guessed = (("labels", export.label_guessed), ("groups", export.guessed))
    texts = ("hands", "true_hands", "splits", *(name for name, is_guess in guessed if not is_guess[row]))
    said = np.array([[getattr(export, name)[row], getattr(table, name)[old]] for name in texts])
    return bool(((said[:, 0] != said[:, 1]) & (said[:, 0] != "")).any())
