"""`arnis-train detector`: train, export with a card and judge; quantise; compare with MoveNet Thunder.

Each step of a training can be resumed.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from engine.clock import now_ns
from engine.errors import UserError
from engine.numbers import at_least, share
from stages.cards import load_card
from stages.sources.video import VIDEO_FILES
from training.files import whole_model
from training.onnx_file import export_onnx
from training.stick import agree, evaluate
from training.stick.cache import extend_cache
from training.stick.card_text import Begun, data_text, keep_begun, name_of, read_begun
from training.stick.clips import HELD_OUT, cache_clips, keypoints_finder, served_detector
from training.stick.data import read_rows
from training.stick.export import KINDS, load_weights, write_card
from training.stick.fit import FitSettings, fit, minutes_before, refuse_unfinished
from training.stick.fused import FusedSettings, fit_fused
from training.stick.judge import drawn_figures, judge
from training.stick.network import Served
from training.stick.yolo import YoloSettings, fit_yolo, load_yolo
from training.stick.yolo import refuse_unfinished as refuse_unfinished_yolo
from training.weights import WEIGHTS_FILE, weights_file

log = logging.getLogger(__name__)

def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arnis-train detector`."""
    heatmap, yolo, fused = FitSettings(), YoloSettings(), FusedSettings()
    epochs = f"passes (default {heatmap.epochs}, yolo {yolo.epochs}, fused {fused.epochs} over both phases)"
    parser.add_argument("--kind", choices=("heatmap", "yolo", "fused"), default="heatmap", help="network to train")
    parser.add_argument("--table", type=Path, help="table.csv of renders (made by `arnis-train synth`)")
    parser.add_argument("--clips", type=Path, help="folder of real videos without sticks, to draw sticks into")
    parser.add_argument("--work", type=Path, default=Path("runs/stick"), help="folder for cache and checkpoints")
    parser.add_argument("--output", type=Path, help="model folder to write (default WORK/stick_<kind>)")
    parser.add_argument("--epochs", type=int, help=epochs)
    parser.add_argument("--samples", type=int, help="pictures an epoch (yolo: pictures written; fused: renders used)")
    parser.add_argument("--size", type=int, choices=(320, 480), help=f"side of the input (fused; default {fused.size})")
    parser.add_argument("--seed", type=at_least(0), default=heatmap.seed)
    parser.add_argument("--threads", type=int, default=heatmap.threads)
    parser.add_argument(
        "--init",
        help="weights to start from, more gently: a model with weights, such as stick_heatmap, or a file "
        "(heatmap: weights.pt; fused: any .pt of ultralytics you trust)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last finished epoch")
    parser.add_argument("--evaluate-only", action="store_true", help="export and judge the weights of an earlier run")
    parser.add_argument(
        "--threshold", type=share,
        help="presence from which a stick counts, 0 to 1 (default: chosen by the val pictures; --judge: the card's)",
    )  # fmt: skip
    parser.add_argument("--limit", type=at_least(0), default=0, help="judge at most so many of a split or clip")
    others = parser.add_argument_group("instead of training")
    others.add_argument("--int8", action="store_true", help="quantise --model and judge it by its keypoints")
    judged = "judge --model by all of --table, whom it has never met, and by sticks drawn into --clips (those held out "
    judged += "of the shipped detector's training, if they are among them)"
    others.add_argument("--judge", action="store_true", help=judged)
    others.add_argument("--agree", type=Path, metavar="CLIPS", help="agreement of --model with MoveNet Thunder")
    others.add_argument("--model", help="a shipped model's name or a model folder (default: the --output of --kind)")
    others.add_argument("--json", type=Path, help="also write the figures of --judge or --agree to this file")


