"""What lies in a folder that `see` writes: how far it came, and whether it is of the same data set."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from engine.errors import UserError
from training.data.cells import whole_lines
from training.data.table import COLUMNS, KEYPOINT_COLUMNS, Table, written_rows
from training.files import whole_file
from training.notes import read_note

DETECTORS_FILE = "detectors.json"
"""Beside the table: whose eyes saw it."""
SHARD_ROWS = 32
"""Whose crops go into one file: what a run that is stopped has to look at again, for each of its processes."""
_TAKEN_OVER = ("image_path", "label_name", "group", "view", "true_hand", "split")


def refuse_another_table(file: Path, data: Table, names: Sequence[str], with_keypoints: bool) -> None:
    """Raises UserError when the rows of a folder's table are not the first of the data; keypoints count only where
    they were not seen but taken over."""
    if not file.is_file():
        return
    head, *lines = whole_lines(file) or [[]]
    mend = "delete the folder, or choose another --out"
    if len(lines) > len(data):
        raise UserError(f"{file.parent} holds {len(lines)} pictures, and now it is to hold {len(data)}; {mend}")
    columns = [*_TAKEN_OVER, *(KEYPOINT_COLUMNS if with_keypoints else ())]
    rows = written_rows(data.select(slice(len(lines))), file.parent, names)
    for number, (line, row) in enumerate(zip(lines, rows, strict=True)):
        was, asked = dict(zip(head, line, strict=False)), dict(zip(COLUMNS, row, strict=True))
        changed = next((name for name in columns if was.get(name, "") != asked[name]), None)
        if changed:
            raise UserError(
                f"{file.parent} was begun with another table: {changed} of {data.pictures[number]} was "
                f"{was.get(changed, '')!r} and is {asked[changed]!r} now; {mend}"
            )


class _Begun(msgspec.Struct):
    pictures: int = 0


def refuse_unfinished(folder: Path, count: int) -> None:
    """Raises UserError when a folder with `count` rows was to have more."""
    wanted = read_note(folder / DETECTORS_FILE, _Begun, "let `see` write the folder anew").pictures
    if count < wanted:
        raise UserError(f"{folder} has {count} of {wanted} pictures, as `see` was stopped; repeat its command")


def done_rows(table: Path, crops: Path) -> tuple[int, int]:
    """How many rows are there with their crops, and in how many files these are; anything half written is cut off."""
    lines, files = whole_lines(table) if table.exists() else [], sorted(crops.glob("[0-9]*.npy"))
    ends = [0]
    for file in files:
        rows = _rows_of(file)
        if not rows or ends[-1] + rows > len(lines) - 1:
            break
        ends.append(ends[-1] + rows)
    done, whole = ends[-1], len(ends) - 1
    with whole_file(table) as part, part.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines[: 1 + done] if done else [])
    for file in files[whole:]:
        file.unlink()
    return done, whole


def _rows_of(file: Path) -> int:
    """Of a file of crops; 0 of one that was cut off."""
    try:
        return len(np.load(file, mmap_mode="r"))
    except (ValueError, EOFError):
        return 0
