"""`arnis-train fit`: from tables to weights, or to the figures of a cross-validation."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from engine.numbers import at_least, share
from engine.revision import git_revision
from stages.classes import ClassFile, load_classes
from training.classifiers import NAMES, NETWORKS, network_model, unread_settings
from training.data.table import Table
from training.geopose import measure
from training.geopose.batches import Mixture
from training.geopose.checkpoint import read_checkpoint, report_facts, write_checkpoint
from training.geopose.fit import data_hash, fit, load_trained, settings_used
from training.geopose.folds import cross_validate, fold_report, with_groups, without_neutral
from training.geopose.judge import calibrate, judge
from training.geopose.parts import (
    add_data_arguments,
    add_truth_argument,
    keypoint_figures_of,
    load_exact,
    load_parts,
    load_source,
    say_what_is_missing,
    true_keypoints,
)
from training.geopose.people import groups_with_warning
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.settings import FitSettings
from training.synth.skeletons import STATISTICS
from training.weights import weights_file

DRAWN = 6000

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fit`."""
    add_data_arguments(parser)
    parser.add_argument("--model", choices=NAMES,
                        help="what to train (default geopose, without crops geopose_graph)")  # fmt: skip
    parser.add_argument("--folds", type=at_least(2),
                        help="measure by so many folds instead of training one model to ship")  # fmt: skip
    parser.add_argument("--poses-only", action="store_true", help="with --folds: leave out the class neutral")
    parser.add_argument("--exact", type=Path,
                        help="folder that `see --truth` wrote, or a table file (`synth poses`): further samples")
    add_truth_argument(parser)
    parser.add_argument("--lend-errors", action="store_true",
                        help="give the samples of --exact, in place of made-up noise, the errors that the detectors "
                             "made of people alike, by --truth")  # fmt: skip
    parser.add_argument("--statistics", type=Path, default=STATISTICS, help="pose statistics to draw from")
    parser.add_argument("--drawn", type=at_least(0),
                        help=f"samples drawn an epoch (default {DRAWN}; with a bare table, folds or a class file of "
                             "your own 0)")  # fmt: skip
    parser.add_argument("--graph-only", action="store_true", help="leave all crops out: quick, to begin with")
    parser.add_argument("--crop-dropout", type=share, default=0.3, help="share of crops left out (default 0.3)")
    add_settings_arguments(parser)


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that become FitSettings."""
    defaults = FitSettings()
    parser.add_argument("--epochs", type=int, default=defaults.epochs, help=f"at most (default {defaults.epochs})")
    parser.add_argument("--batch", type=int, default=defaults.batch, help=f"samples a step (default {defaults.batch})")
    parser.add_argument("--rate", type=float, default=defaults.learning_rate, help="learning rate")
    parser.add_argument("--start", default=defaults.start, metavar="MODEL",
                        help="weights to begin with, and their backbone: a shipped model's name (geopose), a model "
                             "folder, or best.pt of a run; its classes may be others")  # fmt: skip
    parser.add_argument("--pretrained", action="store_true", help="begin with ImageNet weights in the crop stream")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="the same seed trains the same network")
    parser.add_argument("--threads", type=int, default=defaults.threads, help=f"of torch (default {defaults.threads})")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="changes",
                        help="any other setting of training/geopose/settings.py, such as mixup=0.4")  # fmt: skip


def settings_of(args: argparse.Namespace) -> FitSettings:
    """The settings that the arguments ask for."""
    asked = {
        "epochs": args.epochs, "batch": args.batch, "threads": args.threads, "seed": args.seed,
        "learning_rate": args.rate, "pretrained": args.pretrained, "start": args.start,
    }  # fmt: skip
    return FitSettings().changed([*(f"{name}={value}" for name, value in asked.items()), *args.changes])


def run(args: argparse.Namespace) -> int:
    """Train, or go on where it stopped; 0 on success."""
    classes = load_classes(args.classes)
    # A model that takes crops would be shown some when it is served, whatever it was trained on.
    args.model = args.model or ("geopose_graph" if args.graph_only or not args.seen.is_dir() else "geopose")
    refuse_unread(args.changes, [args.model])
    if args.poses_only and not args.folds:
        raise UserError("--poses-only measures; give --folds with it, or a class file without neutral to train by")
    drawn = drawn_samples(args)
    mixture = Mixture(
        None,
        PoseStatistics(args.statistics, classes.names) if drawn else None,
        drawn,
        load_exact(args.exact, classes, args.no_groups, args.hand) if args.exact else None,
        crop_dropout=args.crop_dropout,
    )
    if args.graph_only and mixture.exact:
        mixture = replace(mixture, exact=mixture.exact.without_crops())
    started = now_ns()
    report = (_measure_by_folds if args.folds else _train_one)(args, classes, mixture)
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "report.json").write_text(json.dumps({"model": args.model, **report}, indent=1))
    minutes = (now_ns() - started) / NS_PER_S / 60
    log.info("%.1f minutes; %s; tested on %s", minutes, measure.summary_line(report), report["groups"])
    return 0


def refuse_start(model: str, settings: FitSettings) -> None:
    """Raises UserError where a classifier without weights is to begin with some, or there are none."""
    if settings.start and model not in NETWORKS:
        raise UserError(f"--start gives a network its weights, and {model} is none; leave it out")
    if settings.start:
        read_checkpoint(weights_file(settings.start))


def refuse_unread(changes: Sequence[str], models: Sequence[str]) -> None:
    """Raises UserError for a change such as `mixup=0.4` of a setting that none of these classifiers reads: what was
    measured with it would be taken for its effect."""
    for change in changes:
        if all(change.partition("=")[0] in unread_settings(model) for model in models):
            raise UserError(f"{change} changes nothing in {', '.join(sorted(set(models)))}; leave it out")


def refuse_blind(model: str, has_crops: bool) -> None:
    """Raises UserError where a network that looks at the hand's picture alone gets none."""
    if not has_crops and model in NETWORKS and network_model(model).needs_crops:
        raise UserError(f"{model} looks at pictures of the hand alone, and here are none; give it a folder that `see` "
                        "wrote with --seen, or choose another model")  # fmt: skip


