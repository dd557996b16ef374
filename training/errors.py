"""`arnis-train errors`: the network that tells how far off what is measured of detected keypoints may be.

    arnis-train errors --seen runs/seen/table.csv --truth runs/people/table.csv --output models/measuring_error

It learns from pictures whose true keypoints are known what the detectors make of them. Of each quantity of
`stages.angles` it tells Student's t distribution of the error: feedback gives a cue where the true quantity surely lies
beyond its band.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.numbers import at_least
from stages.angles import QUANTITIES, measure
from stages.classes import ClassFile, load_classes, models_folder
from stages.doubt import FREEDOM, TASK, Error
from stages.feedback import BandTable, FeedbackSettings, bands_for, find_faults, read_bands, severity, worst_by_part
from stages.graph import torso_length
from stages.skeleton import BODY_COUNT
from training.data.readers import read_any
from training.data.table import Table
from training.geopose.data import PoseTable
from training.geopose.folds import GROUPED
from training.geopose.parts import load_parts
from training.geopose.validity import same_pictures
from training.perceptron import Perceptron, data_text, graphs, write_model

EPOCHS = 100
BATCH = 256
RATE = 2e-3
WEIGHT_DECAY = 0.01
UNITS = np.array([{"deg": 10.0}.get(name.rpartition("_")[2], 0.1) for name in QUANTITIES], np.float32)
"""What an error of each quantity is counted in while learning: degrees or torsos."""
FARTHEST = 20.0
"""Units; a larger error counts as this."""
PARITY_BOUND = 2e-3
"""Largest difference of a shift or spread, in degrees or torsos, that is rounding."""

_SAME_PERSON = 0.25
"""Torsos; farther, in the median of the keypoints, is somebody else."""

_log = logging.getLogger(__name__)


class ErrorNet(Perceptron):
    """Of nodes (B, 19, 15) and edges (B, 75, 8), for each of `QUANTITIES` shift and spread (B, 2) in its unit."""

    units: Tensor

    def __init__(self) -> None:
        super().__init__(2 * len(QUANTITIES), hidden=256, dropout=0.3)
        self.register_buffer("units", torch.from_numpy(UNITS))

    def forward(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        shift, log_spread = super().forward(nodes, edges).chunk(2, 1)
        told = torch.stack([shift * self.units, log_spread.exp() * self.units], 2)
        return told.unbind(1)


class Pairs(NamedTuple):
    """Pictures of which both is known, what the detectors saw and what is true."""

    seen: np.ndarray
    """float32 (N, 19, 3): canonical keypoints."""
    true: np.ndarray
    labels: np.ndarray
    people: np.ndarray

    def errors(self) -> np.ndarray:
        """float64 (N, 16): what each true quantity is higher by than as seen, in its unit; NaN where one is missing."""
        seen, true = measure(self.seen), measure(self.true)
        return np.stack([true[name] - seen[name] for name in QUANTITIES], 1)

    def of_the_same_person(self) -> np.ndarray:
        """bool (N,): the keypoints that were seen are not those of a bystander, nor of one with the sides exchanged."""
        known = (self.seen[:, :BODY_COUNT, 2] > 0) & (self.true[:, :BODY_COUNT, 2] > 0)
        gaps = np.linalg.norm((self.seen - self.true)[:, :BODY_COUNT, :2], axis=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nothing known of a body: NaN, so False
            median = np.nanmedian(np.where(known, gaps, np.nan), axis=1)
        return np.asarray(median < _SAME_PERSON * torso_length(self.true))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `errors`."""
    parser.add_argument("--seen", type=Path, required=True, help="what the detectors saw: a table of `see`, or several "
                        "that `convert` made into one")  # fmt: skip
    parser.add_argument("--truth", type=Path, required=True, help="table of the same pictures with true keypoints")
    parser.add_argument("--classes", type=Path, help="class file (default: the shipped one)")
    parser.add_argument("--bands", type=Path, default=models_folder() / "bands.toml",
                        help="bands by which cues are counted (default: the shipped ones)")  # fmt: skip
    parser.add_argument("--no-groups", action="store_true", help="split a table that names no people (figures flatter)")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")


def run(args: argparse.Namespace) -> int:
    """Train, measure and write the model folder."""
    classes = load_classes(args.classes)
    truth, bands = read_any(args.truth, classes.names), read_bands(args.bands)
    parts = load_parts(args.seen, classes, args.no_groups)
    train, validation, test = (_paired(part, parts.rows, truth) for part in (parts.train, parts.validation, parts.test))
    net = fit(train, args.seed)
    widen = fit_width(errors_told(net, validation.seen), validation.errors())
    told = errors_told(net, test.seen) * [1.0, widen]
    cues = cue_figures(told, test, classes, bands)
    figures = error_figures(told, test) | {"cues": cues}
    _log.info(
        "cues of the test people, were their poses known: %(given)d in %(pictures)d pictures, %(untrue)d of them "
        "untrue; %(told)d of %(true_faults)d true faults are told", cues,
    )  # fmt: skip
    _log.info("tested on %s", parts.groups)
    write_model(
        net, args.output, TASK, QUANTITIES, PARITY_BOUND, source="training/errors.py, from random weights",
        data=data_text(parts.rows, train.people),
        metrics=figures if parts.groups == GROUPED else {k: v for k, v in figures.items() if k != "people"},
        temperature=widen,
        notes="Each output is named for a quantity of stages.angles: what the true one is higher by than as seen, and "
        f"the spread of Student's t distribution with {FREEDOM} degrees of freedom round that, which the temperature, "
        "from validation people, widens. Errors are counted in 10 degrees and in 0.1 torsos. Cues are of pictures in "
        "which the right person was looked at, as if their poses had been recognised; where the program names the "
        f"pose, see training/MODELS.md. Tested on {parts.groups}.",
    )  # fmt: skip
    return 0


