"""Any form of labelled keypoints into one table: CSV, COCO keypoints JSON, ultralytics pose folders, and mixtures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from engine.errors import UserError
from stages.classes import load_classes
from training.data.coco import read_coco, write_coco
from training.data.merge import merged
from training.data.table import Table, read_table, write_table
from training.data.ultralytics import read_ultralytics


def read_any(path: Path, names: Sequence[str] | None = None) -> Table:
    """Read a .csv, .json or .yaml file, or a folder that holds a `table.csv`, a `data.yaml` or one .json file.

    `names`: names of the classes (default: the class file). Raises UserError when it is none of these.
    """
    file, names = _main_file(path) if path.is_dir() else path, names or load_classes().names
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
    refuse_place(path)
    if path.suffix.lower() == ".json":
        write_coco(table, path)
    else:
        write_table(table, path, names)


def refuse_place(path: Path) -> None:
    """Raises UserError or OSError when `write_any` cannot write there; makes the folder."""
    if path.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"{path}: the name must end in .csv or .json")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"folder {path.parent} cannot be written to; choose another place")


def refuse_overwriting(path: Path, read: Sequence[Path]) -> None:
    """Raises as `refuse_place`, and UserError when there is a table already that is none of those that are read."""
    refuse_place(path)
    if path.exists() and path.resolve() not in {table.resolve() for table in read}:
        raise UserError(f"{path} exists and may hold corrections; choose another --out, or delete it first")


def read_all(paths: Sequence[Path], names: Sequence[str]) -> Table:
    """Read several tables of the same pictures, or of different ones, into one (`training.data.merge`)."""
    return merged([read_any(path, names) for path in paths])
