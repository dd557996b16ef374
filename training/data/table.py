"""The one table that training reads: a picture, its class, who is in it, and its 19 keypoints.

The file is a CSV with a head: `image_path, label, kp0_x, kp0_y, kp0_conf, ... kp18_conf` and, where known, `label_name,
group, view, width, height, grip_hand, true_hand, split`, in any order. `label` is a class's name or its number in the
class file; `label_name` overrules it. An empty cell, `nan` and confidence 0 mean missing.

Coordinates are pixels, or 0..1 of the picture: when none in the whole file is above 1.5 (points may lie a little
outside the picture), they are 0..1 and are scaled by `width` and `height` or, without those, by the picture's own
size. Where that is unknown too they stay as they are, as if the picture were square, and the table's size is 0 x 0.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np

from engine.errors import UserError
from stages.classes import load_classes
from stages.graph import weapon_hand
from stages.skeleton import GRIP, NODE_COUNT

KEYPOINT_COLUMNS = [f"kp{node}_{part}" for node in range(NODE_COUNT) for part in ("x", "y", "conf")]
COLUMNS = [
    "image_path", "label", "label_name", "group", "view", "width", "height", "grip_hand", "true_hand", "split",
    *KEYPOINT_COLUMNS,
]  # fmt: skip
"""The head of a table that is written here."""

HANDS = ("left", "right", "")
SPLITS = ("train", "val", "test", "")
_REQUIRED = ["image_path", "label", *KEYPOINT_COLUMNS]
_LARGEST_RELATIVE = 1.5


@dataclass(frozen=True)
class Table:
    """N samples; text is in arrays of str (N,), empty where unknown."""

    folder: Path
    """Where relative names of pictures start."""
    pictures: np.ndarray
    """str (N,): names of the pictures as written; empty for keypoints without a picture."""
    labels: np.ndarray
    """str (N,): names of the classes."""
    groups: np.ndarray
    """str (N,): the person or recording; none may be on two sides of a split."""
    views: np.ndarray
    hands: np.ndarray
    """str (N,): the hand that seems to hold the stick: left, right or empty."""
    true_hands: np.ndarray
    """str (N,): the hand that really holds it; as `hands` where the file has no such column."""
    splits: np.ndarray
    """str (N,): train, val, test or empty."""
    sizes: np.ndarray
    """int32 (N, 2): width and height of the picture in pixels, 0 where unknown."""
    keypoints: np.ndarray
    """float32 (N, 19, 3): x and y in pixels, confidence 0..1, which is 0 where missing. A missing point is at (0, 0);
    one that lies outside the picture and is known all the same (renders) keeps its place."""
    rows: np.ndarray
    """str (N,): what messages call a sample, `people.csv row 2`: the row of a spreadsheet, whose first is the head."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: np.ndarray | slice) -> Table:
        """The samples at the indices or where the mask says."""
        names = [field.name for field in fields(self) if field.name != "folder"]
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def picture_path(self, index: int) -> Path:
        """The picture's file, which need not exist."""
        return self.folder / str(self.pictures[index])

    def left_handed(self) -> np.ndarray:
        """bool (N,): to be mirrored, because the stick is in the left hand, as the table says.

        Without a grip nothing is mirrored, as in serving. A table that names no hand at all is judged by its keypoints.
        """
        if (self.hands == "").all():
            return weapon_hand(self.keypoints)
        left: np.ndarray = (self.hands == "left") & self.keypoints[:, GRIP].any(-1)
        return left

    def label_indices(self, names: Sequence[str]) -> np.ndarray:
        """int64 (N,): places of the classes in `names`; raises UserError for a class that is not there."""
        unknown = np.flatnonzero(~np.isin(self.labels, names))
        if len(unknown):
            row, label = self.rows[unknown[0]], str(self.labels[unknown[0]])
            raise UserError(f"{row}: class {label!r} is not in the class file; correct the row or give --classes")
        places = {name: place for place, name in enumerate(names)}
        return np.array([places[label] for label in self.labels.tolist()], np.int64)


