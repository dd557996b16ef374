"""`arnis-train fit`: from tables to weights."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from engine.clock import NS_PER_S, now_ns
from stages.classes import load_classes
from training.geopose.batches import Mixture
from training.geopose.fit import fit
from training.geopose.parts import add_data_arguments, load_parts
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.settings import FitSettings

STATISTICS = Path(__file__).parent.parent / "synth" / "pose_statistics.json"

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fit`."""
    defaults = FitSettings()
    add_data_arguments(parser)
    parser.add_argument("--exact", type=Path, help="folder that `see --truth` wrote: further samples")
    parser.add_argument("--statistics", type=Path, default=STATISTICS, help="pose statistics to draw from")
    parser.add_argument("--drawn", type=int, default=6000, help="samples drawn an epoch (default 6000; 0: none)")
    parser.add_argument("--epochs", type=int, default=defaults.epochs, help=f"at most (default {defaults.epochs})")
    parser.add_argument("--batch", type=int, default=defaults.batch, help=f"samples a step (default {defaults.batch})")
    parser.add_argument("--start", type=Path, help="weights to begin with")
    parser.add_argument("--graph-only", action="store_true", help="leave all crops out: quick, to begin with")
    parser.add_argument("--rate", type=float, default=defaults.learning_rate, help="learning rate")
    parser.add_argument("--crop-dropout", type=float, default=0.3, help="share of crops left out (default 0.3)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="the same seed trains the same network")
    parser.add_argument("--threads", type=int, default=defaults.threads, help=f"of torch (default {defaults.threads})")


def run(args: argparse.Namespace) -> int:
    """Train, or go on where it stopped; 0 on success."""
    classes = load_classes()
    parts = load_parts(args.seen, classes)
    statistics = PoseStatistics(args.statistics, classes.names) if args.drawn else None
    train, validation = parts.train, parts.validation.mirrored(parts.validation.wrong_hand)
    exact = load_parts(args.exact, classes).train if args.exact else None
    if args.graph_only:
        train, validation, exact = train.without_crops(), validation.without_crops(), exact and exact.without_crops()
    settings = FitSettings(
        epochs=args.epochs, batch=args.batch, threads=args.threads, seed=args.seed, learning_rate=args.rate
    )
    mixture = Mixture(train, statistics, args.drawn, exact, args.crop_dropout)
    started = now_ns()
    weights = fit(classes, mixture, validation, settings, args.run, args.start)
    log.info("trained in %.1f minutes: %s", (now_ns() - started) / NS_PER_S / 60, weights)
    return 0
