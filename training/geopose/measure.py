"""How good it is: accuracy, calibration and rejection, on people who were never trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.classify import class_probabilities

THRESHOLDS = np.arange(0.5, 0.96, 0.01)
"""From one half on, the family and the chamber with the largest sums are those of the label."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The divisor of the logits with the least negative log-likelihood (Guo et al. 2017), 0.3 to 5."""
    candidates = np.exp(np.linspace(np.log(0.3), np.log(5), 200))
    rows = np.arange(len(labels))
    losses = [-np.log(class_probabilities(logits, t)[rows, labels] + 1e-12).mean() for t in candidates]
    return round(float(candidates[int(np.argmin(losses))]), 3)


def fit_threshold(probabilities: np.ndarray, labels: np.ndarray, wanted: float = 0.9) -> float:
    """The least confidence from which the accepted answers are right as often as `wanted` (else the best there is)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    shares = [right[confidence >= t].mean() if (confidence >= t).any() else 0.0 for t in THRESHOLDS]
    good = [t for t, share in zip(THRESHOLDS, shares, strict=True) if share >= wanted]
    return round(float(good[0] if good else THRESHOLDS[int(np.argmax(shares))]), 2)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence (Guo et al. 2017, eq. 3)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [number == b for b in np.unique(number)]
    return float(sum(abs(right[bin].mean() - confidence[bin].mean()) * bin.mean() for bin in inside))


def report(
    logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...], temperature: float, threshold: float
) -> dict[str, Any]:
    """All figures of one set of samples; `neutral` is the last class of `names`."""
    probabilities = class_probabilities(logits, temperature)
    predicted = probabilities.argmax(1)
    accepted = probabilities.max(1) >= threshold
    count = len(names)
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (labels, predicted), 1)
    recall = np.diag(confusion) / np.maximum(confusion.sum(1), 1)
    f1 = 2 * np.diag(confusion) / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
    there = confusion.sum(1) > 0
    neutral = labels == names.index("neutral") if "neutral" in names else np.zeros(len(labels), bool)
    false_pose = accepted & (predicted != names.index("neutral")) if "neutral" in names else accepted
    return {
        "samples": len(labels),
        "top1": float((predicted == labels).mean()),
        "macro_f1": float(f1[there].mean()),
        "ece": expected_calibration_error(probabilities, labels),
        "coverage": float(accepted.mean()),
        "accepted_accuracy": float((predicted == labels)[accepted].mean()) if accepted.any() else 0.0,
        "neutral_taken_for_pose": float(false_pose[neutral].mean()) if neutral.any() else 0.0,
        "recall": {name: float(r) for name, r, t in zip(names, recall, there, strict=True) if t},
        "confusion": confusion.tolist(),
    }


def person_interval(right: np.ndarray, people: np.ndarray, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the accuracy, by drawing whole people with replacement."""
    rng = np.random.default_rng(seed)
    names, number = np.unique(people, return_inverse=True)
    hits, counts = np.bincount(number, right.astype(float)), np.bincount(number)
    drawn = rng.integers(0, len(names), (draws, len(names)))
    scores = hits[drawn].sum(1) / counts[drawn].sum(1)
    return float(np.quantile(scores, 0.025)), float(np.quantile(scores, 0.975))


def top_poses(logits: np.ndarray, labels: np.ndarray, pose_count: int) -> tuple[float, float]:
    """Top-1 and top-2 among the first `pose_count` classes (the poses without `neutral`), over samples of those."""
    keep = labels < pose_count
    order = np.argsort(-logits[keep, :pose_count], 1)
    hits = order == labels[keep, None]
    return float(hits[:, 0].mean()), float(hits[:, :2].any(1).mean())