def make_table(
    folder: Path,
    pictures: Sequence[str],
    labels: Sequence[str],
    sizes: np.ndarray,
    keypoints: np.ndarray,
    rows: Sequence[str],
    **texts: Sequence[str],
) -> Table:
    """A table of parts as Table describes them; of `groups, views, hands, true_hands, splits` any may be left out."""
    count = len(labels)
    given = {name: np.array(values, dtype=str).reshape(count) for name, values in texts.items()}
    empty = np.full(count, "")
    hands = given.get("hands", empty)
    table = Table(
        folder=folder, pictures=np.array(pictures, dtype=str).reshape(count),
        labels=np.array(labels, dtype=str).reshape(count), groups=given.get("groups", empty),
        views=given.get("views", empty), hands=hands, true_hands=given.get("true_hands", hands),
        splits=given.get("splits", empty), sizes=np.asarray(sizes, np.int32).reshape(count, 2),
        keypoints=_cleaned(keypoints), rows=np.array(rows, dtype=str).reshape(count),
    )  # fmt: skip
    _check_words(table)
    return table


def read_table(path: Path, names: Sequence[str] | None = None) -> Table:
    """Read a CSV file in the module's layout; numbers in `label` are places in `names` (default: the class file).

    Raises UserError, naming file and row, when the file or a column is missing, or a cell makes no sense.
    """
    head, cells = _read_cells(path)
    where = [f"{path.name} row {number}" for number in range(2, len(cells) + 2)]
    columns = {name: [row[place] for row in cells] for place, name in enumerate(head)}
    keypoints = _numbers([[columns[name][i] for name in KEYPOINT_COLUMNS] for i in range(len(cells))], where)
    sizes = _sizes(columns, where)
    texts = {
        field: columns[name]
        for field, name in (
            ("groups", "group"), ("views", "view"), ("hands", "grip_hand"), ("true_hands", "true_hand"),
            ("splits", "split"),
        )
        if name in columns
    }  # fmt: skip
    labels = _labels(columns, names, where)
    table = make_table(path.parent, columns["image_path"], labels, sizes, keypoints, where, **texts)
    return in_pixels(table)


def in_pixels(table: Table) -> Table:
    """The table with coordinates of 0..1 scaled to pixels where the size is known; others are left alone."""
    points = table.keypoints[table.keypoints[..., 2] > 0]
    if not len(points) or points[:, :2].max() > _LARGEST_RELATIVE:
        return table
    sizes = table.sizes.copy()
    for i in np.flatnonzero((sizes <= 0).any(1)).tolist():
        picture = cv2.imread(os.fspath(table.picture_path(i))) if table.pictures[i] else None
        sizes[i] = picture.shape[1::-1] if picture is not None else 0
    keypoints = table.keypoints.copy()
    keypoints[..., :2] *= np.where(sizes > 0, sizes, 1)[:, None]
    return replace(table, keypoints=keypoints, sizes=sizes)


def write_table(table: Table, path: Path, names: Sequence[str]) -> None:
    """Write all columns; `label` is the class's place in `names`, or its name when it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nobody shall find half a table where a whole one was.
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    append_table(table, part, names)
    os.replace(part, path)


def append_table(table: Table, path: Path, names: Sequence[str]) -> None:
    """Add rows to a table that is written bit by bit; the head comes with the first."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if fresh:
            writer.writerow(COLUMNS)
        writer.writerows(_row(table, i, names) for i in range(len(table)))


def _row(table: Table, i: int, names: Sequence[str]) -> list[str]:
    label = str(table.labels[i])
    number = str(names.index(label)) if label in names else label
    size = [str(side) if side > 0 else "" for side in table.sizes[i].tolist()]
    texts = [str(table.hands[i]), str(table.true_hands[i]), str(table.splits[i])]
    points: list[str] = []
    for x, y, confidence in table.keypoints[i].tolist():
        missing = confidence == x == y == 0
        points += ["", "", ""] if missing else [f"{x:.7g}", f"{y:.7g}", f"{confidence:.4g}"]
    return [str(table.pictures[i]), number, label, str(table.groups[i]), str(table.views[i]), *size, *texts, *points]


