"""What lies in a folder that `see` writes: how far it came, and whether it is of the same data set."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from engine.errors import UserError
from training.data.cells import whole_lines
from training.data.table import COLUMNS, KEYPOINT_COLUMNS, Table, written_rows
from training.files import whole_file

DETECTORS_FILE = "detectors.json"
"""Beside the table: whose eyes saw it."""
SHARD_ROWS = 256
"""Of which one file holds the crops."""
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


def done_rows(table: Path, crops: Path, wanted: int) -> int:
    """How many rows are there in full shards, or all that are wanted; anything half written is cut off."""
    if not table.exists():
        return 0
    lines, shards = whole_lines(table), sorted(crops.glob("[0-9]*.npy"))
    done = len(lines) - 1
    if done != wanted or len(shards) != -(-wanted // SHARD_ROWS):
        done = max(0, min(done // SHARD_ROWS, len(shards))) * SHARD_ROWS
    with whole_file(table) as part, part.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines[: 1 + done] if done else [])
    for file in shards[-(-done // SHARD_ROWS) :]:
        file.unlink()
    return done
