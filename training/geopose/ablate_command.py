"""`arnis-train ablate`: classifiers and their variants on the same folds, with intervals, times and a picture."""

from __future__ import annotations

import argparse
import logging
from functools import cache
from pathlib import Path

from engine.errors import UserError
from engine.numbers import at_least
from stages.classes import load_classes
from stages.correct import CorrectMethod
from training.geopose.ablation import (
    Variant,
    effect_variants,
    model_variants,
    parse_variant,
    run_variants,
)
from training.geopose.ablation_report import write_comparison
from training.geopose.corrected import corrected
from training.geopose.data import PoseTable, pose_table, read_source, with_hand
from training.geopose.fit_command import add_settings_arguments, refuse_blind, refuse_start, refuse_unread, settings_of
from training.geopose.folds import with_groups, without_neutral
from training.geopose.parts import add_data_arguments
from training.geopose.people import groups_with_warning
from training.see import read_detectors
from training.seen_folder import DETECTORS_FILE

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ablate`."""
    add_data_arguments(parser)
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument("--variants", nargs="+", metavar="MODEL[+NAME=VALUE...]",
                        help="what to compare; NAME is a setting of the training, crop (on, off) or correct (off, "
                             "forearm, evidence); default: every model that the table suits")  # fmt: skip
    compared.add_argument("--effects", metavar="VARIANT", help="compare this variant with itself short of each part")
    parser.add_argument("--pictures", type=Path, help="where the table's pictures are, for correct=evidence")
    parser.add_argument("--folds", type=at_least(2), default=5, help="folds (default 5)")
    parser.add_argument("--poses-only", action="store_true", help="leave out the class neutral")
    add_settings_arguments(parser)


def corrected_before(source: Path) -> str:
    """How `see` corrected the sticks of its folder; empty where it did not, or made no such folder."""
    file = source / DETECTORS_FILE
    if not file.is_file():
        return ""
    detectors = read_detectors(file)
    return "" if detectors.truth or detectors.correct == "off" else detectors.correct


def run(args: argparse.Namespace) -> int:
    """Train what has not been trained, write and print the comparison; 0 on success."""
    classes = load_classes(args.classes)
    before = corrected_before(args.seen)
    named = [*(args.variants or []), *([args.effects] if args.effects else [])]
    if before and any(parse_variant(text).correct != "off" for text in named):
        again = "look again with `see --correct off`"
        raise UserError(f"the sticks in {args.seen} are corrected already ({before}); {again}")
    rows, crops = read_source(args.seen, classes.names)
    rows = with_hand(rows, args.hand)
    poses = without_neutral(pose_table(rows, classes.names), classes)[1] if args.poses_only else classes

    @cache
    def samples(correct: CorrectMethod) -> tuple[PoseTable, str]:
        table = pose_table(corrected(rows, correct, args.pictures), classes.names, crops)
        table, groups = with_groups(table, args.no_groups)
        return (without_neutral(table, classes)[0] if args.poses_only else table), groups

    def table_for(variant: Variant) -> PoseTable:
        table = samples(variant.correct)[0]
        return table if variant.crop else table.without_crops()

    table, groups = samples("off")
    has_crops = bool(len(table.crops))
    if args.effects:
        has_pictures = args.pictures is not None or len(rows) > 0 and rows.picture_path(0).is_file()
        corrections = [] if before else ["forearm", *(["evidence"] if has_pictures else [])]
        texts = effect_variants(args.effects, has_crops, corrections, has_neutral=not args.poses_only)
    else:
        texts = args.variants or model_variants(has_crops)
    variants = [parse_variant(text) for text in texts]
    settings = settings_of(args)
    refuse_unread(args.changes, [variant.model for variant in variants])
    for variant in variants:
        refuse_unread(variant.changes, [variant.model])
        refuse_blind(variant.model, has_crops and variant.crop)
    told = [(variant.model, settings.changed(variant.changes)) for variant in variants]
    for model, asked in told:
        refuse_start(model, asked)
    for start in sorted({asked.start for _, asked in told} - {""}):
        groups = groups_with_warning(groups, start, table.people)
    outcomes = run_variants(variants, table_for, poses, settings, args.folds, groups, args.run)
    log.info("written to %s:\n%s", args.run, write_comparison(outcomes, table.people, groups, args.run))
    return 0