def _read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Head and rows, all of the head's length and without empty lines at the end."""
    if not path.is_file():
        raise UserError(f"table {path} does not exist; make one with `arnis-train label` or `arnis-train synth`")
    try:
        # Spreadsheets put a byte order mark before the head.
        with path.open(newline="", encoding="utf-8-sig") as stream:
            head, *rows = list(csv.reader(stream)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"table {path} is not a CSV file in UTF-8 ({error}); save it as one") from None
    missing = [name for name in _REQUIRED if name not in head]
    if missing:
        raise UserError(f"table {path} lacks the column {missing[0]}; its head must name {_REQUIRED[0]}, label, kp0_x, "
                        f"kp0_y, kp0_conf, ... kp{NODE_COUNT - 1}_conf, separated by commas")  # fmt: skip
    while rows and not rows[-1]:
        rows.pop()
    if not rows:
        raise UserError(f"table {path} has a head and no rows; make it anew")
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise UserError(f"{path} row {number}: {len(row)} cells instead of {len(head)}; complete or delete the row")
    return head, rows


def _numbers(cells: list[list[str]], where: list[str]) -> np.ndarray:
    """float32 (N, 19, 3) of keypoint cells, NaN where empty."""
    filled = [[cell if cell.strip() else "nan" for cell in row] for row in cells]
    try:
        values = np.array(filled, dtype=np.float32)
    except ValueError:
        row, column, cell = next(
            (r, c, cell) for r, row in enumerate(filled) for c, cell in enumerate(row) if not _is_number(cell)
        )
        raise UserError(f"{where[row]}: {KEYPOINT_COLUMNS[column]} is {cell!r}; write a number or nothing") from None
    keypoints = values.reshape(-1, NODE_COUNT, 3)
    # A place without a confidence was put there by hand: it is sure.
    unsaid = np.isnan(keypoints[..., 2]) & np.isfinite(keypoints[..., :2]).all(-1)
    keypoints[unsaid, 2] = 1.0
    wrong = np.argwhere((keypoints[..., 2] < 0) | (keypoints[..., 2] > 1))
    if len(wrong):
        row, node = wrong[0]
        value = keypoints[row, node, 2]
        raise UserError(f"{where[row]}: kp{node}_conf is {value:g}; confidences go from 0 to 1")
    return keypoints


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cleaned(keypoints: np.ndarray) -> np.ndarray:
    """float32 (N, 19, 3) with (0, 0, 0) for points that have no place."""
    keypoints = np.array(keypoints, np.float32).reshape(-1, NODE_COUNT, 3)
    keypoints[~np.isfinite(keypoints).all(-1)] = 0
    return keypoints


def _sizes(columns: dict[str, list[str]], where: list[str]) -> np.ndarray:
    """int32 (N, 2), 0 where there is none."""
    sizes = np.zeros((len(where), 2), np.int32)
    for axis, name in enumerate(("width", "height")):
        for i, cell in enumerate(columns.get(name, [])):
            if cell and not (_is_number(cell) and 0 < float(cell) < 1e6):
                raise UserError(f"{where[i]}: {name} is {cell!r}; write the picture's size in pixels")
            sizes[i, axis] = round(float(cell)) if cell else 0
    return sizes


def _labels(columns: dict[str, list[str]], names: Sequence[str] | None, where: list[str]) -> list[str]:
    """Names of the classes; raises UserError where there is none."""
    written = columns.get("label_name", [""] * len(where))
    labels = [name or label for name, label in zip(written, columns["label"], strict=True)]
    if any(label.isdecimal() for label in labels):
        names = names or load_classes().names
    for i, label in enumerate(labels):
        if not label:
            raise UserError(f"{where[i]}: label is empty; write the name of a class")
        if label.isdecimal() and names:
            if int(label) >= len(names):
                raise UserError(f"{where[i]}: label is {label}, and the class file has 0 to {len(names) - 1}")
            labels[i] = names[int(label)]
    return labels


def _check_words(table: Table) -> None:
    """Raises UserError for a hand or a split that there is not."""
    words = (("grip_hand", table.hands, HANDS), ("true_hand", table.true_hands, HANDS), ("split", table.splits, SPLITS))
    for name, values, allowed in words:
        wrong = np.flatnonzero(~np.isin(values, allowed))
        if len(wrong):
            allowed_words = ", ".join(word for word in allowed if word)
            raise UserError(
                f"{table.rows[wrong[0]]}: {name} is {str(values[wrong[0]])!r}; allowed: {allowed_words}, or nothing"
            )