def _paired(part: PoseTable, rows: Table, truth: Table) -> Pairs:
    """The samples of which the truth is known, the weapon hand on the right."""
    part = part.mirrored(part.wrong_hand)
    ours, theirs = same_pictures(rows.select(part.rows), truth)
    return Pairs(part.keypoints[ours], truth.as_held().canonical()[theirs], part.labels[ours], part.people[ours])


def fit(pairs: Pairs, seed: int) -> ErrorNet:
    """A network for these; the same seed gives the same weights."""
    torch.manual_seed(seed)
    net = ErrorNet()
    nodes, edges = graphs(pairs.seen)
    net.measure(nodes, edges)
    wanted = torch.from_numpy(np.clip(pairs.errors() / UNITS, -FARTHEST, FARTHEST).astype(np.float32))
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(nodes) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    net.train()
    for epoch in range(EPOCHS):
        losses = []
        for chosen in torch.randperm(len(nodes)).split(BATCH):
            loss = _surprise(torch.stack(net(nodes[chosen], edges[chosen]), 1) / net.units[:, None], wanted[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        _log.info("epoch %d of %d: loss %.3f", epoch + 1, EPOCHS, np.mean(losses))
    return net.eval()


def _surprise(told: Tensor, wanted: Tensor) -> Tensor:
    """Mean negative log-likelihood, less a constant, of errors (B, 16) by shift and spread (B, 16, 2); NaN counts for
    nothing."""
    known = torch.isfinite(wanted)
    shift, spread = told.unbind(2)
    away = (torch.nan_to_num(wanted) - shift) / spread
    surprise = torch.log(spread) + (FREEDOM + 1) / 2 * torch.log1p(away * away / FREEDOM)
    return (surprise * known).sum() / known.sum().clamp(min=1)


def errors_told(net: ErrorNet, keypoints: np.ndarray) -> np.ndarray:
    """float64 (N, 16, 2): shift and spread of each quantity of keypoints (N, 19, 3)."""
    with torch.no_grad():
        return torch.stack(net(*graphs(keypoints)), 1).numpy().astype(np.float64)


def fit_width(told: np.ndarray, errors: np.ndarray) -> float:
    """By what to widen the spreads of `told` (N, 16, 2), so that errors (N, 16) are least surprising."""
    widths = np.geomspace(0.5, 2.0, 57)
    known, away = np.isfinite(errors), (errors - told[..., 0]) / told[..., 1]
    surprise = [np.log(w) + (FREEDOM + 1) / 2 * np.log1p((away[known] / w) ** 2 / FREEDOM).mean() for w in widths]
    return round(float(widths[int(np.argmin(surprise))]), 3)


def error_figures(told: np.ndarray, pairs: Pairs) -> dict[str, Any]:
    """How far off quantities are, in `UNITS`, as seen and after the shift that is told."""
    errors = pairs.errors() / UNITS
    known, after = np.isfinite(errors), errors - told[..., 0] / UNITS
    return {
        "samples": len(errors),
        "people": len(np.unique(pairs.people)),
        "mean_error_as_seen": round(float(np.abs(errors[known]).mean()), 3),
        "mean_error_after_shift": round(float(np.abs(after[known]).mean()), 3),
    }


def cue_figures(told: np.ndarray, pairs: Pairs, classes: ClassFile, bands: BandTable) -> dict[str, int]:
    """Cues for these pictures, were their poses known: how many are given, how many of them untrue, as the true value
    lies within the band or beyond its other edge, how many true faults there are and how many of them are told.
    Pictures in which somebody else was looked at are left out."""
    settings = FeedbackSettings()
    counts = dict.fromkeys(("pictures", "given", "untrue", "true_faults", "told"), 0)
    seen, true = measure(pairs.seen), measure(pairs.true)
    fitting = np.array([classes.names[label] in bands for label in pairs.labels])
    for i in np.flatnonzero(fitting & pairs.of_the_same_person()).tolist():
        fits = bands_for(bands[classes.names[pairs.labels[i]]], pairs.seen[i])
        errors = {name: Error(*told[i, k].tolist()) for k, name in enumerate(QUANTITIES)}
        values = {name: float(values[i]) for name, values in seen.items()}
        given = worst_by_part(find_faults(values, fits, "right", min_severity=settings.min_severity,
                                          min_certainty=settings.min_certainty, errors=errors))  # fmt: skip
        away = {name: severity(float(true[name][i]), band) for name, band in fits.items()}
        faults = {name for name, by in away.items() if abs(by) > settings.min_severity}
        counts["pictures"] += 1
        counts["given"] += len(given)
        counts["untrue"] += sum(not away[name] * severity(values[name], fits[name]) > 0 for name in given)
        counts["true_faults"] += len(faults)
        counts["told"] += len(faults & given.keys())
    return counts