def run(args: argparse.Namespace) -> int:
    """Do what the options say; returns the exit code. Raises UserError for missing files."""
    check_options(args)
    output = args.output or args.work / f"stick_{args.kind}"
    if args.agree is not None:
        model = args.model or str(output)
        distances = agree.measure(model, video_files(args.agree), args.limit, args.threads)
        sys.stdout.write(agree.report(model, distances, args.json) + "\n")
        return 0
    if args.judge:
        return run_judge(args, args.model or str(output))
    if args.int8:
        return run_int8(args, args.model or str(output))
    if args.table is None and args.clips is None:
        raise UserError("nothing to learn from: give --table (renders), --clips (real videos) or both")
    if args.kind == "fused":
        return run_fused(args, output)
    return run_crops(args, output)


def check_options(args: argparse.Namespace) -> None:
    """Raises UserError for numbers that leave nothing to do, and for options that --kind does not know."""
    least = {"epochs": 1, "samples": FitSettings().batch if args.kind == "heatmap" else 1, "threads": 1}
    for name, number in least.items():
        if (value := getattr(args, name)) is not None and value < number:
            raise UserError(f"--{name} {value} is too few for --kind {args.kind}; give at least {number}")
    if args.size is not None and args.kind != "fused":
        raise UserError(f"--size is of --kind fused alone, and {args.kind} has its own; leave it out")
    if args.threshold is not None and (args.kind == "fused" or args.int8 or args.agree is not None):
        raise UserError("--threshold is of --kind heatmap and yolo and of --judge alone; leave it out")
    if args.init and args.kind == "yolo":
        raise UserError("--kind yolo begins with random weights; leave out --init, or choose --kind heatmap or fused")


def run_crops(args: argparse.Namespace, output: Path) -> int:
    """Train, export and judge a network that looks at crops."""
    work = args.work / args.kind
    started_ns, minutes = now_ns(), minutes_before(work) if args.resume else 0.0
    if not args.evaluate_only:
        if not args.resume:
            (refuse_unfinished_yolo if args.kind == "yolo" else refuse_unfinished)(work)
        if args.table:
            refuse_untrainable(args.table)
        clips = video_files(args.clips) if args.clips else []
        fill_cache(args.table, clips, args.work / "cache")
        init = weights_file(args.init) if args.init else None
        if not args.resume:
            keep_begun(work, Begun(name_of(init) if init else "", data_text(args.table, clips)))
        train(args, work, init)
    minutes += (now_ns() - started_ns) / 60e9
    metrics = {} if args.evaluate_only else {"training_minutes": round(minutes, 1)}
    finish_crops(args, work, output, metrics)
    log.info("model written to %s", output)
    return 0


def finish_crops(args: argparse.Namespace, work: Path, output: Path, more: dict[str, float]) -> None:
    """Export the weights of `work`, judge them and write the model folder `output`; `more` figures go into its card."""

    def seen(split: str) -> list[evaluate.Seen]:
        return evaluate.seen_rows(args.table, split, args.limit) if args.table else []

    kind = KINDS[args.kind].begun_as(read_begun(work))
    with whole_model(output) as part:
        export(args.kind, work, part)
        write_card(part, kind, 0.5, {})  # only to be judged
        threshold, metrics = judge(
            evaluate.StickModel(str(part)), part / "model.onnx",
            seen("val") if args.threshold is None else [], seen("test"),
            video_files(args.clips) if args.clips else [], work / "test_sheet.jpg", args.limit, args.threshold,
        )  # fmt: skip
        log_figures(metrics)
        write_card(part, kind, threshold, metrics | more)


def run_fused(args: argparse.Namespace, output: Path) -> int:
    """Train, export and judge the fused network."""
    from training.stick.fused_judge import finish

    work, clips = args.work / "fused", video_files(args.clips) if args.clips else []
    if not args.evaluate_only:
        given = {"epochs": args.epochs, "pictures": args.samples, "size": args.size, "seed": args.seed}
        given |= {"threads": args.threads}
        settings = FusedSettings(**{name: value for name, value in given.items() if value is not None})
        fit_fused(args.table, clips, work, settings, args.resume, weights_file(args.init) if args.init else None)
    log_figures(finish(work, output, args.table, clips, args.limit, args.threads))
    log.info("model written to %s", output)
    return 0


def log_figures(metrics: dict[str, Any]) -> None:
    for name, value in metrics.items():
        log.info("%s: %s", name, value)


