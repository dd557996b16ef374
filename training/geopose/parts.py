"""The table that a classifier is fitted to, and its parts: no person is in two of them."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from stages.classes import ClassFile
from training.geopose.data import PoseTable, load_table, split_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """No person is in two of them."""

    train: PoseTable
    validation: PoseTable
    test: PoseTable


def load_parts(folder: Path, classes: ClassFile) -> Parts:
    """The table in a folder that `see` wrote, split by person; samples in which nobody was found are left out."""
    if not (folder / "table.csv").is_file():
        raise UserError(f"there is no table.csv in {folder}; make it with `arnis-train see`")
    train, validation, test = split_table(load_table(folder / "table.csv", classes.names, folder / "crops"))
    if min(len(train), len(validation), len(test)) == 0:
        raise UserError(f"{folder} holds too few people to split; draw more with `arnis-train synth`")
    log.info("%d samples to train on, %d to validate, %d to test", len(train), len(validation), len(test))
    return Parts(train, validation, test)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that `fit` and `export` share."""
    parser.add_argument("--seen", type=Path, required=True, help="folder that `see` wrote")
    parser.add_argument("--run", type=Path, default=Path("runs/geopose"), help="folder of checkpoints and report")
