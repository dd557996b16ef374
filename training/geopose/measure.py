"""How good it is: accuracy, calibration and rejection, on people who were never trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.classes import NEUTRAL_KIND, ClassFile
from stages.classify import class_probabilities

THRESHOLDS = np.arange(0.5, 0.96, 0.01)
"""From one half on, the family and the chamber with the largest sums are those of the label."""
COVERAGES = np.arange(1, 21) / 20
"""Where the curve of risk over coverage is read off."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The divisor of the logits with the least negative log-likelihood (Guo et al. 2017), 0.3 to 5."""
    candidates = np.exp(np.linspace(np.log(0.3), np.log(5), 200))
    rows = np.arange(len(labels))
    losses = [-np.log(class_probabilities(logits, t)[rows, labels] + 1e-12).mean() for t in candidates]
    return round(float(candidates[int(np.argmin(losses))]), 3)


def fit_threshold(probabilities: np.ndarray, labels: np.ndarray, wanted: float = 0.9) -> float:
    """The least confidence from which the accepted answers are right as often as `wanted`, with 95 % certainty; else
    the one of which most is certain.

    The share that was counted would not do: the luckiest of many thresholds is chosen by it, and other people then
    hear more mistakes than they were promised.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    accepted = confidence >= THRESHOLDS[:, None]
    certain = _at_least((accepted & right).sum(1), accepted.sum(1))
    good = THRESHOLDS[certain >= wanted]
    return round(float(good[0] if len(good) else THRESHOLDS[int(certain.argmax())]), 2)


def _at_least(right: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Lower end of the one-sided 95 % interval of a share (Wilson 1927); 0 of nothing."""
    z2 = 1.645**2
    total = np.maximum(of, 1)
    share = right / total
    spread = np.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2)))
    return np.where(of > 0, (share + z2 / (2 * total) - spread) / (1 + z2 / total), 0.0)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence (Guo et al. 2017, eq. 3)."""
    found = reliability(probabilities, labels, bins)
    return sum(abs(right - confidence) * count for confidence, right, count in found) / max(len(labels), 1)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right answers and samples, in equal bins of confidence; empty ones are left out."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [number == b for b in np.unique(number)]
    return [(float(confidence[b].mean()), float(right[b].mean()), int(b.sum())) for b in inside]


def report(
    probabilities: np.ndarray,
    labels: np.ndarray,
    people: np.ndarray,
    views: np.ndarray,
    classes: ClassFile,
    threshold: float | np.ndarray,
) -> dict[str, Any]:
    """All figures of N samples, ready for JSON.

    `probabilities` (N, classes) are calibrated; `labels`, `people` and `views` are (N,); `threshold` may differ from
    sample to sample, as over folds. `coverage` is the share that is accepted, `poses` what is left when `neutral` is
    neither asked nor answered.
    """
    names = classes.names
    predicted = probabilities.argmax(1)
    right = predicted == labels
    accepted = probabilities.max(1) >= threshold
    confusion = confusion_matrix(predicted, labels, len(names))
    per_class = class_figures(confusion, names)
    return {
        "classes": list(names),
        "samples": len(labels),
        "people": len(np.unique(people)),
        "top1": float(right.mean()),
        "top1_interval_by_person": person_interval(right, people),
        "top2": float(top_hits(probabilities, labels, 2).mean()),
        "macro_f1": float(np.mean([figures["f1"] for figures in per_class.values()])),
        "kappa": cohen_kappa(confusion),
        "ece": expected_calibration_error(probabilities, labels),
        "coverage": float(accepted.mean()),
        "accepted_accuracy": float(right[accepted].mean()) if accepted.any() else 0.0,
        "by_view": {
            str(view): {"samples": int((views == view).sum()), "top1": float(right[views == view].mean())}
            for view in np.unique(views)
        },
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "look_alikes": look_alikes(confusion, classes),
        "risk_coverage": risk_coverage(probabilities, labels),
        "reliability": reliability(probabilities, labels),
        **_neutral_figures(probabilities, labels, accepted, classes),
    }


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """int (count, count): rows are the truth, columns the answers."""
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (labels, predicted), 1)
    return confusion


def class_figures(confusion: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Samples, precision, recall and F1 of every class that occurs."""
    hits, truth, answers = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return {
        name: {
            "samples": int(truth[i]), "precision": float(hits[i] / max(answers[i], 1)),
            "recall": float(hits[i] / truth[i]), "f1": float(2 * hits[i] / (truth[i] + answers[i])),
        }
        for i, name in enumerate(names) if truth[i]
    }  # fmt: skip


