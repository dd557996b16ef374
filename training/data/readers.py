"""Any form of labelled keypoints into one table: CSV, COCO keypoints JSON, ultralytics pose folders, and mixtures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from engine.errors import UserError
from stages.skeleton import NODE_COUNT
from training.data.coco import read_coco, write_coco
from training.data.table import Table, read_table, write_table
from training.data.ultralytics import read_ultralytics


def read_any(path: Path, names: Sequence[str] | None = None) -> Table:
    """Read a .csv, .json or .yaml file, or a folder that holds a `table.csv`, a `data.yaml` or one .json file.

    `names`: names of the classes (default: the class file). Raises UserError when it is none of these.
    """
    file = _main_file(path) if path.is_dir() else path
    match file.suffix.lower():
        case ".json":
            return read_coco(file, names)
        case ".yaml" | ".yml":
            return read_ultralytics(file, names)
        case ".csv":
            return read_table(file, names)
    state = "is no table" if file.exists() else "does not exist"
    raise UserError(f"{file} {state}; give a .csv file, a COCO .json file, a data.yaml or a folder with one of them")


def _main_file(folder: Path) -> Path:
    for name in ("table.csv", "data.yaml"):
        if (folder / name).is_file():
            return folder / name
    found = [*folder.glob("*.json"), *folder.glob("annotations/*.json")]
    if len(found) == 1:
        return found[0]
    raise UserError(f"folder {folder} holds no table.csv, no data.yaml and not one .json file; if it holds pictures, "
                    "label them with `arnis-train label`")  # fmt: skip


def write_any(table: Table, path: Path, names: Sequence[str]) -> None:
    """Write a .csv table, or a .json file of COCO keypoints; raises UserError for anything else."""
    if path.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"{path}: the name must end in .csv or .json")
    if path.suffix.lower() == ".json":
        write_coco(table, path)
    else:
        write_table(table, path, names)


def read_all(paths: Sequence[Path], names: Sequence[str] | None = None) -> Table:
    """Read several tables of the same pictures, or of different ones, into one; see `merged`."""
    return merged([read_any(path, names) for path in paths])


def merged(tables: Sequence[Table]) -> Table:
    """One row a picture, in the order in which they come; what the first table knows overrules the later ones.

    A table knows a keypoint when it has it in any row: so a body's and a stick's data set complete each other, and a
    stick that was deleted in a corrected table is not put back by the old one. Rows without a picture are all kept.
    """
    if len(tables) == 1:
        return tables[0]
    joined = Table.joined([table.in_folder(tables[0].folder) for table in tables])
    source = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    known = np.array([(table.keypoints[..., 2] > 0).any(0) for table in tables])
    rows: dict[str, list[int]] = {}
    for i, key in enumerate(_keys(tables)):
        rows.setdefault(key or f"row {i}", []).append(i)
    return _first_known(joined, list(rows.values()), known[source])


def _first_known(joined: Table, rows: list[list[int]], known: np.ndarray) -> Table:
    """A row for each list of rows of one picture; `known` bool (N, 19) says which keypoints a row's table has."""
    firsts = np.array([own[0] for own in rows])
    chosen: dict[str, np.ndarray] = {}
    for name in ("labels", "groups", "views", "hands", "true_hands", "splits"):
        texts = getattr(joined, name).tolist()
        chosen[name] = np.array([next((texts[i] for i in own if texts[i]), "") for own in rows], dtype=str)
    there = [next((i for i in own if joined.picture_path(i).is_file()), own[0]) for own in rows]
    sized = [next((i for i in own if joined.sizes[i].all()), own[0]) for own in rows]
    sources = np.array([[next((i for i in own if known[i, k]), own[0]) for k in range(NODE_COUNT)] for own in rows])
    out = replace(
        joined.select(firsts), pictures=joined.pictures[there], sizes=joined.sizes[sized],
        keypoints=joined.keypoints[sources, np.arange(NODE_COUNT)], **chosen,
    )  # fmt: skip
    return out.with_landmarks() if out.landmarks.shape[1] else out


_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of a picture that was uploaded to it."""


def _keys(tables: Sequence[Table]) -> list[str]:
    """What is equal for the same picture in all tables: name and bytes of the file; the name alone where it is gone.

    The name is without its folder where that is unique in each table: data sets sort their pictures differently.
    """
    paths = [[PurePosixPath(name) for name in table.pictures.tolist()] for table in tables]
    paths = [[path.with_name(_UPLOADED.sub("", path.name)) if path.name else path for path in own] for own in paths]
    stems = [[path.stem for path in own if path.name] for own in paths]
    unique = all(len(set(own)) == len(own) for own in stems)
    names = [
        path.stem if unique else str(path.parent / path.stem) if path.name else "" for own in paths for path in own
    ]
    files = [table.picture_path(i) for table in tables for i in range(len(table))]
    sizes = [
        str(file.stat().st_size) if name and file.is_file() else "" for name, file in zip(names, files, strict=True)
    ]
    known: dict[str, set[str]] = {}
    for name, size in zip(names, sizes, strict=True):
        known.setdefault(name, set()).update({size} - {""})
    only = {name: next(iter(found)) for name, found in known.items() if len(found) == 1}
    return [f"{name} {size or only.get(name, '')}" if name else "" for name, size in zip(names, sizes, strict=True)]
