"""Reads pose data sets in the layout of ultralytics: `data.yaml`, pictures, and one text file of labels a picture.

Keypoints are those of the body (17), of the stick (2: grip, tip) or of both (19), which `kpt_shape` tells. The class of
the table is the label's own class when `names` are poses, else what the picture's path names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from engine.errors import UserError
from stages.skeleton import BODY_COUNT, GRIP, NODE_COUNT
from training.data.pictures import as_class_name, class_and_group, list_pictures, picture_size
from training.data.table import SPLIT_NAMES, Table, make_table

NODES = {BODY_COUNT: slice(0, BODY_COUNT), NODE_COUNT - BODY_COUNT: slice(GRIP, NODE_COUNT), NODE_COUNT: slice(None)}
"""Where so many keypoints of a label have their places among the 19."""
VISIBILITY = np.array([0.0, 0.5, 1.0], np.float32)
"""Confidence of COCO's flags: 0 not labelled, 1 hidden, 2 visible."""
_VISIBLE = 0.5
"""Above it a point counts as visible, from there down to 0 as hidden."""


@dataclass(frozen=True)
class _DataSet:
    file: Path
    root: Path
    shape: tuple[int, int]
    names: dict[int, str]
    splits: dict[str, list[str]]


def flags_of(confidence: np.ndarray) -> np.ndarray:
    """COCO's flags of confidences."""
    return np.where(confidence > _VISIBLE, 2, np.where(confidence > 0, 1, 0))


def confidence_of(flags: np.ndarray) -> np.ndarray:
    """Confidences of COCO's flags; programs that label write a score there, which is kept where it lies between 0 and
    1."""
    scores = (flags > 0) & (flags < 1)
    confidence: np.ndarray = np.where(scores, flags, VISIBILITY[np.clip(flags, 0, 2).astype(int)])
    return confidence


def read_ultralytics(path: Path, names: Sequence[str]) -> Table:
    """Read a `data.yaml` or its folder; pictures without a label have no keypoints, of several people the largest
    counts.

    `names` are those of the classes. Raises UserError when file or line make no sense; the sentence says which.
    """
    data = _read_yaml(path)
    pictures: dict[Path, str] = {}
    for split, entries in data.splits.items():
        for entry in entries:
            pictures.update(dict.fromkeys(_pictures_of(data, entry), split))
    if not pictures:
        raise UserError(f"{data.file}: there is no picture in train, val or test; correct the folders that it names")
    parts = [_read_picture(data, picture, names) for picture in pictures]
    labels, groups, sizes, keypoints, guessed = zip(*parts, strict=True)
    known = np.zeros((len(pictures), NODE_COUNT), bool)
    known[:, NODES[data.shape[0]]] = True
    relative = [Path(os.path.relpath(p, data.root)).as_posix() for p in pictures]
    return make_table(
        data.root, relative, labels, np.array(sizes), np.array(keypoints), [f"picture {name}" for name in relative],
        groups=groups, guessed=[True] * len(pictures), label_guessed=guessed, known=known,
        splits=list(pictures.values()),
    )  # fmt: skip


def _read_yaml(path: Path) -> _DataSet:
    file = path / "data.yaml" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file} does not exist; give the data.yaml of a pose data set")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        count, parts = (int(number) for number in content["kpt_shape"])
        found = content["names"]
        names = {int(k): str(v) for k, v in (enumerate(found) if isinstance(found, list) else found.items())}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{file} is no pose data set; it must have names, kpt_shape: [17, 3], train and val") from None
    if count not in NODES or parts not in (2, 3):
        raise UserError(
            f"{file}: kpt_shape is [{count}, {parts}]; body 17, stick 2 or both 19, with 2 or 3 values each"
        )
    named = Path(str(content.get("path") or "."))
    root = named if named.is_absolute() else file.parent / named
    splits = {
        split: [str(entry) for entry in (entries if isinstance(entries, list) else [entries])]
        for split in SPLIT_NAMES
        if (entries := content.get(split))
    }
    # The path in the file is often that of another machine.
    return _DataSet(file, root if root.is_dir() else file.parent, (count, parts), names, splits)


def _pictures_of(data: _DataSet, entry: str) -> list[Path]:
    """Pictures of a folder, or those that a text file lists."""
    place = data.root / entry
    # Roboflow writes ../train/images for a folder that lies beside the file.
    if not place.exists() and entry.startswith("../"):
        place = data.file.parent / entry[3:]
    if place.is_dir():
        return list_pictures(place)
    if not place.is_file():
        raise UserError(f"{data.file} names {entry}, which does not exist; correct the line")
    lines = (line.strip() for line in _lines(place))
    return [(place.parent if line.startswith("./") else data.root) / line for line in lines if line]


def _read_picture(
    data: _DataSet, picture: Path, names: Sequence[str]
) -> tuple[str, str, tuple[int, int], np.ndarray, bool]:
    """Class, group, size and keypoints (19, 3) of one picture, and whether the class is only told from its path."""
    size = picture_size(picture)
    if not size[0]:
        raise UserError(f"picture {picture} cannot be read; replace it or take it out of {data.file}")
    label, group = class_and_group(os.path.relpath(picture, data.root), names)
    keypoints = np.zeros((NODE_COUNT, 3), np.float32)
    number, points = _largest(label_file(picture), data)
    guessed = True
    if points is not None:
        keypoints[NODES[data.shape[0]]] = points
        keypoints[:, :2] *= size
        own = as_class_name(data.names[number])
        # A data set of persons or sticks has one class, which is no pose.
        guessed = own not in names
        label = label or ("" if len(data.names) == 1 else own) if guessed else own
    return label, group, size, keypoints, guessed


def label_file(picture: Path) -> Path:
    """ultralytics' rule: the last folder `images` becomes `labels`, the suffix .txt."""
    head, found, tail = picture.as_posix().rpartition("/images/")
    return Path(f"{head}/labels/{tail}" if found else picture).with_suffix(".txt")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file} is no text (UTF-8); write it anew, or delete it") from None


def _largest(file: Path, data: _DataSet) -> tuple[int, np.ndarray | None]:
    """Class and points (K, 3), in 0..1 with confidence, of the label with the largest box; None without any."""
    best: tuple[float, int, np.ndarray | None] = (-1.0, 0, None)
    count, parts = data.shape
    lines = _lines(file) if file.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = np.array(line.split(), dtype=np.float32)
        except ValueError:
            values = np.zeros(0, np.float32)
        known = len(values) == 5 + count * parts and np.isfinite(values[0]) and int(values[0]) in data.names
        if not known or (parts == 3 and np.isnan(values[7::3]).any()):
            wanted = f"a class of {data.file.name}, a box and {count} x {parts} numbers"
            raise UserError(f"{file} line {number} is not {wanted}; correct or delete the line")
        area = float(values[3] * values[4])
        if area > best[0]:
            best = (area, int(values[0]), _with_confidence(values[5:].reshape(count, parts)))
    return best[1], best[2]


def _with_confidence(points: np.ndarray) -> np.ndarray:
    """(K, 3) of points (K, 2), of which (0, 0) is missing, or (K, 3) with COCO's flags or scores."""
    flags = points[:, 2] if points.shape[1] == 3 else 2 * points.any(1)
    confidence = confidence_of(flags)
    placed: np.ndarray = np.where(confidence[:, None] > 0, np.column_stack([points[:, :2], confidence]), 0)
    return placed
