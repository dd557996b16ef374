"""`arnis-train evaluate`: how good an exported model is on any table, run as the pipeline runs it."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from stages.cards import load_model_classes
from stages.classes import ClassFile, load_classes
from training.data.readers import read_any
from training.geopose import measure
from training.geopose.data import PoseTable, pose_table, read_source, with_hand
from training.geopose.folds import groups_of
from training.geopose.parts import add_hand_argument, add_truth_argument
from training.geopose.people import groups_with_warning
from training.geopose.served import ServedModel
from training.geopose.validity import keypoint_figures

NAMELESS = "samples that name nobody; figures on people whom the model has met flatter"

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate`."""
    parser.add_argument("--model", type=Path, default=Path("geopose"), help="model folder (default: the shipped one)")
    parser.add_argument("--data", type=Path, required=True,
                        help="file of keypoints in any form, or a folder that `see` wrote")  # fmt: skip
    add_truth_argument(parser)
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--classes", type=Path, help="class file (default: the model's own)")
    add_hand_argument(parser)
    parser.add_argument("--backend", default="onnxruntime", choices=("onnxruntime", "openvino", "auto"), help="runtime")


def run(args: argparse.Namespace) -> int:
    """Measure, print the main figures and write all; 0 on success."""
    classes = load_classes(args.classes) if args.classes else load_model_classes(args.model)
    figures = evaluate(ServedModel(args.model, classes, args.backend), args.data, classes, args.truth, args.hand)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"model": str(args.model), "data": str(args.data), **figures}, indent=1))
    log.info("%s; tested on %s", measure.summary_line(figures), figures["groups"])
    if "hand_known" in figures:
        log.info("with the hand known: %s", measure.summary_line(figures["hand_known"]))
    return 0


def evaluate(
    model: ServedModel, data: Path, classes: ClassFile, truth: Path | None = None, hand: str | None = None
) -> dict[str, Any]:
    """`measure.report` of a table, and what its keypoints say about themselves; crops are used where there are any.

    Where the hand was mistaken, as far as the table or `hand` tells, `hand_known` has the figures with it put right, as
    votes over a video do.
    """
    rows, crops = read_source(data, classes.names)
    rows = with_hand(rows, hand)
    table = pose_table(rows, classes.names, crops)
    figures = _figures(model, table, classes)
    if table.wrong_hand.any():
        figures["hand_known"] = measure.summary(_figures(model, table.mirrored(table.wrong_hand), classes))
    named = (table.people != "").all()
    figures |= {
        "groups": groups_with_warning(groups_of(table.people), str(model.folder), table.people) if named else NAMELESS,
        "hand_mistaken": float(table.wrong_hand.mean()),
        "temperature": model.temperature, "threshold": model.threshold, "runtime": model.runtime,
        "with_crop": float(table.crop_present.mean()),
    }  # fmt: skip
    return figures | keypoint_figures(rows, read_any(truth, classes.names) if truth else None)


def _figures(model: ServedModel, table: PoseTable, classes: ClassFile) -> dict[str, Any]:
    return measure.report(model.probabilities(table), table.labels, table.people, table.views, classes, model.threshold)
