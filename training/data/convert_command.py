"""`arnis-train convert`: labelled keypoints from one form into another, and several of them into one.

Reads CSV tables, COCO keypoints JSON (as CVAT and Label Studio write it) and ultralytics pose folders. Several name the
same pictures: what the first knows overrules the others, so corrections come before the table that they correct.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from engine.errors import UserError
from stages.classes import load_classes
from training.data.readers import read_all, write_any

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
    table = read_all(args.tables, names)
    if args.pictures:
        if not args.pictures.is_dir():
            raise UserError(f"folder {args.pictures} does not exist; give the one from which the pictures' names start")
        table = replace(table, folder=args.pictures)
    write_any(table, args.out, names)
    there = sum(bool(name) and table.picture_path(i).is_file() for i, name in enumerate(table.pictures))
    log.info("%s: %d rows, %d of their pictures are there", args.out, len(table), there)
    return 0
