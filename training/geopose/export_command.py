"""`arnis-train export`: from weights to a model folder with its card."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from engine.errors import UserError
from engine.numbers import at_least, share
from stages.classes import load_classes
from training.data.readers import read_any
from training.files import whole_model
from training.geopose import export, measure
from training.geopose.card_text import data_text, notes_text
from training.geopose.checkpoint import report_facts
from training.geopose.data import PoseTable, pose_table, with_hand
from training.geopose.explain import EXPLAINED_SAMPLES, evenly_sampled, explain_table
from training.geopose.fit import load_trained
from training.geopose.judge import calibrate, figures_of, judge
from training.geopose.parts import (
    Parts,
    add_data_arguments,
    add_truth_argument,
    keypoint_figures_of,
    load_parts,
)
from training.geopose.people import groups_with_warning, refuse_met
from training.geopose.quantise import (
    CALIBRATION_SAMPLES,
    LOGIT_BOUND,
    PrecisionRow,
    by_precision,
    compare_precisions,
    quantise,
    table_text,
)
from training.geopose.report.page import write_report
from training.weights import WEIGHTS_FILE

INT8_NOTES = "Convolutions in INT8 (NNCF, after training), all else in FP32; the metrics compare it with FP32."

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    add_data_arguments(parser)
    add_truth_argument(parser)
    parser.add_argument("--output", type=Path, help="model folder to write (default RUN/model)")
    parser.add_argument("--int8", action="store_true",
                        help="also quantise to INT8, measured against FP32, into RUN/int8, unless it moves "
                             f"logits by more than {LOGIT_BOUND:g} on average")  # fmt: skip
    parser.add_argument("--ir", type=Path, metavar="DIR", help="also write OpenVINO IR to this folder")
    parser.add_argument("--threads", type=at_least(1), default=1, help="of torch (default 1)")
    parser.add_argument("--threshold", type=share, default=0.0,
                        help="accept no answer below this confidence either, for fewer and surer ones (default: as the "
                             "validation people ask)")  # fmt: skip
    parser.add_argument("--transfer", type=Path, help="table of real keypoints, to measure on (never to train on)")
    parser.add_argument("--transfer-hand", choices=("left", "right"),
                        help="hand in which everybody of that table holds the stick")  # fmt: skip
    parser.add_argument("--data-text", help="what the card says it was trained on (default: counted from the table)")
    parser.add_argument("--notes", help="what the card says of its figures (default: told from the table)")


def run(args: argparse.Namespace) -> int:
    """Calibrate, measure, export, prove equal, write card and report; 0 on success."""
    torch.set_num_threads(args.threads)
    classes = load_classes(args.classes)
    parts = load_parts(args.seen, classes, args.no_groups, args.hand)
    best = args.run / "best.pt"
    model, trained = load_trained(best, classes)
    if not trained["finished"]:
        raise UserError(f"the training in {args.run} stopped in its epoch {trained['epoch']}; repeat its `fit`, which "
                        "goes on there")  # fmt: skip
    refuse_met(trained, best, parts.test.people, parts.validation.people)
    temperature, (asked, certain) = calibrate(model, parts.validation)
    threshold = max(asked, args.threshold)
    log.info("answers are accepted from %.2f on", threshold)
    figures = judge(model, parts.test, classes, temperature, threshold)
    keypoints = keypoint_figures_of(parts.rows, classes, parts.test, args.truth)
    log.info("test people: %s", measure.summary_line(figures))
    if args.transfer:
        rows = with_hand(read_any(args.transfer, classes.names), args.transfer_hand)
        table = pose_table(rows, classes.names)
        real = figures_of(model, table.mirrored(table.wrong_hand), classes, temperature, threshold)
        figures["real_keypoints_without_crop"] = measure.summary(real)
        log.info("real keypoints: %s", measure.summary_line(real))
    data = args.data_text or data_text(parts.rows, trained.get("mixture", {}))
    groups = groups_with_warning(parts.groups, str(best), parts.test.people)
    if groups == parts.groups:
        groups = trained.get("groups", groups)  # `fit` knows of the weights that it began with
    notes = args.notes or notes_text(parts.rows, args.seen, groups, bool(args.transfer), certain, threshold > asked)
    card = partial(export.write_card, trained=trained, classes=classes, temperature=temperature, threshold=threshold,
                   data=data, has_pictures=model.hand is not None)  # fmt: skip
    file = (args.output or args.run / "model") / "model.onnx"
    with whole_model(file.parent) as part:
        export.export_onnx(model, part / file.name)
        shutil.copyfile(best, part / WEIGHTS_FILE)
        figures["parity_200"] = parity(model, part / file.name, parts.test)
        metrics = _rounded(measure.for_card(figures))
        card(part, metrics=metrics, notes=notes)
    log.info("wrote %s", file.parent)
    refusal = ""
    if args.int8:
        precisions = _write_int8(file, args.run / "int8", parts, partial(card, notes=f"{INT8_NOTES} {notes}"),
                                 temperature, threshold)  # fmt: skip
        figures["precisions"] = msgspec.to_builtins(precisions)
        refusal = refused(args.run / "int8", precisions)
    if args.ir:
        _write_ir(model, file, args.ir, parts.test, partial(card, metrics=metrics, notes=notes))
    explained = evenly_sampled(parts.test, EXPLAINED_SAMPLES)
    explain_table(model, explained, classes.names, args.run / "explain", temperature)
    facts = {"classes": classes.names, "temperature": temperature, "threshold": threshold,
             "threshold_certain": certain, "threshold_raised": threshold > asked, "groups": groups, "data": data,
             "notes": f"{notes} {refusal}".strip()}  # fmt: skip
    _report(args.run, figures | keypoints | facts, trained)
    return 0


def parity(model: nn.Module, file: Path, test: PoseTable) -> dict[str, float]:
    """Largest difference of a logit from torch's, over 200 random and up to 200 seen inputs, in each runtime."""
    return {
        f"{name}_{backend}": gap
        for name, inputs in (("random", export.random_inputs(200, np.random.default_rng(1))),
                             ("seen", export.table_inputs(test, 200)))
        for backend, gap in export.parity(model, file, inputs, name).items()
    }  # fmt: skip


