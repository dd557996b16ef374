"""How good it is: accuracy, calibration and rejection, on people who were never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta
from sklearn.metrics import confusion_matrix

from stages.classes import NEUTRAL_KIND, ClassFile
from stages.classify import class_probabilities

THRESHOLDS = np.arange(0.5, 0.96, 0.01)
"""From one half on, the family and the chamber with the largest sums are those of the label."""
WANTED = 0.9
"""Share of the accepted answers that is to be right."""
FEWEST_ANSWERS = 50
"""By which a threshold is tried: one mistake in them leaves nine of ten certain."""
INTERVAL_PEOPLE = 5
"""With fewer, drawing them anew says nothing of others: one alone would have an interval without width."""
COVERAGES = np.arange(1, 21) / 20
"""Where the curve of risk over coverage is read off."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The divisor of the logits with the least negative log-likelihood (Guo et al. 2017), 0.3 to 5."""
    candidates = np.exp(np.linspace(np.log(0.3), np.log(5), 200))
    rows = np.arange(len(labels))
    losses = [-np.log(class_probabilities(logits, t)[rows, labels] + 1e-12).mean() for t in candidates]
    return round(float(candidates[int(np.argmin(losses))]), 3)


class Threshold(NamedTuple):
    """The confidence from which answers are accepted."""

    value: float
    certain: bool
    """Whether the accepted answers are right as often as wanted, with 95 % certainty, counted by picture."""


def fit_threshold(probabilities: np.ndarray, labels: np.ndarray) -> Threshold:
    """The least confidence down to which nine of ten accepted answers are certainly right; else the one of which
    most is certain, which is the highest where no accepted answer is right.

    Thresholds are tried from the highest downwards until the first that fails: so the certainty is that of a single
    one. The least that passes would be the luckiest of many, and other people would hear more mistakes than they were
    promised.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    accepted = confidence >= THRESHOLDS[:, None]
    answered, hits = accepted.sum(1), (accepted & right).sum(1)
    # Exact (Clopper & Pearson 1934): Wilson's bound makes the promise too often, in up to 6 instead of 5 of 100 cases.
    least = np.nan_to_num(beta.ppf(0.05, hits, answered - hits + 1))
    # Fewer answers prove nothing, even if all but one are right: no threshold is tried by them.
    tried = np.flatnonzero(answered >= FEWEST_ANSWERS)[::-1]
    passed = tried[np.logical_and.accumulate(least[tried] >= WANTED)]
    surest = int(least.argmax()) if hits.any() else -1
    best = passed[-1] if len(passed) else surest
    return Threshold(round(float(THRESHOLDS[best]), 2), len(passed) > 0)


def wilson(hits: Any, total: Any) -> tuple[Any, Any]:
    """95 % interval of shares (Wilson 1927), of numbers or arrays; 0 to 1 of nothing."""
    z = 1.96
    of = np.maximum(total, 1)
    share, weight = hits / of, z * z / of
    middle = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    nothing = np.equal(total, 0)
    return np.where(nothing, 0.0, np.maximum(middle - half, 0)), np.where(nothing, 1.0, np.minimum(middle + half, 1))


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
    confusion = confusion_matrix(labels, predicted, labels=np.arange(len(names)))  # rows are the truth
    per_class = class_figures(confusion, names)
    return {
        "classes": list(names),
        "samples": len(labels),
        "people": len(np.unique(people[people != ""])),
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


def person_interval(right: np.ndarray, people: np.ndarray, draws: int = 500) -> tuple[float, float] | None:
    """95 % interval of the mean of `right` (N,), by drawing whole people with replacement; None of too few people."""
    rng = np.random.default_rng(0)
    names, number = np.unique(people, return_inverse=True)
    if len(names) < INTERVAL_PEOPLE:
        return None
    hits, counts = np.bincount(number, right.astype(float)), np.bincount(number)
    drawn = rng.integers(0, len(names), (draws, len(names)))
    scores = hits[drawn].sum(1) / counts[drawn].sum(1)
    return float(np.quantile(scores, 0.025)), float(np.quantile(scores, 0.975))


def summary(figures: dict[str, Any]) -> dict[str, float]:
    """The single numbers of a report, those of the poses alone as `poses_...`."""
    poses = {f"poses_{name}": value for name, value in figures.get("poses", {}).items()}
    return {name: value for name, value in (figures | poses).items() if isinstance(value, (int, float))}


def summary_line(figures: dict[str, Any]) -> str:
    """The main figures in the words of `training/README.md`."""
    interval = figures.get("top1_interval_by_person", ())
    said = [
        f"{figures['samples']} samples: top-1 {figures['top1']:.1%}"
        + (f" (interval {interval_text(interval, '.1%')})" if interval != () else ""),
        f"top-2 {figures['top2']:.1%}",
        f"macro-F1 {figures['macro_f1']:.2f}",
        f"calibration error {figures['ece']:.2f}",
        f"coverage {figures['coverage']:.0%}",
        f"accepted accuracy {figures['accepted_accuracy']:.0%}" if figures["coverage"] else "no answer sure enough",
    ]
    return ", ".join(said)


def for_card(figures: dict[str, Any]) -> dict[str, Any]:
    """What a model's card says of a report: no curves, one number a class and a view, nothing that is not known."""
    left_out = ("classes", "risk_coverage", "reliability", "look_alikes", "per_class", "by_view")
    kept = {name: value for name, value in figures.items() if name not in left_out and value is not None}
    kept["recall"] = {name: row["recall"] for name, row in figures["per_class"].items()}
    kept["top1_by_view"] = {view or "unknown": row["top1"] for view, row in figures["by_view"].items()}
    return kept


def interval_text(interval: Sequence[float] | None, form: str = ".3f") -> str:
    """For people."""
    return "too few people" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


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
