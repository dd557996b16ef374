"""The one table that training reads: a picture, its class, who is in it, and its 19 keypoints.

The file is a CSV with a head: `image_path, label, kp0_x, kp0_y, kp0_conf, ... kp18_conf` and, where known, `label_name,
group, view, width, height, grip_hand, true_hand, split`, in any order. `label` is a class's name or its number in the
class file; `label_name` overrules it. An empty cell, `nan` and confidence 0 mean missing. A file with `kp0` to `kp34`
holds MediaPipe's 33 landmarks, grip and tip (`BLAZE35`), of which the 19 are taken.

Coordinates are pixels, or 0..1 of the picture where half of a row's are no larger than 1.5 (points may lie outside
the picture): these are scaled by `width` and `height` or, without those, by the picture's own size. Where that is
unknown too they stay as they are, as if the picture were square, and the row's size is 0 x 0.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.errors import UserError
from stages.detect import DetectSettings, hand_in_picture, make_hand
from stages.detectors import Runtime
from stages.graph import mirror_keypoints
from stages.packets import HANDS
from stages.skeleton import BLAZE35, COCO19, GRIP
from training.data.cells import (
    KEYPOINT_COLUMNS,
    TEXT_COLUMNS,
    class_labels,
    keypoint_numbers,
    layout_of,
    picture_sizes,
    read_cells,
)
from training.data.pictures import picture_size
from training.files import whole_file

__all__ = [
    "COLUMNS", "KEYPOINT_COLUMNS", "OTHER_SIDE", "Table", "append_table", "is_relative", "make_table",
    "mirrored_views", "read_table", "write_table", "written_rows",
]  # fmt: skip

COLUMNS = (*TEXT_COLUMNS, *KEYPOINT_COLUMNS)
"""Those of a written file."""
SPLIT_NAMES = ("train", "val", "test")
FEWEST_PEOPLE = 3
"""One for each part of a split."""
OTHER_SIDE = {"left": "right", "right": "left"}
"""What a hand, and the side from which somebody is seen, is called in the mirror."""
_COLUMN_OF = {"groups": "group", "views": "view", "hands": "grip_hand", "true_hands": "true_hand", "splits": "split"}
_LARGEST_RELATIVE = 1.5
_RENDER = re.compile(r"images/(s\d+p\d{4,})_\d{2,}\.jpg$")
"""How `training.synth.write` names its pictures; the group is the person."""


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
    guessed: np.ndarray
    """bool (N,): that is only guessed, from the picture's name."""
    label_guessed: np.ndarray
    """bool (N,): so is the class."""
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
    known: np.ndarray
    """bool (N, 19): the keypoints of which the row's file speaks: one that is missing there is not in the picture."""
    landmarks: np.ndarray
    """float32 (N, 35, 3): all points of BLAZE35 where the file has them, else (N, 0, 3)."""
    rows: np.ndarray
    """str (N,): what messages call a sample, `people.csv row 2`: the row of a spreadsheet, whose first is the head."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: np.ndarray | slice) -> Table:
        """The samples at the indices or where the mask says."""
        parts: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        return replace(self, **parts)

    @staticmethod
    def joined(tables: Sequence[Table]) -> Table:
        """One after the other, all of one folder."""
        if len({table.landmarks.shape[1] for table in tables}) > 1:
            tables = [table.with_landmarks() for table in tables]
        parts: dict[str, Any] = {n: np.concatenate([getattr(table, n) for table in tables]) for n in _ARRAYS}
        return replace(tables[0], **parts)

    def with_landmarks(self) -> Table:
        """The same table with the 19 keypoints put into their places among the 35 landmarks."""
        known = self.landmarks.shape[1] > 0
        landmarks = self.landmarks.copy() if known else np.zeros((len(self), BLAZE35.count, 3), np.float32)
        landmarks[:, BLAZE35.coco] = self.keypoints
        return replace(self, landmarks=landmarks)

    def picture_path(self, index: int) -> Path:
        """The picture's file, which need not exist."""
        return self.folder / str(self.pictures[index])

    def called(self, index: int) -> str:
        """What messages call a row, and its picture."""
        row, picture = str(self.rows[index]), str(self.pictures[index])
        return row if picture in row else f"{row} ({picture})"

    def read_picture(self, index: int, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
        """The picture as OpenCV reads it; None when there is none."""
        path = self.picture_path(index)
        return cv2.imread(os.fspath(path), flags) if self.pictures[index] and path.is_file() else None

    def in_folder(self, folder: Path) -> Table:
        """The same table with its pictures named from another folder."""
        if self.folder.resolve() == folder.resolve():
            return self
        start = folder.resolve()
        names = [os.path.relpath((self.folder / n).resolve(), start) if n else "" for n in self.pictures.tolist()]
        posix = [Path(name).as_posix() if name else "" for name in names]
        return replace(self, folder=folder, pictures=np.array(posix, dtype=str))

    def as_held(self) -> Table:
        """The same table with the hand that really holds each stick for the one that seems to: what `true_hands` says,
        else `hands`, else the keypoints. For labels; what detectors saw keeps their mistakes, as a classifier meets."""
        told = np.where(self.true_hands == "", self.hands, self.true_hands)
        return replace(self, hands=_told(told, self.keypoints))

    def left_handed(self) -> np.ndarray:
        """bool (N,): to be mirrored, because the stick is in the left hand, as `hands` says or, where it is silent, the
        whole body with its grip. Where neither tells, nothing is mirrored, as in serving."""
        return _told(self.hands, self.keypoints) == "left"

    def canonical(self) -> np.ndarray:
        """float32 (N, 19, 3): the keypoints with the weapon hand on the right; left-handers are mirrored (x = -x)."""
        keypoints, left = self.keypoints.copy(), self.left_handed()
        keypoints[left] = mirror_keypoints(keypoints[left])
        return keypoints

    def canonical_views(self) -> np.ndarray:
        """str (N,): from which side the people of `canonical` are seen; a left-hander's left is there the right."""
        return mirrored_views(self.views, self.left_handed())

    def is_rendered(self) -> bool:
        """Whether `arnis-train synth` drew every picture."""
        found = (_RENDER.search(name) for name in self.pictures.tolist())
        pairs = zip(found, self.groups.tolist(), strict=True)
        return len(self) > 0 and all(match and match[1] == group for match, group in pairs)

    def label_indices(self, names: Sequence[str]) -> np.ndarray:
        """int64 (N,): places of the classes in `names`; raises UserError for a class that is not there."""
        unknown = np.flatnonzero(~np.isin(self.labels, names))
        if len(unknown):
            row, label = self.rows[unknown[0]], str(self.labels[unknown[0]])
            if not label:
                raise UserError(f"{row}: the label is empty; write the name of its class there")
            raise UserError(f"{row}: class {label!r} is not in the class file; correct the row or give --classes")
        places = {name: place for place, name in enumerate(names)}
        return np.array([places[label] for label in self.labels.tolist()], np.int64)


_ARRAYS = [field.name for field in fields(Table) if field.name != "folder"]


def _told(hands: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """str (N,): `hands`, and where they are empty what the program makes of such a picture; empty without a grip."""
    untold = (hands == "") & (keypoints[:, GRIP, 2] > 0)
    told = hands.astype("<U5")
    if untold.any():
        network = make_hand(DetectSettings().hand, Runtime("onnxruntime", 1))
        told[untold] = hand_in_picture(network.rightness(keypoints[untold]))
    return told


def mirrored_views(views: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Views (N,) of pictures of which those that the mask says are mirrored: left for right; others stay."""
    return np.where(chosen, [OTHER_SIDE.get(view, view) for view in views.tolist()], views)


def make_table(
    folder: Path,
    pictures: Sequence[str],
    labels: Sequence[str],
    sizes: np.ndarray,
    keypoints: np.ndarray,
    rows: Sequence[str],
    landmarks: np.ndarray | None = None,
    guessed: Sequence[bool] | None = None,
    label_guessed: Sequence[bool] | None = None,
    known: np.ndarray | None = None,
    **texts: Sequence[str],
) -> Table:
    """A table of parts as Table describes them; of `groups, views, hands, true_hands, splits` any may be left out.
    Without `known`, those keypoints are that any row has."""
    count = len(labels)
    given = {name: np.array(values, dtype=str).reshape(count) for name, values in texts.items()}
    empty = np.full(count, "")
    hands = given.get("hands", empty)
    cleaned = _cleaned(keypoints, COCO19.count)
    known = np.broadcast_to((cleaned[..., 2] > 0).any(0), cleaned.shape[:2]) if known is None else known
    table = Table(
        folder=folder, pictures=np.array(pictures, dtype=str).reshape(count),
        labels=np.array(labels, dtype=str).reshape(count), groups=given.get("groups", empty),
        guessed=np.zeros(count, bool) if guessed is None else np.array(guessed, bool).reshape(count),
        label_guessed=np.array(np.zeros(count) if label_guessed is None else label_guessed, bool).reshape(count),
        views=given.get("views", empty), hands=hands, true_hands=given.get("true_hands", hands),
        splits=given.get("splits", empty), sizes=np.asarray(sizes, np.int32).reshape(count, 2),
        keypoints=cleaned, known=np.array(known, bool).reshape(count, COCO19.count),
        landmarks=np.zeros((count, 0, 3), np.float32) if landmarks is None else _cleaned(landmarks, BLAZE35.count),
        rows=np.array(rows, dtype=str).reshape(count),
    )  # fmt: skip
    _check_words(table)
    return table


def read_table(path: Path, names: Sequence[str]) -> Table:
    """Read a CSV file in the module's layout; numbers in `label` are places in `names`.

    Raises UserError, naming file and row, when the file or a column is missing, or a cell makes no sense.
    """
    head, cells = read_cells(path)
    where = [f"{path.name} row {number}" for number in range(2, len(cells) + 2)]
    columns = {name: [row[place] for row in cells] for place, name in enumerate(head)}
    layout = layout_of(head)
    points = keypoint_numbers(columns, layout.count, where)
    texts = {field: columns[name] for field, name in _COLUMN_OF.items() if name in columns}
    table = make_table(
        path.parent, columns["image_path"], class_labels(columns, names, where), picture_sizes(columns, where),
        points[:, layout.coco], where, points if layout is BLAZE35 else None, **texts,
    )  # fmt: skip
    return in_pixels(table)


def is_relative(keypoints: np.ndarray) -> np.ndarray:
    """bool (N,): keypoints (N, 19, 3) that are 0..1 of the picture. Judged by the median: one point far outside says
    nothing, and 0 is what some programs write for a point that they lack."""
    distances = (np.abs(row[row[:, 2] > 0, :2]) for row in keypoints)
    placed = [values[values > 0] for values in distances]
    return np.array([len(values) > 0 and np.median(values) <= _LARGEST_RELATIVE for values in placed], bool)


def in_pixels(table: Table) -> Table:
    """The table with coordinates of 0..1 scaled to pixels where the size is known; others are left alone."""
    relative, sizes = is_relative(table.keypoints), table.sizes.copy()
    for i in np.flatnonzero(relative & (sizes <= 0).any(1)).tolist():
        sizes[i] = picture_size(table.picture_path(i)) if table.pictures[i] else 0
    keypoints, landmarks = table.keypoints.copy(), table.landmarks.copy()
    scaled = relative & (sizes > 0).all(1)
    for points in (keypoints, landmarks):
        points[scaled, :, :2] *= sizes[scaled, None]
    return replace(table, keypoints=keypoints, landmarks=landmarks, sizes=sizes)


def write_table(table: Table, path: Path, names: Sequence[str]) -> None:
    """Write all columns with the 19 keypoints, pictures named from the file's folder.

    `label` is the class's place in `names`, or its name when it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        append_table(table, part, names)


def append_table(table: Table, path: Path, names: Sequence[str]) -> None:
    """Add rows to a table that is written bit by bit; the head comes with the first."""
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if not stream.tell():
            writer.writerow(COLUMNS)
        writer.writerows(written_rows(table, path.parent, names))


def written_rows(table: Table, folder: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """The cells, in the order of COLUMNS, of a file in that folder."""
    table = table.in_folder(folder)
    return (_row(table, i, names) for i in range(len(table)))


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


def _cleaned(keypoints: np.ndarray, count: int) -> np.ndarray:
    """float32 (N, count, 3) with (0, 0, 0) for points that have no place."""
    keypoints = np.array(keypoints, np.float32).reshape(-1, count, 3)
    keypoints[~np.isfinite(keypoints).all(-1)] = 0
    return keypoints


def _check_words(table: Table) -> None:
    """Raises UserError for a hand or a split that there is not."""
    for name, values, allowed in (
        ("grip_hand", table.hands, HANDS), ("true_hand", table.true_hands, HANDS), ("split", table.splits, SPLIT_NAMES)
    ):  # fmt: skip
        wrong = np.flatnonzero((values != "") & ~np.isin(values, allowed))
        if len(wrong):
            raise UserError(f"{table.rows[wrong[0]]}: {name} is {str(values[wrong[0]])!r}; allowed: "
                            f"{', '.join(allowed)}, or nothing")  # fmt: skip
