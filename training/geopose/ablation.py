"""Variants of classifiers, measured on the same folds, and what sets them apart beyond chance."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np

from engine.errors import UserError
from stages.classes import ClassFile
from stages.correct import CorrectMethod
from training.classifiers import NAMES, TREES, network_model
from training.geopose.augment import KeypointFaults
from training.geopose.batches import Mixture
from training.geopose.checkpoint import read_checkpoint, weights_hash
from training.geopose.data import PoseTable
from training.geopose.fit import data_hash
from training.geopose.folds import cross_validate, fold_report
from training.geopose.settings import FitSettings
from training.notes import read_note
from training.weights import weights_file

log = logging.getLogger(__name__)

_ANEW = "delete it, and the variant is measured anew"


@dataclass(frozen=True)
class Variant:
    """One line of the comparison, written MODEL+NAME=VALUE+..."""

    text: str
    model: str
    changes: tuple[str, ...] = ()
    """Settings of the training."""
    correct: CorrectMethod = "off"
    crop: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a variant came to."""

    variant: str
    figures: dict[str, Any]
    right: np.ndarray
    """bool (N,), in the table's order."""


class _Measured(msgspec.Struct):
    """What `outcome.json` holds."""

    facts: dict[str, Any]
    figures: dict[str, Any]
    right: list[int]


def parse_variant(text: str) -> Variant:
    """Raises UserError for one that makes no sense."""
    model, *parts = text.split("+")
    if model not in NAMES:
        raise UserError(f"{text!r} is no variant: there is no model {model!r}; there are {', '.join(NAMES)}")
    values = dict(part.split("=", 1) for part in parts if part.startswith(("correct=", "crop=")))
    if values.get("crop", "on") not in ("on", "off"):
        raise UserError(f"{text!r} is no variant: crop is on or off")
    changes = tuple(part for part in parts if not part.startswith(("correct=", "crop=")))
    FitSettings().changed(changes)
    methods: dict[str, CorrectMethod] = {method: method for method in get_args(CorrectMethod)}
    correct = methods.get(values.get("correct", "off"))
    if correct is None:
        raise UserError(f"{text!r} is no variant: correct is one of {', '.join(methods)}")
    return Variant(text, model, changes, correct, values.get("crop", "on") == "on")


def model_variants(has_crops: bool) -> list[str]:
    """All classifiers that can say something about such a table."""
    blind = ("geopose_graph", "stgcn_fusion", "pose_vit", *TREES)
    return list(NAMES) if has_crops else list(blind)


def effect_variants(base: str, has_crops: bool, corrections: Sequence[str], has_neutral: bool = True) -> list[str]:
    """The base without each of its parts, and with each that it does not have, such as `corrections` of the stick;
    nothing that its network doesn't read."""
    variant = parse_variant(base)
    model, settings = network_model(variant.model), FitSettings().changed(variant.changes)
    # How far a limb is missed by says nothing where none is missed: `without=limb_miss` is both.
    faults = [f"without={field.name}" for field in fields(KeypointFaults) if field.name != "limb_miss_by"]
    parts = [f"drop_edge={0 if settings.drop_edge else 0.1}", f"edge_noise={0 if settings.edge_noise else 0.02}",
             f"mixup={0 if settings.mixup else 0.4}", f"arcface={0 if settings.arcface else 0.3}",
             f"smoothing={0 if settings.smoothing else 0.1}",
             *(["faults=mild"] if settings.faults == "none" else ["faults=none", *faults])]  # fmt: skip
    parts += [] if settings.strengths else ["strengths=node_dropout:0.1"]
    parts += [f"hard_negatives={0 if settings.hard_negatives else 0.1}"] if has_neutral else []
    parts += [f"crop_faults={str(not settings.crop_faults).lower()}"] if has_crops else []
    parts += ["crop=off"] if has_crops and not model.needs_crops and "crop_faults" not in model.unread else []
    parts += [f"correct={method}" for method in corrections]
    return [base, *(f"{base}+{part}" for part in parts if part.partition("=")[0] not in model.unread)]


def run_variants(
    variants: Sequence[Variant],
    table_for: Callable[[Variant], PoseTable],
    classes: ClassFile,
    settings: FitSettings,
    folds: int,
    groups: str,
    run: Path,
) -> list[Outcome]:
    """Each variant's outcome, from its file in `run` where it has been measured before with the same data."""
    outcomes = []
    for variant in variants:
        table = table_for(variant)
        told = settings.changed(variant.changes)
        begun = weights_hash(read_checkpoint(weights_file(told.start))) if told.start else ""
        facts = {"settings": json.loads(json.dumps(asdict(told))), "folds": folds, "start_sha256": begun,
                 "classes_sha256": classes.digest(), "data_sha256": data_hash(Mixture(table), table)}  # fmt: skip
        folder = run / re.sub("[=,:]", "-", variant.text)
        known = folder / "outcome.json"
        if known.is_file() and (entry := read_note(known, _Measured, _ANEW)).facts == facts:
            outcomes.append(Outcome(variant.text, entry.figures, np.array(entry.right, bool)))
            continue
        result = cross_validate(variant.model, table, classes, told, folds, folder)
        right = result.probabilities.argmax(1) == table.labels
        figures = fold_report(result, table, classes, groups)
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps({"facts": facts, "figures": figures, "right": right.astype(int).tolist()}))
        outcomes.append(Outcome(variant.text, figures, right))
        log.info("%s: top-1 %.3f", variant.text, figures["top1"])
    return outcomes
