"""`arnis-train detector`: cache crops, train, export with a card, judge; each step can be resumed."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import cv2

from engine.clock import now_ns
from engine.errors import UserError
from stages.classes import models_folder
from training.stick import evaluate
from training.stick.clips import cache_clips
from training.stick.data import extend_cache, load_samples
from training.stick.export import export_onnx, load_weights, write_card
from training.stick.fit import FitSettings, fit
from training.stick.network import Served
from training.stick.yolo import YoloSettings, fit_yolo, load_yolo

log = logging.getLogger(__name__)

_FRAMES_PER_CLIP = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arnis-train detector`."""
    defaults = FitSettings()
    parser.add_argument("--kind", choices=("heatmap", "yolo"), default="heatmap", help="network to train")
    parser.add_argument("--table", type=Path, help="table.csv of renders (made by `arnis-train synth`)")
    parser.add_argument("--clips", type=Path, help="folder of real videos without sticks, to draw sticks into")
    parser.add_argument("--work", type=Path, default=Path("runs/stick"), help="folder for cache and checkpoints")
    parser.add_argument("--output", type=Path, help="model folder to write (default models/stick_<kind>)")
    parser.add_argument("--epochs", type=int, help=f"passes (default {defaults.epochs}, yolo {YoloSettings().epochs})")
    parser.add_argument("--samples", type=int, help="pictures an epoch (yolo: pictures written)")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--init", type=Path, help="weights to start from (heatmap)")
    parser.add_argument("--resume", action="store_true", help="go on from the last finished epoch")
    parser.add_argument("--evaluate-only", action="store_true", help="export and judge the weights of an earlier run")
    parser.add_argument("--limit", type=int, default=0, help="judge at most so many pictures of a split")


def run(args: argparse.Namespace) -> int:
    """Do what the options say; returns the exit code. Raises UserError for missing files."""
    if args.table is None and args.clips is None:
        raise UserError("nothing to learn from: give --table (renders), --clips (real videos) or both")
    output = args.output or models_folder() / f"stick_{args.kind}"
    work = args.work / args.kind
    started_ns = now_ns()
    if not args.evaluate_only:
        fill_cache(args.table, args.clips, args.work / "cache")
        train(args, work)
    minutes = (now_ns() - started_ns) / 60e9
    file = export(args.kind, work, output)
    threshold, metrics = judge(file, args.table, args.clips, work, args.limit)
    if not args.evaluate_only:
        metrics["training_minutes"] = round(minutes, 1)
    write_card(output, args.kind, threshold, metrics)
    log.info("model written to %s", output)
    return 0


def fill_cache(table: Path | None, clips: Path | None, cache: Path) -> None:
    """Cache what is new in the table, and the clips once."""
    if table is not None:
        for split in ("train", "val"):
            extend_cache(table, cache, split)
    if clips is not None and not load_samples(cache, "clips"):
        found = video_files(clips)
        log.info("%d crops from %d clips", cache_clips(found, cache, _FRAMES_PER_CLIP), len(found))


def video_files(folder: Path) -> list[Path]:
    """The videos of a folder. Raises UserError when there is none."""
    found = sorted(p for p in folder.glob("*") if p.suffix in (".mp4", ".mkv", ".avi", ".mov"))
    if not found:
        raise UserError(f"folder {folder} holds no video (mp4, mkv, avi, mov)")
    return found


def train(args: argparse.Namespace, work: Path) -> None:
    """Train the chosen kind into its work folder."""
    cache = args.work / "cache"
    given = {"epochs": args.epochs, "seed": args.seed, "threads": args.threads}
    given = {name: value for name, value in given.items() if value is not None}
    if args.kind == "yolo":
        if args.samples:
            given["pictures"] = args.samples
        fit_yolo(cache, work, YoloSettings(**given), args.resume)
        return
    if args.samples:
        given["samples_per_epoch"] = args.samples
    fit(cache, work, FitSettings(**given), args.resume, args.init)


def export(kind: str, work: Path, output: Path) -> Path:
    """Write `model.onnx` of the last weights."""
    file = output / "model.onnx"
    if kind == "yolo":
        export_onnx(load_yolo(work / "yolo" / "weights" / "last.pt"), file)
    else:
        export_onnx(Served(load_weights(work / "weights.pt")).eval(), file)
    return file


def judge(
    file: Path, table: Path | None, clips: Path | None, work: Path, limit: int = 0
) -> tuple[float, dict[str, Any]]:
    """Threshold (chosen on the val people) and figures (on the test people and all clips); sheets go to `work`."""
    model = evaluate.StickModel(file)
    threshold, metrics = 0.5, dict[str, Any]()
    if table is not None:
        threshold = evaluate.choose_threshold(evaluate.outcomes_of(model, table, "val", limit))
        outcomes = evaluate.outcomes_of(model, table, "test", limit)
        if outcomes:
            metrics["test"] = evaluate.summarise(outcomes, threshold)
            metrics["test_by_view"] = evaluate.by_view(outcomes, threshold)
            cv2.imwrite(str(work / "test_sheet.jpg"), evaluate.picture_sheet(outcomes, threshold))
    if clips is not None:
        presence = evaluate.clip_presence(model, video_files(clips))
        metrics["false_rate_on_clips_without_stick"] = evaluate.false_rates(presence, threshold)
    for backend in ("onnxruntime", "openvino"):
        metrics[f"{backend}_two_threads"] = evaluate.milliseconds_per_crop(file, backend)
    for name, value in metrics.items():
        log.info("%s: %s", name, value)
    return threshold, metrics
