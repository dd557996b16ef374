"""`arnis-train explain`: what a network looks at and what its answers hang on, for classes or for one picture."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import torch
from torch import nn

from engine.errors import UserError
from engine.numbers import at_least
from stages.cards import load_card, load_model_classes, model_folder
from stages.classes import ClassFile, load_classes
from stages.classify import class_probabilities
from stages.graph import hand_crop, mirror_keypoints
from training.geopose.data import PoseTable, keypoint_table
from training.geopose.explain import EXPLAINED_SAMPLES, evenly_sampled, explain_picture, explain_table
from training.geopose.fit import load_trained, predict
from training.geopose.parts import add_hand_argument, load_parts
from training.geopose.people import refuse_met
from training.see import Detectors, detected_keypoints
from training.weights import weights_file

OUT = Path("runs/explain")

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `explain`."""
    parser.add_argument("--model", default="geopose",
                        help="shipped model's name (default geopose), model folder, or best.pt of a run")  # fmt: skip
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seen", type=Path, help="folder that `see` wrote; its test people are averaged")
    what.add_argument("--table", type=Path, dest="seen", metavar="TABLE", help="the same of keypoints without pictures")
    what.add_argument("--picture", type=Path, help="one picture of a person with a stick")
    parser.add_argument("--no-groups", action="store_true", help="the table names no people, as it did to `fit`")
    add_hand_argument(parser)
    parser.add_argument("--classes", type=Path, help="class file (default: the model's own)")
    parser.add_argument("--class", dest="class_name", help="with --seen: only this class (default: each and all)")
    parser.add_argument(
        "--samples",
        type=at_least(1),
        default=EXPLAINED_SAMPLES,
        help=f"at most so many test samples (default {EXPLAINED_SAMPLES})",
    )
    parser.add_argument("--threads", type=at_least(1), default=1, help="of torch (default 1)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder for the PNG and JSON files (default {OUT})")


def run(args: argparse.Namespace) -> int:
    """Explain and write; 0 on success."""
    torch.set_num_threads(args.threads)
    classes = load_classes(args.classes) if args.classes else load_model_classes(args.model)
    if args.class_name and args.class_name not in classes.names:
        raise UserError(f"--class {args.class_name} is not in the class file; choose from {', '.join(classes.names)}")
    weights = weights_file(args.model)
    model, state = load_trained(weights, classes)
    # What the program uses: `export` calibrates once more than the training did.
    is_exported = model_folder(args.model).is_dir()
    temperature = load_card(args.model)[0].temperature if is_exported else state.get("temperature")
    temperature = temperature or 1.0
    if args.picture:
        _explain_picture(model, args.picture, classes, args.out, temperature, args.hand)
        return 0
    tested = load_parts(args.seen, classes, args.no_groups, args.hand).test
    refuse_met(state, weights, tested.people)
    if args.class_name:
        everybody = len(np.unique(tested.people))
        tested = tested.select(tested.labels == classes.names.index(args.class_name))
        if not len(tested):
            raise UserError(f"none of the test people of {args.seen} ({everybody}) shows {args.class_name}; leave "
                            "--class out, give a picture of it with --picture, or picture more people")  # fmt: skip
    table = evenly_sampled(tested, args.samples)
    explanation = explain_table(model, table, classes.names, args.out, temperature, data=args.seen.name)
    log.info("wrote %d explanations to %s", len(explanation.explained), args.out)
    return 0


def _explain_picture(
    model: nn.Module, file: Path, classes: ClassFile, out: Path, temperature: float, hand: str | None
) -> None:
    image = cv2.imread(os.fspath(file)) if file.is_file() else None
    if image is None:
        raise UserError(f"picture {file} does not exist or cannot be read; give a JPEG or PNG file")
    keypoints, hand = detected_keypoints(Detectors(closer="auto", hand=hand or ""))(image, file.name, True)
    if not keypoints[:, 2].any():
        raise UserError(f"nobody is seen in {file}; give a picture that shows a whole person")
    sample = one_sample(image, keypoints, left_handed=hand == "left")
    probabilities = class_probabilities(predict(model, sample)[0].numpy(), temperature)[0]
    best = int(probabilities.argmax())
    title = f"{classes.classes[best].title} {probabilities[best]:.0%}"
    entry, drawing = explain_picture(model, sample, image, hand == "left", title, temperature)
    out.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(os.fspath(out / f"{file.stem}.png"), drawing)
    answer = {"picture": file.name, "label": classes.names[best], "confidence": float(probabilities[best])}
    text = msgspec.json.encode({**answer, "explained": entry})
    (out / f"{file.stem}.json").write_bytes(msgspec.json.format(text))
    log.info("%s: wrote %s", title, out / f"{file.stem}.png")


def one_sample(image: np.ndarray, keypoints: np.ndarray, left_handed: bool) -> PoseTable:
    """The table of one picture, uint8 BGR, with `keypoints` (19, 3) as they were seen."""
    crop = hand_crop(image, keypoints, "left" if left_handed else "right")
    canonical = mirror_keypoints(keypoints) if left_handed else keypoints
    sample = keypoint_table(np.nan_to_num(canonical[None]), np.zeros(1, np.int64))
    return sample if crop is None else replace(sample, crops=crop[None], crop_present=np.ones(1, np.float32))
