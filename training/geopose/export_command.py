"""`arnis-train export`: from weights to a model folder with its card."""

from __future__ import annotations

import argparse
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from stages.classes import ClassFile, load_classes, models_folder
from stages.classify import class_probabilities
from training.geopose import export, measure
from training.geopose.data import PoseTable, load_table
from training.geopose.fit import load_weights, predict
from training.geopose.network import GeoPoseNet
from training.geopose.parts import Parts, add_data_arguments, load_parts
from training.geopose.quantise import CALIBRATION_SAMPLES, PrecisionRow, compare_precisions, quantise, table_text

NOTES = (
    "Confidence is softmax(logits / temperature); temperature and threshold (nine of ten accepted answers right) come "
    "from validation people. Test people are rendered and seen through the shipped detectors; top1 knows the weapon "
    "hand, as votes over a video do. Real keypoints are measured only, without crops, and flatter: the statistics "
    "behind the renders were made from the same photographs (extra trees on statistics of others lose 6 points)."
)

INT8_NOTES = "Convolutions in INT8 (NNCF, after training), all else in FP32; the metrics compare it with FP32."

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    add_data_arguments(parser)
    parser.add_argument("--output", type=Path, help="model folder to write (default models/geopose)")
    parser.add_argument("--int8", action="store_true",
                        help="also quantise to INT8, measured against FP32: a model folder of its own, RUN/int8")
    parser.add_argument("--ir", type=Path, metavar="DIR", help="also write OpenVINO IR to this folder")
    parser.add_argument("--transfer", type=Path, help="table of real keypoints, to measure on (never to train on)")
    parser.add_argument("--data-text", default="Renders of synthetic people, samples of aggregate pose statistics",
                        help="what the card says it was trained on")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Calibrate, measure, export, prove equal, write card and report; 0 on success."""
    classes = load_classes()
    parts = load_parts(args.seen, classes)
    model = load_weights(args.run / "best.pt", len(classes.classes))
    temperature, threshold = calibrate(model, parts.validation)
    figures = judge(model, parts.test, classes, temperature, threshold)
    log.info("test people: %s", json.dumps({k: v for k, v in figures.items() if k != "confusion"}))
    output = args.output or models_folder() / "geopose"
    export.export_onnx(model, output / "model.onnx")
    figures["parity_200"] = parity(model, output / "model.onnx", parts.test)
    if args.transfer:
        real = transfer(model, load_table(args.transfer, classes.names), temperature, threshold)
        log.info("real keypoints: %s", json.dumps(real))
        figures["real_keypoints_without_crop"] = real
    common = {"classes": classes, "temperature": temperature, "threshold": threshold, "data": args.data_text}
    card = partial(export.write_card, **common)
    if args.int8:
        rows = _int8(output / "model.onnx", args.run / "int8", parts, temperature, threshold)
        figures["precisions"] = msgspec.to_builtins(rows)
        card(args.run / "int8", metrics=_rounded({"precisions": figures["precisions"]}), notes=f"{INT8_NOTES} {NOTES}")
    card(output, metrics=_rounded(figures), notes=NOTES)
    if args.ir:
        _ir(model, output / "model.onnx", args.ir, parts.test)
        card(args.ir, metrics=_rounded(figures), notes=NOTES, file="model.xml")
    (args.run / "report.json").write_text(json.dumps({**figures, "classes": classes.names}, indent=1))
    log.info("wrote %s", output)
    return 0


def parity(model: GeoPoseNet, file: Path, test: PoseTable) -> dict[str, float]:
    """Largest difference of a logit from torch's, over 200 random and 200 seen inputs, in each runtime."""
    return {
        f"{name}_{backend}": gap
        for name, inputs in (("random", export.random_inputs(200, np.random.default_rng(1))),
                             ("seen", export.table_inputs(test, 200)))
        for backend, gap in export.parity(model, file, inputs).items()
    }  # fmt: skip


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


def _int8(file: Path, folder: Path, parts: Parts, temperature: float, threshold: float) -> list[PrecisionRow]:
    """Quantise on people who were trained on, compare on test people with the hand known, and print the table."""
    inputs = export.table_inputs(parts.train, min(CALIBRATION_SAMPLES, len(parts.train)))
    quantise(file, inputs, folder / "model.onnx")
    files = {"FP32": file, "INT8": folder / "model.onnx"}
    rows = compare_precisions(files, parts.test.mirrored(parts.test.wrong_hand), temperature, threshold)
    log.info("precisions, %d samples of test people:\n%s", len(parts.test), table_text(rows))
    return rows


def _ir(model: GeoPoseNet, file: Path, folder: Path, test: PoseTable) -> None:
    """Write the IR and prove it equal to torch."""
    xml = export.export_ir(file, folder)
    inputs = export.random_inputs(200, np.random.default_rng(1)), export.table_inputs(test, 200)
    gaps = [export.parity_of_ir(model, xml, part) for part in inputs]
    log.info("parity of the IR with torch: random %.1e, seen %.1e; wrote %s", *gaps, folder)


def _rounded(value: Any) -> Any:
    """For the card: four digits are enough."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
