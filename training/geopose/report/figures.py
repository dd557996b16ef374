"""What a run has found out, as read from its folder, and what follows from it by counting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.errors import UserError
from training.geopose.measure import class_figures, wilson
from training.geopose.quantise import PrecisionRow

ReliabilityBin = tuple[float, float, int]
"""Mean confidence, share of right answers, number of samples."""


class ViewFigures(msgspec.Struct, frozen=True):
    """One view."""

    samples: int
    top1: float


class LookAlikes(msgspec.Struct, frozen=True):
    """Two classes that look alike, and how often they are taken for each other."""

    classes: tuple[str, str]
    mistaken: int
    share: float
    """Of the samples of both."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `report.json` holds, as far as the page shows it; what a run did not measure is None or empty."""

    classes: tuple[str, ...]
    confusion: list[list[int]]
    """Rows: true class; columns: answer."""
    samples: int
    top1: float
    model: str = "geopose"
    people: int = 0
    top1_interval_by_person: tuple[float, float] | None = None
    top2: float | None = None
    macro_f1: float | None = None
    kappa: float | None = None
    ece: float | None = None
    coverage: float | None = None
    accepted_accuracy: float | None = None
    neutral_taken_for_pose: float | None = None
    top1_without_crop: float | None = None
    top1_hand_from_one_picture: float | None = None
    hand_mistaken: float = 0.0
    """Share of the pictures in which the stick was seen in the other hand."""
    poses: dict[str, float] = {}
    """Figures where neutral is neither asked nor answered."""
    temperature: float | None = None
    threshold: float | None = None
    threshold_certain: bool = True
    """Whether nine of ten accepted answers are certainly right; older reports don't say."""
    threshold_raised: bool = False
    """Whether somebody wants surer answers than that."""
    by_view: dict[str, ViewFigures] = {}
    risk_coverage: list[tuple[float, float]] = []
    """Share of samples answered, share of those answers that are wrong."""
    reliability: list[ReliabilityBin] = []
    look_alikes: list[LookAlikes] = []
    folds: list[dict[str, Any]] = []
    over_folds: dict[str, dict[str, float]] = {}
    """Their `mean` and `std`, by figure."""
    precisions: list[PrecisionRow] = []
    parity_200: dict[str, float] = {}
    real_keypoints_without_crop: dict[str, float] = {}
    validity: dict[str, float] = {}
    """Share of the poses that pass each check, as seen: sticks after their correction unless `see --correct off`."""
    stick: dict[str, float] = {}
    train_seconds_per_fold: float | None = None
    infer_ms_per_sample: float | None = None
    training: dict[str, Any] = {}
    """Settings, seed, data hash and revision, as the checkpoint tells them."""
    data: str = ""
    notes: str = ""
    groups: str = ""
    """What the test is by, where the run says it."""


class ClassRow(msgspec.Struct, frozen=True):
    """One class, counted from the confusion matrix."""

    name: str
    samples: int
    recall: float
    recall_interval: tuple[float, float]
    """Wilson, 95 %, as if samples were independent; those of one person are not."""
    precision: float
    f1: float
    mistaken_for: str
    """The most frequent wrong answer, or empty."""
    mistaken: int


class MixedPair(msgspec.Struct, frozen=True):
    """Two classes taken for each other, in both directions together."""

    first: str
    second: str
    count: int
    known: bool
    """One of the pairs that look alike."""


def read_report(file: Path) -> RunReport:
    """A report.json of a run, or what `evaluate --json` wrote; raises UserError when it is missing or no report."""
    if not file.is_file():
        raise UserError(f"{file} does not exist; make it with `arnis-train fit` or `arnis-train export`")
    try:
        return msgspec.json.decode(file.read_bytes(), type=RunReport)
    except msgspec.DecodeError as error:
        raise UserError(f"report {file} cannot be read ({error}); make it anew") from None


def class_rows(report: RunReport) -> list[ClassRow]:
    """Those classes that were tested, in their order."""
    matrix = np.asarray(report.confusion)
    rows = []
    for name, counted in class_figures(matrix, report.classes).items():
        i = report.classes.index(name)
        wrong = matrix[i].copy()
        wrong[i] = 0
        worst = int(wrong.argmax())
        low, high = wilson(matrix[i, i], counted["samples"])
        rows.append(ClassRow(
            name, int(counted["samples"]), counted["recall"], (float(low), float(high)), counted["precision"],
            counted["f1"], report.classes[worst] if wrong[worst] else "", int(wrong[worst]),
        ))  # fmt: skip
    return rows


def mixed_pairs(report: RunReport) -> list[MixedPair]:
    """All pairs that were mixed up, most often first."""
    matrix, known = np.asarray(report.confusion), look_alike_pairs(report)
    both = matrix + matrix.T
    pairs = [
        MixedPair(a, b, int(both[i, j]), frozenset((a, b)) in known)
        for i, a in enumerate(report.classes)
        for j, b in enumerate(report.classes)
        if i < j and both[i, j]
    ]
    return sorted(pairs, key=lambda pair: -pair.count)


def look_alike_pairs(report: RunReport) -> set[frozenset[str]]:
    """The pairs that are known to look alike."""
    return {frozenset(pair.classes) for pair in report.look_alikes}


def names_text(names: Sequence[str]) -> str:
    """`a, b and c`, as people read it."""
    words = [name.replace("_", " ") for name in names]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
