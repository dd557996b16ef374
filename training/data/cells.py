"""Cells of a CSV table to numbers and words, and what is wrong with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import UserError
from stages.skeleton import BLAZE35, COCO19, NODE_COUNT, Layout

TEXT_COLUMNS = (
    "image_path", "label", "label_name", "group", "view", "width", "height", "grip_hand", "true_hand", "split",
)  # fmt: skip


def keypoint_columns(count: int) -> list[str]:
    """Names of the columns of so many keypoints."""
    return [f"kp{node}_{part}" for node in range(count) for part in ("x", "y", "conf")]


KEYPOINT_COLUMNS = keypoint_columns(NODE_COUNT)
_REQUIRED = ["image_path", "label", *KEYPOINT_COLUMNS]


def whole_lines(path: Path) -> list[list[str]]:
    """Cells of all lines, head included, of a CSV file that is written bit by bit; without a last one that was cut off
    when its writer was killed."""
    with path.open(newline="", encoding="utf-8") as stream:
        text = stream.read()
    return list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))


def layout_of(head: Sequence[str]) -> Layout:
    """BLAZE35 when the head names its 35 keypoints, else COCO19."""
    return BLAZE35 if f"kp{BLAZE35.count - 1}_conf" in head else COCO19


def read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Head and rows, all of the head's length and without empty lines at the end; spaces around a cell, which nobody
    sees, don't count, but in names of pictures, which may have them."""
    if not path.is_file():
        raise UserError(f"table {path} does not exist; make one with `arnis-train label` or `arnis-train synth`")
    try:
        # Spreadsheets put a byte order mark before the head.
        with path.open(newline="", encoding="utf-8-sig") as stream:
            head, *rows = list(csv.reader(stream)) or [[]]
        head = [name.strip() for name in head]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"table {path} is not a CSV file in UTF-8 ({error}); save it as one") from None
    if len(head) == 1 and ";" in head[0]:
        raise UserError(
            f"table {path} has semicolons between its columns, as spreadsheets write it where a number has a comma; "
            "save it with commas between columns and points in numbers"
        )
    if head[:1] and (head[0].startswith("sep=") or "\t" in head[0]):
        raise UserError(
            f"table {path} has tabs between its columns, or a line `sep=` before their names; save it with commas and "
            "with the names first"
        )
    missing = [name for name in (*_REQUIRED, *keypoint_columns(layout_of(head).count)) if name not in head]
    if missing:
        raise UserError(
            f"table {path} lacks the column {missing[0]}; its head must name image_path, label, kp0_x, kp0_y, "
            f"kp0_conf, ... {_REQUIRED[-1]}, separated by commas"
        )
    while rows and not rows[-1]:
        rows.pop()
    if not rows:
        raise UserError(f"table {path} has a head and no rows; make it anew")
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise UserError(
                f"{path.name} row {number}: {len(row)} cells instead of {len(head)}; complete or delete the row"
            )
    picture = head.index("image_path")
    return head, [[cell if place == picture else cell.strip() for place, cell in enumerate(row)] for row in rows]


def keypoint_numbers(columns: dict[str, list[str]], count: int, where: list[str]) -> np.ndarray:
    """float32 (N, count, 3) of the keypoints' cells, NaN where empty."""
    names = keypoint_columns(count)
    filled = [[cell or "nan" for cell in row] for row in zip(*map(columns.__getitem__, names), strict=True)]
    try:
        values = np.array(filled, dtype=np.float32)
    except ValueError:
        row, column, cell = next(
            (r, c, cell) for r, row in enumerate(filled) for c, cell in enumerate(row) if not _is_number(cell)
        )
        raise UserError(f"{where[row]}: {names[column]} is {cell!r}; write a number or nothing") from None
    for row, column in np.argwhere(np.isinf(values))[:1]:
        raise UserError(f"{where[row]}: {names[column]} is {filled[row][column]!r}; write a number or nothing")
    keypoints = values.reshape(-1, count, 3)
    # A place without a confidence was put there by hand: it is sure.
    unsaid = np.isnan(keypoints[..., 2]) & np.isfinite(keypoints[..., :2]).all(-1)
    keypoints[unsaid, 2] = 1.0
    wrong = np.argwhere((keypoints[..., 2] < 0) | (keypoints[..., 2] > 1))
    if len(wrong):
        row, node = wrong[0]
        value = keypoints[row, node, 2]
        raise UserError(f"{where[row]}: kp{node}_conf is {value:g}; confidences go from 0 to 1")
    return keypoints


def picture_sizes(columns: dict[str, list[str]], where: list[str]) -> np.ndarray:
    """int32 (N, 2), 0 where there is none."""
    sizes = np.zeros((len(where), 2), np.int32)
    for axis, name in enumerate(("width", "height")):
        for i, cell in enumerate(columns.get(name, [])):
            if cell and not (_is_number(cell) and 0 < float(cell) < 1e6):
                raise UserError(f"{where[i]}: {name} is {cell!r}; write the picture's size in pixels")
            sizes[i, axis] = round(float(cell)) if cell else 0
    return sizes


def class_labels(columns: dict[str, list[str]], names: Sequence[str], where: list[str]) -> list[str]:
    """Names of the classes, empty where none is given; raises UserError for a number that the class file lacks, or that
    stands for two names."""
    written = columns.get("label_name", [""] * len(where))
    labels = [name or label for name, label in zip(written, columns["label"], strict=True)]
    _refuse_contradictions(columns["label"], written, where)
    for i, label in enumerate(labels):
        if label.isdecimal():
            if int(label) >= len(names):
                raise UserError(f"{where[i]}: label is {label}, and the class file has 0 to {len(names) - 1}")
            labels[i] = names[int(label)]
    return labels


def _refuse_contradictions(numbers: Sequence[str], written: Sequence[str], where: Sequence[str]) -> None:
    """Which class file the numbers are of is not known; a number of two names, or the reverse, is a mistake in any."""
    known: dict[str, tuple[str, str, str]] = {}
    for number, name, row in zip(numbers, written, where, strict=True):
        if not (name and number.isdecimal()):
            continue
        for key in (f"number {number}", f"name {name}"):
            other_number, other_name, other_row = known.setdefault(key, (number, name, row))
            if (other_number, other_name) != (number, name):
                raise UserError(f"{row}: label {number} is {name}, and in {other_row} label {other_number} is "
                                f"{other_name}; correct one of them")  # fmt: skip


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
