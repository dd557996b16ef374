"""Cross-validation by person: each fold's people are judged by a classifier that has met none of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from engine.clock import NS_PER_MS, now_ns
from engine.errors import UserError
from stages.classes import NEUTRAL_KIND, ClassFile
from stages.classify import class_probabilities
from training.classifiers import make_classifier
from training.data.table import FEWEST_PEOPLE
from training.geopose import measure
from training.geopose.batches import Mixture
from training.geopose.data import PoseTable
from training.geopose.settings import FitSettings

log = logging.getLogger(__name__)

INNER_FOLDS = 8
"""An eighth of the people that are trained on is kept apart to stop, calibrate and choose the threshold by."""
PEOPLE = "people or recordings"
_SPREAD = ("top1", "top2", "macro_f1", "kappa", "ece", "coverage")
GROUPED = f"{PEOPLE}: nobody is tested by a classifier that has seen them"
OWN_GROUPS = "a group for every picture: not by person, so the figures flatter if somebody is in several"
_FLATTERS = (
    "pictures of one person may be on both sides, and then the figures flatter (0.91 to 0.97 became 0.48 to 0.70 by "
    "recording on a public Arnis table)"
)
UNGROUPED = f"single samples, because the table has no groups and --no-groups was given: {_FLATTERS}"
_NAMELESS = "row "
"""Begins the group of a sample that names nobody."""


@dataclass(frozen=True)
class CrossValidation:
    """Answers to the whole table, each by the fold that did not train on it."""

    probabilities: np.ndarray
    """float (N, classes), calibrated by the fold's own temperature."""
    thresholds: np.ndarray
    """float (N,), of the fold's own inner people."""
    right_as_seen: np.ndarray
    """bool (N,): right also when the weapon hand is that of the one picture, mistaken or not."""
    fold: np.ndarray
    """int (N,)."""
    temperatures: list[float]
    certain: list[bool]
    """Of each fold, whether its inner people were enough to prove that nine of ten accepted answers are right."""
    train_seconds: float | None
    """Of one fold, on average."""
    infer_ms: float
    """Of one sample, in batches of 256."""


def with_groups(table: PoseTable, allow_none: bool) -> tuple[PoseTable, str]:
    """The table with a group for every row, and what the folds are by; raises UserError when groups are missing and
    that is not allowed."""
    nameless = (table.people == "") | (len(np.unique(table.people)) == 1)  # one person alone cannot be split
    if not nameless.any():
        return table, groups_of(table.people)
    if not allow_none and (table.people != "").all():
        raise UserError(
            f"all rows name one person or recording, {table.people[0]}, and {FEWEST_PEOPLE} are the least: what is "
            "learnt from one is tested on another; picture more people, or give --no-groups and mistrust the figures"
        )
    if not allow_none:
        raise UserError(
            "the table names no person or recording in its column `group` for every row, so nothing keeps one person's "
            "pictures on one side of a split; fill it, or give --no-groups and mistrust the figures"
        )
    own = np.array([f"{_NAMELESS}{i}" for i in range(len(table))])
    some = f"{PEOPLE}, and {nameless.sum()} of {len(table)} samples that name nobody, each by itself: {_FLATTERS}"
    return replace(table, people=np.where(nameless, own, table.people)), UNGROUPED if nameless.all() else some


def groups_of(people: np.ndarray) -> str:
    """What a test is by, of samples (N,) that all name somebody."""
    return OWN_GROUPS if 1 < len(people) == len(np.unique(people)) else GROUPED


def named(people: np.ndarray) -> np.ndarray:
    """The names among groups (N,) that are people or recordings."""
    return people[~np.char.startswith(people.astype(str), _NAMELESS)]


def without_neutral(table: PoseTable, classes: ClassFile) -> tuple[PoseTable, ClassFile]:
    """Only the poses, with labels that count without `neutral`."""
    kept = np.array([c.kind != NEUTRAL_KIND for c in classes.classes])
    place = np.cumsum(kept) - 1
    table = table.select(kept[table.labels])
    poses = ClassFile(classes=tuple(c for c in classes.classes if c.kind != NEUTRAL_KIND))
    return replace(table, labels=place[table.labels]), poses


