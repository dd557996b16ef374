"""`arnis-train fit` and `arnis-train export`: from tables to weights, from weights to a model folder with its card."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from stages.classes import ClassFile, load_classes, models_folder
from stages.classify import class_probabilities
from training.geopose import export, measure
from training.geopose.data import Mixture, PoseTable, load_table, split_table
from training.geopose.fit import FitSettings, fit, load_weights, predict
from training.geopose.network import GeoPoseNet
from training.geopose.pose_statistics import PoseStatistics

STATISTICS = Path(__file__).parent.parent / "synth" / "pose_statistics.json"
NOTES = (
    "Confidence is softmax(logits / temperature); temperature and threshold (nine of ten accepted answers right) come "
    "from validation people. Test people are rendered and seen through the shipped detectors; top1 knows the weapon "
    "hand, as votes over a video do. Real keypoints are measured only, without crops, and flatter: the statistics "
    "behind the renders were made from the same photographs (extra trees on statistics of others lose 6 points)."
)

log = logging.getLogger(__name__)


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fit`."""
    defaults = FitSettings()
    _add_data_arguments(parser)
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


def run_fit(args: argparse.Namespace) -> int:
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


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    _add_data_arguments(parser)
    parser.add_argument("--output", type=Path, help="model folder to write (default models/geopose)")
    parser.add_argument("--transfer", type=Path, help="table of real keypoints, to measure on (never to train on)")
    parser.add_argument("--data-text", default="Renders of synthetic people, samples of aggregate pose statistics",
                        help="what the card says it was trained on")  # fmt: skip


def run_export(args: argparse.Namespace) -> int:
    """Calibrate, measure, export, prove equal and write the card; 0 on success."""
    classes = load_classes()
    parts = load_parts(args.seen, classes)
    model = load_weights(args.run / "best.pt", len(classes.classes))
    temperature, threshold = calibrate(model, parts.validation)
    figures = judge(model, parts.test, classes, temperature, threshold)
    log.info("test people: %s", json.dumps({k: v for k, v in figures.items() if k != "confusion"}))
    output = args.output or models_folder() / "geopose"
    export.export_onnx(model, output / "model.onnx")
    gaps = {
        f"{name}_{backend}": gap
        for name, inputs in (("random", export.random_inputs(200, np.random.default_rng(1))),
                             ("seen", export.table_inputs(parts.test, 200)))
        for backend, gap in export.parity(model, output / "model.onnx", inputs).items()
    }  # fmt: skip
    figures["parity_200"] = gaps
    if args.transfer:
        real = transfer(model, load_table(args.transfer, classes.names), temperature, threshold)
        log.info("real keypoints: %s", json.dumps(real))
        figures["real_keypoints_without_crop"] = real
    (args.run / "report.json").write_text(json.dumps({**figures, "classes": classes.names}, indent=1))
    export.write_card(output, classes, temperature, threshold, args.data_text, _rounded(figures), NOTES)
    log.info("wrote %s", output)
    return 0


@dataclass(frozen=True)
class Parts:
    """No person is in two of them."""

    train: PoseTable
    validation: PoseTable
    test: PoseTable


def load_parts(folder: Path, classes: ClassFile) -> Parts:
    """The table in a folder that `see` wrote, split by person; samples in which nobody was found are left out."""
    train, validation, test = split_table(load_table(folder / "table.csv", classes.names, folder / "crops"))
    if min(len(train), len(validation), len(test)) == 0:
        raise UserError(f"{folder} holds too few people to split; draw more with `arnis-train synth`")
    log.info("%d samples to train on, %d to validate, %d to test", len(train), len(validation), len(test))
    return Parts(train, validation, test)


def calibrate(model: GeoPoseNet, validation: PoseTable) -> tuple[float, float]:
    """Temperature and threshold, from people who were not trained on."""
    logits, labels = (t.numpy() for t in predict(model, validation.mirrored(validation.wrong_hand)))
    temperature = measure.fit_temperature(logits, labels)
    threshold = measure.fit_threshold(class_probabilities(logits, temperature), labels)
    log.info("temperature %.3f, threshold %.2f", temperature, threshold)
    return temperature, threshold


def judge(
    model: GeoPoseNet, test: PoseTable, classes: ClassFile, temperature: float, threshold: float
) -> dict[str, Any]:
    """All figures on test people, with the crops and without, and per view; with the hand known, as votes over a video
    make it, and as one picture tells it."""
    single, labels = (t.numpy() for t in predict(model, test))
    figures: dict[str, Any] = {"top1_hand_from_one_picture": float((single.argmax(1) == labels).mean())}
    figures["hand_mistaken"] = float(test.wrong_hand.mean())
    test = test.mirrored(test.wrong_hand)
    logits, labels = (t.numpy() for t in predict(model, test))
    figures |= measure.report(logits, labels, classes.names, temperature, threshold)
    right = logits.argmax(1) == labels
    figures["people"] = len(np.unique(test.people))
    figures["top1_interval_by_person"] = measure.person_interval(right, test.people)
    figures["top1_by_view"] = {view: float(right[test.views == view].mean()) for view in np.unique(test.views).tolist()}
    alone, _ = predict(model, test.without_crops())
    figures["top1_without_crop"] = float((alone.argmax(1) == torch.from_numpy(labels)).float().mean())
    return figures


def transfer(model: GeoPoseNet, table: PoseTable, temperature: float, threshold: float) -> dict[str, float]:
    """Figures on real people's keypoints, of which there are no pictures; the last class is `neutral`."""
    logits, labels = (t.numpy() for t in predict(model, table.without_crops()))
    pose_count = logits.shape[1] - 1
    top1, top2 = measure.top_poses(logits, labels, pose_count)
    probabilities = class_probabilities(logits, temperature)
    accepted = probabilities.max(1) >= threshold
    right = probabilities.argmax(1) == labels
    return {
        "samples": len(labels), "top1_of_12": top1, "top2_of_12": top2, "top1_of_13": float(right.mean()),
        "coverage": float(accepted.mean()), "accepted_accuracy": float(right[accepted].mean()),
        "ece": measure.expected_calibration_error(probabilities, labels),
    }  # fmt: skip


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seen", type=Path, required=True, help="folder that `see` wrote")
    parser.add_argument("--run", type=Path, default=Path("runs/geopose"), help="folder of checkpoints and report")


def _rounded(value: Any) -> Any:
    """For the card: four digits are enough."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