def _write_int8(
    file: Path, folder: Path, parts: Parts, card: Callable[..., None], temperature: float, threshold: float
) -> list[PrecisionRow]:
    """Quantise on people who were trained on, compare on test people with the hand known, and print the table."""
    with whole_model(folder) as part:
        quantise(file, export.table_inputs(parts.train, CALIBRATION_SAMPLES), part / "model.onnx")
        files = {"FP32": file, "INT8": part / "model.onnx"}
        rows = compare_precisions(files, parts.test.mirrored(parts.test.wrong_hand), temperature, threshold)
        card(part, metrics=_rounded(by_precision(rows)))
    log.info("precisions, %d samples of test people:\n%s", len(parts.test), table_text(rows))
    return rows


def refused(folder: Path, precisions: Sequence[PrecisionRow]) -> str:
    """Delete an INT8 model that moves logits too far, and say so; empty where it is kept."""
    gap = max(row.mean_logit_gap or 0.0 for row in precisions)
    if gap <= LOGIT_BOUND:
        return ""
    shutil.rmtree(folder)
    refusal = f"INT8 moves logits by {gap:.2f} on average, more than {LOGIT_BOUND:g}: it was not kept."
    log.warning("%s Use the FP32 model.", refusal)
    return refusal


def _write_ir(model: nn.Module, file: Path, folder: Path, test: PoseTable, card: Callable[..., None]) -> None:
    """Write the IR and prove it equal to torch."""
    inputs = export.random_inputs(200, np.random.default_rng(1)), export.table_inputs(test, 200)
    with whole_model(folder) as part:
        xml = export.export_ir(file, part)
        gaps = [export.parity_of_ir(model, xml, given) for given in inputs]
        card(part, file=xml.name)
    log.info("largest difference of a logit from torch's, IR: random inputs %.1e, seen %.1e", *gaps)
    log.info("wrote %s", folder)


def _report(run: Path, figures: dict[str, Any], trained: dict[str, Any]) -> None:
    """Write report.json and the page, with what the checkpoint says of the training."""
    text = json.dumps({**figures, "model": trained["network"], "training": report_facts(trained)}, indent=1)
    (run / "report.json").write_text(text)
    log.info("wrote %s", write_report(run))


def _rounded(value: Any) -> Any:
    """For the card: four digits are enough."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