def drawn_samples(args: argparse.Namespace) -> int:
    """How many samples an epoch draws from the statistics: without being told, none where they may be of other poses
    (a class file of one's own without its --statistics), or where the table alone is to be measured."""
    if args.drawn is not None:
        return int(args.drawn)
    others = args.classes is not None and args.statistics == STATISTICS
    return 0 if args.folds or others or not args.seen.is_dir() else DRAWN


def lent_truth(args: argparse.Namespace, rows: Table, classes: ClassFile) -> np.ndarray | None:
    """By what exact samples are given the errors of those that were seen, if they are to: the true keypoints of `rows`.
    Raises UserError without exact samples or a truth."""
    if not args.lend_errors:
        return None
    if not (args.exact and args.truth):
        raise UserError("--lend-errors needs --exact, whose samples get them, and --truth, by which they are known")
    return true_keypoints(rows, args.truth, classes, args.hand)


def _train_one(args: argparse.Namespace, classes: ClassFile, mixture: Mixture) -> dict[str, Any]:
    """The one network to ship; its report is about the table's test people."""
    network_model(args.model)
    _refuse_other_kind(args.run, args.run / "fold0", "a measurement by folds")
    settings = settings_of(args)
    refuse_start(args.model, settings)
    parts = load_parts(args.seen, classes, args.no_groups, args.hand)
    say_what_is_missing(parts.train, classes)
    groups = groups_with_warning(parts.groups, settings.start, parts.test.people) if settings.start else parts.groups
    # Before the training: a truth that cannot be read would cost it.
    keypoints = keypoint_figures_of(parts.rows, classes, parts.test, args.truth)
    train, validation, test = parts.train, parts.validation.mirrored(parts.validation.wrong_hand), parts.test
    if args.graph_only:
        train, validation, test = (part.without_crops() for part in (train, validation, test))
    refuse_blind(args.model, bool(train.crop_present.any()))
    # Who is in the exact samples may be in any part of this table.
    held_out = np.concatenate([validation.people, test.people])
    truth = lent_truth(args, parts.rows, classes)
    mixture = replace(mixture.without_people(held_out), table=train, truth=truth)
    best = fit(classes, mixture, validation, settings, args.run, args.model)
    network, state = load_trained(best, classes)
    temperature, threshold = calibrate(network, validation)
    found = {"temperature": temperature, "threshold": threshold.value, "groups": groups}
    write_checkpoint(state | found, best)
    return {
        **judge(network, test, classes, temperature, threshold.value), **keypoints, **found,
        "threshold_certain": threshold.certain, "training": report_facts(state),
    }  # fmt: skip


def _refuse_other_kind(run: Path, sign: Path, what: str) -> None:
    """Raises UserError where the report of another kind would be overwritten."""
    if sign.exists():
        raise UserError(f"{run} holds {what} already, and one folder has one report; choose another --run")


def _measure_by_folds(args: argparse.Namespace, classes: ClassFile, mixture: Mixture) -> dict[str, Any]:
    """Figures of a cross-validation; every fold keeps its network in the run's folder."""
    _refuse_other_kind(args.run, args.run / "best.pt", "a training without --folds")
    settings = settings_of(args)
    refuse_start(args.model, settings)
    rows, table = load_source(args.seen, classes, args.hand)
    table, groups = with_groups(table, args.no_groups)
    groups = groups_with_warning(groups, settings.start, table.people) if settings.start else groups
    every = classes
    say_what_is_missing(table, classes)
    if args.graph_only:
        table = table.without_crops()
    refuse_blind(args.model, bool(table.crop_present.any()))
    if args.poses_only:
        if mixture.statistics:
            raise UserError("the statistics to draw from have a neutral class; leave out --drawn or --poses-only")
        if mixture.exact is not None:
            mixture = replace(mixture, exact=without_neutral(mixture.exact, classes)[0])
        table, classes = without_neutral(table, classes)
    keypoints = keypoint_figures_of(rows, every, table, args.truth)
    mixture = replace(mixture, truth=lent_truth(args, rows, every))
    result = cross_validate(args.model, table, classes, settings, args.folds, args.run, mixture)
    facts = {
        "settings": asdict(settings_used(args.model, settings)), "mixture": replace(mixture, table=table).facts(),
        "data_sha256": data_hash(replace(mixture, table=table), table), "revision": git_revision(),
    }  # fmt: skip
    return {**fold_report(result, table, classes, groups), **keypoints, "training": facts}