def splits(table: PoseTable, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices to train on and to test on, by group, classes in like shares; raises UserError for too few groups."""
    if len(np.unique(table.people)) < count:
        raise UserError(f"{len(np.unique(table.people))} people or recordings cannot be split in {count} folds; "
                        "record more, or ask for fewer folds")  # fmt: skip
    if (most := np.bincount(table.labels).max()) < count:
        raise UserError(f"no class has more than {most} pictures, which cannot be split in {count} folds; take more, "
                        "or ask for fewer folds")  # fmt: skip
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer members than folds is missing in some: small tables have such.
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(folds.split(table.labels, table.labels, table.people))


def cross_validate(
    model: str,
    table: PoseTable,
    classes: ClassFile,
    settings: FitSettings,
    count: int,
    run: Path,
    mixture: Mixture = Mixture(None),  # noqa: B008 - frozen
) -> CrossValidation:
    """Train and test `count` times; each fold keeps its checkpoints in `run`/fold0, ... and can go on there.

    The weapon hand is known, as votes over a video make it, but for `right_as_seen`. `mixture` says what is learnt
    from beside the fold's own samples; its exact ones may be of the same people: a fold leaves out those whom it is
    stopped or tested by.
    """
    probabilities = np.zeros((len(table), len(classes.classes)))
    thresholds, fold, right = np.zeros(len(table)), np.zeros(len(table), int), np.zeros(len(table), bool)
    as_seen, table = table, table.mirrored(table.wrong_hand)  # learnt from with its mistakes, as the one to ship does
    temperatures, certain, seconds, ms = [], [], [], []
    folds = splits(table, count, settings.seed)
    for train, test in folds if mixture.truth is not None else ():
        # A fold of no use is refused before the first is begun.
        _learnt_and_inner(as_seen.without_crops(), mixture, train, test, settings.seed)[0].errors()
    for number, (train, test) in enumerate(folds):
        learnt, inner = _learnt_and_inner(as_seen, mixture, train, test, settings.seed)
        inner = inner.mirrored(inner.wrong_hand)
        classifier = make_classifier(model, classes)
        seconds.append(classifier.fit(learnt, inner, settings, run / f"fold{number}"))
        trained = now_ns()
        logits = classifier.logits(table.select(test))
        ms.append((now_ns() - trained) / NS_PER_MS / len(test))
        right[test] = classifier.logits(as_seen.select(test)).argmax(1) == table.labels[test]
        inner_logits = classifier.logits(inner)
        temperature = measure.fit_temperature(inner_logits, inner.labels)
        temperatures.append(temperature)
        threshold, sure = measure.fit_threshold(class_probabilities(inner_logits, temperature), inner.labels)
        certain.append(sure)
        probabilities[test] = class_probabilities(logits, temperature)
        thresholds[test], fold[test] = threshold, number
        log.info("%s, fold %d of %d: top-1 %.3f, temperature %.2f, threshold %.2f, %.0f s", model, number + 1, count,
                 (logits.argmax(1) == table.labels[test]).mean(), temperature, threshold, seconds[-1])  # fmt: skip
    if not all(certain):
        log.warning("%s: in %d of %d folds the inner people are too few to be certain that nine of ten accepted "
                    "answers are right", model, certain.count(False), count)  # fmt: skip
    return CrossValidation(
        probabilities, thresholds, right, fold, temperatures, certain,
        float(np.nanmean(seconds)) if np.isfinite(seconds).any() else None, float(np.mean(ms)),
    )


def fold_report(result: CrossValidation, table: PoseTable, classes: ClassFile, groups: str) -> dict[str, Any]:
    """Figures of the pooled answers to `table` as it is seen, and each fold's own with their mean and spread."""
    mistaken = float(table.wrong_hand.mean())
    table = table.mirrored(table.wrong_hand)

    def figures(chosen: np.ndarray) -> dict[str, Any]:
        return measure.report(
            result.probabilities[chosen], table.labels[chosen], table.people[chosen], table.views[chosen], classes,
            result.thresholds[chosen],
        )  # fmt: skip

    folds = [measure.summary(figures(result.fold == number)) for number in range(len(result.temperatures))]
    answering = [fold for fold in folds if fold["coverage"] > 0]
    spread = {name: _spread([fold[name] for fold in folds]) for name in _SPREAD}
    spread["accepted_accuracy"] = _spread([fold["accepted_accuracy"] for fold in answering])
    for number, (fold, temperature) in enumerate(zip(folds, result.temperatures, strict=True)):
        first = np.flatnonzero(result.fold == number)[0]
        fold |= {"temperature": temperature, "threshold": float(result.thresholds[first]),
                 "threshold_certain": result.certain[number]}  # fmt: skip
    return {
        **figures(np.ones(len(table), bool)), "top1_hand_from_one_picture": float(result.right_as_seen.mean()),
        "hand_mistaken": mistaken, "groups": groups, "folds": folds, "over_folds": spread,
        "threshold_certain": all(result.certain), "train_seconds_per_fold": result.train_seconds,
        "infer_ms_per_sample": result.infer_ms,
    }  # fmt: skip


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over folds; 0 where there are too few of them."""
    return {
        "mean": float(np.mean(values)) if values else 0.0,
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
    }


def _learnt_and_inner(
    table: PoseTable, mixture: Mixture, train: np.ndarray, test: np.ndarray, seed: int
) -> tuple[Mixture, PoseTable]:
    """What a fold learns from, and by whom it is stopped; nobody of the test is in either."""
    kept, stopping = _inner(table.select(train), seed)
    inner = table.select(train[stopping])
    held_out = np.concatenate([table.people[test], inner.people])
    return replace(mixture.without_people(held_out), table=table.select(train[kept])), inner


def _inner(part: PoseTable, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to learn from and to stop by, of the training part of a fold, split once more by group."""
    if len(np.unique(part.people)) < 2:
        raise UserError("two people or recordings are too few for folds: one is tested, one trained on, and nobody is "
                        "left to stop and calibrate by; picture more people")  # fmt: skip
    count = max(2, min(INNER_FOLDS, len(np.unique(part.people)), int(np.bincount(part.labels).max())))
    return splits(part, count, seed)[0]