def cohen_kappa(confusion: np.ndarray) -> float:
    """Agreement beyond chance (Cohen 1960)."""
    total = max(confusion.sum(), 1)
    observed = np.trace(confusion) / total
    expected = float(confusion.sum(0) @ confusion.sum(1)) / total**2
    return float((observed - expected) / (1 - expected)) if expected < 1 else 0.0


def look_alikes(confusion: np.ndarray, classes: ClassFile) -> list[dict[str, Any]]:
    """How often two classes of the same kind and side, which differ in height only, are taken for each other: the
    pairs that look alike in pictures (left temple and left elbow block, right chest and right eye thrust)."""
    pairs = []
    for i, a in enumerate(classes.classes):
        for j, b in enumerate(classes.classes[:i]):
            count = int(confusion[i].sum() + confusion[j].sum())
            if a.kind == b.kind and a.side == b.side and count:
                mistaken = int(confusion[i, j] + confusion[j, i])
                pairs.append({"classes": [b.name, a.name], "mistaken": mistaken, "share": mistaken / count})
    return sorted(pairs, key=lambda pair: -pair["share"])


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    """Share that is answered, from the surest twentieth to all, and share of wrong ones among those
    (Geifman & El-Yaniv 2017)."""
    order = np.argsort(-probabilities.max(1), kind="stable")
    wrong = (probabilities.argmax(1) != labels)[order]
    ends = np.maximum(np.round(COVERAGES * len(labels)).astype(int), 1)
    return [(float(end / len(labels)), float(wrong[:end].mean())) for end in ends]


def top_hits(scores: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """bool (N,): whether the label is among the `count` classes with the highest scores (N, classes)."""
    hits: np.ndarray = (np.argsort(-scores, 1, kind="stable")[:, :count] == labels[:, None]).any(1)
    return hits


def person_interval(right: np.ndarray, people: np.ndarray, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `right` (N,), by drawing whole people with replacement."""
    rng = np.random.default_rng(seed)
    names, number = np.unique(people, return_inverse=True)
    hits, counts = np.bincount(number, right.astype(float)), np.bincount(number)
    drawn = rng.integers(0, len(names), (draws, len(names)))
    scores = hits[drawn].sum(1) / counts[drawn].sum(1)
    return float(np.quantile(scores, 0.025)), float(np.quantile(scores, 0.975))


def summary(figures: dict[str, Any]) -> dict[str, float]:
    """The single numbers of a report, those of the poses alone as `poses_...`."""
    poses = {f"poses_{name}": value for name, value in figures.get("poses", {}).items()}
    return {name: value for name, value in (figures | poses).items() if isinstance(value, (int, float))}


def for_card(figures: dict[str, Any]) -> dict[str, Any]:
    """What a model's card says of a report: no curves, one number a class and a view."""
    left_out = ("classes", "risk_coverage", "reliability", "look_alikes", "per_class", "by_view")
    kept = {name: value for name, value in figures.items() if name not in left_out}
    kept["recall"] = {name: row["recall"] for name, row in figures["per_class"].items()}
    kept["top1_by_view"] = {view or "unknown": row["top1"] for view, row in figures["by_view"].items()}
    return kept


def _neutral_figures(
    probabilities: np.ndarray, labels: np.ndarray, accepted: np.ndarray, classes: ClassFile
) -> dict[str, Any]:
    """How often `neutral` passes for a pose, and the figures of the poses alone; nothing without such a class."""
    kinds = [c.kind for c in classes.classes]
    if NEUTRAL_KIND not in kinds:
        return {}
    neutral = kinds.index(NEUTRAL_KIND)
    idle, posed = labels == neutral, labels != neutral
    scores = np.delete(probabilities[posed], neutral, 1)
    wanted = labels[posed] - (labels[posed] > neutral)
    figures: dict[str, Any] = {}
    if idle.any():
        taken = accepted & (probabilities.argmax(1) != neutral)
        figures["neutral_taken_for_pose"] = float(taken[idle].mean())
    if posed.any():
        figures["poses"] = {
            "samples": int(posed.sum()), "top1": float(top_hits(scores, wanted, 1).mean()),
            "top2": float(top_hits(scores, wanted, 2).mean()),
        }  # fmt: skip
    return figures
