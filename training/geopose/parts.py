"""The table that a classifier is fitted to, and its parts: no person is in two of them."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import UserError
from stages.classes import ClassFile
from training.data.readers import read_any
from training.data.table import Table
from training.geopose.data import PoseTable, pose_table, read_source, split_table, with_anything_seen, with_hand
from training.geopose.folds import with_groups
from training.geopose.validity import keypoint_figures, same_pictures

log = logging.getLogger(__name__)

FEW_PEOPLE = 8
"""With fewer, one person alone stops and calibrates, and one alone is tested."""


@dataclass(frozen=True)
class Parts:
    """No person is in two of them."""

    train: PoseTable
    validation: PoseTable
    test: PoseTable
    groups: str
    """What they are split by."""
    rows: Table
    """That was read."""


def load_parts(source: Path, classes: ClassFile, no_groups: bool = False, hand: str | None = None) -> Parts:
    """The table of a source, split by person; samples in which nobody was found are left out.

    `no_groups` allows a table that names nobody, `hand` is the one that all use. Raises UserError where there is too
    little to split.
    """
    rows, table = load_source(source, classes, hand)
    table, groups = with_groups(table, no_groups)
    unsaid = table.splits == ""
    if unsaid.any() and not unsaid.all():
        log.warning("the column `split` is empty in %d rows: it is passed over, people are drawn", unsaid.sum())
    try:
        train, validation, test = split_table(table)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    log.info("%d samples to train on, %d to validate, %d to test", len(train), len(validation), len(test))
    if (people := len(np.unique(table.people))) < FEW_PEOPLE:
        log.warning("%d people or recordings: figures of so few say little; believe `fit --folds %d`", people, people)
    return Parts(train, validation, test, groups, rows)


def load_exact(source: Path, classes: ClassFile, no_groups: bool = False, hand: str | None = None) -> PoseTable:
    """Further samples with true keypoints: all that a source holds but those that its own split keeps to validate and
    to test. Who is held out in the table that they are added to must still be taken out (`without_people`)."""
    table = with_groups(load_source(source, classes, hand)[1], no_groups)[0]
    return with_anything_seen(table.select(np.isin(table.splits, ("train", ""))))


def load_source(source: Path, classes: ClassFile, hand: str | None = None) -> tuple[Table, PoseTable]:
    """The table of `read_source`, and its samples."""
    rows, crops = read_source(source, classes.names)
    if not (rows.keypoints[..., 2] > 0).any():
        raise UserError(f"{source}: in no row is anybody seen; `arnis-train check` says of each what is wrong")
    return rows, pose_table(with_hand(rows, hand), classes.names, crops)


def say_what_is_missing(table: PoseTable, classes: ClassFile) -> None:
    """Of classes that cannot be learnt from this. Raises UserError when there is only one that can."""
    there = np.unique(table.labels)
    if len(there) < 2:
        only = classes.names[there[0]] if len(there) else "no class"
        raise UserError(f"there is {only} alone to train on, and nothing to tell it from; add other classes' pictures")
    missing = [name for number, name in enumerate(classes.names) if number not in there]
    if missing:
        log.warning("no picture to train on shows %s: the model will never name %s", ", ".join(missing),
                    "it" if len(missing) == 1 else "them")  # fmt: skip


def true_keypoints(rows: Table, truth: Path, classes: ClassFile, hand: str | None) -> np.ndarray:
    """float32 (R, 19, 3): the true canonical keypoints of each row of a table that was seen; missing where the table
    `truth` lacks its picture; `hand` is the one that all use. Raises UserError when it has none of the pictures."""
    known = with_hand(read_any(truth, classes.names), hand).as_held()
    ours, theirs = same_pictures(rows, known)
    keypoints = np.zeros_like(rows.keypoints)
    keypoints[ours] = known.canonical()[theirs]
    return keypoints


def keypoint_figures_of(
    rows: Table, classes: ClassFile, samples: PoseTable, truth: Path | None
) -> dict[str, dict[str, float]]:
    """`keypoint_figures` of those rows of a table that the samples are of."""
    return keypoint_figures(rows.select(samples.rows), read_any(truth, classes.names) if truth else None)


def add_truth_argument(parser: argparse.ArgumentParser) -> None:
    """For what is said of keypoints that were seen."""
    parser.add_argument("--truth", type=Path,
                        help="table of the same pictures with the true keypoints, to compare with")  # fmt: skip


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that `fit`, `export` and `ablate` share."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--seen", type=Path, help="folder that `see` wrote")
    source.add_argument("--table", type=Path, dest="seen", metavar="TABLE",
                        help="file of keypoints in any form, without pictures")  # fmt: skip
    parser.add_argument("--no-groups", action="store_true", help="split a table that names no people (figures flatter)")
    add_hand_argument(parser)
    parser.add_argument("--classes", type=Path, help="class file (default: the shipped one)")
    parser.add_argument("--run", type=Path, default=Path("runs/geopose"), help="folder of checkpoints and report")


def add_hand_argument(parser: argparse.ArgumentParser) -> None:
    """What a table of photographs often does not say."""
    parser.add_argument("--hand", choices=("left", "right"),
                        help="everybody holds the stick in this hand, wherever it was found")  # fmt: skip