def run_judge(args: argparse.Namespace, model: str) -> int:
    """Print a stick detector's figures on every picture of a table, and on sticks drawn into clips."""
    if args.table is None and args.clips is None:
        raise UserError("--judge needs --table, pictures of people whom the model has never met, or --clips")
    card = load_card(model)[0]
    if card.architecture != KINDS["heatmap"].architecture:
        raise UserError(f"--judge knows stick detectors with heatmaps, and {model} is of {card.architecture}")
    stick, threshold = evaluate.StickModel(model), card.threshold or 0.0
    if args.threshold is not None:
        threshold = args.threshold
    figures: dict[str, Any] = {"model": model, "threshold": threshold}
    if args.table is not None:
        outcomes = evaluate.outcomes(stick, evaluate.seen_rows(args.table, limit=args.limit))
        if not any(outcome.visible for outcome in outcomes):
            raise UserError(f"{args.table} shows nobody with a stick; give a table with grip and tip")
        figures["views"] = {"all": evaluate.summarise(outcomes, threshold)} | evaluate.by_view(outcomes, threshold)
    if args.clips is not None:
        clips = video_files(args.clips)
        # What the shipped detectors have learnt from is no test of them.
        figures |= drawn_figures(stick, [c for c in clips if c.stem in HELD_OUT] or clips, threshold, args.limit)
        if "drawn_into_clips" not in figures:
            raise UserError(f"no hand is seen in the videos of {args.clips}; give some that show whole people")
    text = json.dumps(figures, indent=1)
    sys.stdout.write(text + "\n")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
    return 0


def run_int8(args: argparse.Namespace, model: str) -> int:
    """Quantise a model folder and print FP32 beside INT8."""
    from training.stick.int8 import quantise_detector, table_text

    if args.table is None:
        raise UserError("--int8 needs --table: pictures to calibrate on (val) and to judge by (test)")
    output = args.output if args.model and args.output else args.work / f"{Path(model).name}_int8"
    clips = video_files(args.clips) if args.clips else []
    rows = quantise_detector(model, args.table, clips, output, args.limit, args.threads)
    sys.stdout.write(table_text(rows) + f"\nmodel written to {output}\n")
    return 0


def refuse_untrainable(table: Path) -> None:
    """Raises UserError when a table has no picture to learn from: the clips alone would be learnt from, unnoticed."""
    if not any(row.split == "train" and row.path.is_file() for row in read_rows(table)):
        raise UserError(
            f"{table} names no picture of split train that is there; correct its column `split` or `image_path`, or "
            "leave out --table"
        )


def fill_cache(table: Path | None, clips: list[Path], cache: Path) -> None:
    """Cache what is new in the table, and the clips once. Raises UserError when the cache holds anything else."""
    find = keypoints_finder(served_detector())
    extend_cache(table, cache, "train", find)
    if added := cache_clips(clips, cache):
        log.info("cached %d crops of clips", added)


def video_files(folder: Path) -> list[Path]:
    """The videos of a folder. Raises UserError when there is none."""
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in VIDEO_FILES)
    if not found:
        raise UserError(f"folder {folder} holds no video ({', '.join(VIDEO_FILES)})")
    stem, count = Counter(p.stem for p in found).most_common(1)[0]
    if count > 1:
        raise UserError(f"folder {folder} holds {count} videos {stem}, told apart by their endings alone; rename them")
    return found


def train(args: argparse.Namespace, work: Path, init: Path | None) -> None:
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
    fit(cache, work, FitSettings(**given), args.resume, init)


def export(kind: str, work: Path, output: Path) -> None:
    """Write `model.onnx` of the last weights, and these beside it."""
    weights = work / ("yolo/weights/last.pt" if kind == "yolo" else WEIGHTS_FILE)
    served = load_yolo(weights) if kind == "yolo" else Served(load_weights(weights)).eval()
    export_onnx(served, output / "model.onnx", KINDS[kind].form)
    shutil.copyfile(weights, output / WEIGHTS_FILE)
