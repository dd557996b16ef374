"""`arnis-train hand`: the network that tells which hand holds the stick, from the keypoints of body and stick.

    arnis-train hand --table runs/seen/table.csv --output models/weapon_hand

It learns from pictures of which is known who is left-handed: `true_hand` in a table that `see` wrote (`grip_hand` in
one without that column). Each is given as it is and as a mirror shows it: left-handers are half of all, and an answer
for a mirror image is the opposite one.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import UserError
from engine.numbers import at_least
from stages.classes import load_classes
from stages.graph import mirror_keypoints, torso_length
from stages.skeleton import GRIP, LEFT_WRIST, RIGHT_WRIST
from training.data.table import Table
from training.geopose.data import PoseTable
from training.geopose.folds import GROUPED
from training.geopose.measure import fit_temperature, person_interval
from training.geopose.parts import load_parts
from training.geopose.pose_statistics import PoseStatistics
from training.perceptron import Perceptron, data_text, graphs, write_model
from training.synth.skeletons import STATISTICS

EPOCHS = 30
BATCH = 128
RATE = 2e-3
WEIGHT_DECAY = 0.02
NOISE = 0.03
"""Torsos by which keypoints are shifted at random, each for itself."""
MISSING = 0.03
"""Share of keypoints that are taken away at random; the grip stays."""
PARITY_BOUND = 1e-3
"""Largest difference of a score, in log-odds, that is rounding."""

_log = logging.getLogger(__name__)


class HandNet(Perceptron):
    """Score (B,) of nodes (B, 19, 15) and edges (B, 75, 8): log-odds of the right hand are its score less that of the
    mirror image."""

    def __init__(self) -> None:
        super().__init__(1, hidden=64, dropout=0.4)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        return super().forward(nodes, edges).squeeze(-1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `hand`."""
    parser.add_argument("--table", type=Path, required=True, help="what the detectors saw: a table of `see`, or "
                        "several that `convert` made into one")  # fmt: skip
    parser.add_argument("--statistics", type=Path, default=STATISTICS, help="pose statistics to draw from as well")
    parser.add_argument("--drawn", type=at_least(0), default=5000, help="samples drawn from them (default %(default)s)")
    parser.add_argument("--classes", type=Path, help="class file (default: the shipped one)")
    parser.add_argument("--no-groups", action="store_true", help="split a table that names no people (figures flatter)")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")


def run(args: argparse.Namespace) -> int:
    """Train, measure and write the model folder."""
    classes = load_classes(args.classes)
    parts = load_parts(args.table, classes, args.no_groups)
    if not (parts.rows.true_hands != "").any():
        raise UserError(f"{args.table} does not say in `true_hand` which hand holds the stick; fill that column in")
    train, validation, test = (_known(part, parts.rows) for part in (parts.train, parts.validation, parts.test))
    keypoints = train.keypoints
    if args.drawn:
        drawn = PoseStatistics(args.statistics, classes.names).draw(args.drawn, np.random.default_rng(args.seed))[0]
        keypoints = np.concatenate([keypoints, drawn[drawn[:, GRIP, 2] > 0]])
    net = fit(keypoints, args.seed)
    odds = log_odds(net, validation.keypoints)
    temperature = fit_temperature(np.stack([odds, np.zeros_like(odds)], 1), np.zeros(len(odds), int))
    figures = figures_of(log_odds(net, test.keypoints) / temperature, test)
    _log.info("of %d pictures right: %.3f, by the nearer wrist %.3f; tested on %s", figures["samples"],
              figures["right"], figures["right_by_the_nearer_wrist"], parts.groups)  # fmt: skip
    if parts.groups != GROUPED:
        del figures["people"], figures["right_interval_by_person"]
    write_model(
        net, args.output, "weapon_hand", ("score",), PARITY_BOUND, source="training/hand.py, from random weights",
        data=data_text(parts.rows, train.people) + ("; samples of aggregate pose statistics" if args.drawn else ""),
        metrics=figures, temperature=temperature,
        notes="The log-odds of the right hand are the score of a person less that of their mirror image, divided by "
        "the temperature, which comes from validation people. Figures are of single pictures of test people with a "
        "stick, each right-hander a left-hander in the mirror; the program supposes a right-hander at first. "
        f"Tested on {parts.groups}.",
    )  # fmt: skip
    return 0


def _known(part: PoseTable, rows: Table) -> PoseTable:
    """The samples with a stick of whom is known which hand holds it, the weapon hand on the right; raises UserError
    when there is none."""
    known = (part.keypoints[:, GRIP, 2] > 0) & (rows.true_hands[part.rows] != "")
    if not known.any():
        raise UserError("of the people to train on, to validate or to test by, none has both a grip and a `true_hand`; "
                        "fill them in, or picture more people")  # fmt: skip
    return part.mirrored(part.wrong_hand).select(known)


def fit(keypoints: np.ndarray, seed: int) -> HandNet:
    """A network for canonical keypoints (N, 19, 3); the same seed gives the same weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = HandNet()
    net.measure(*graphs(np.concatenate([keypoints, mirror_keypoints(keypoints)])))
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for epoch in range(EPOCHS):
        shaken = _augmented(keypoints, rng)
        as_is, mirrored = graphs(shaken), graphs(mirror_keypoints(shaken))
        losses = []
        net.train()
        for rows in torch.randperm(len(keypoints)).split(BATCH):
            odds = net(*(part[rows] for part in as_is)) - net(*(part[rows] for part in mirrored))
            loss = functional.softplus(-odds).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        _log.info("epoch %d of %d: loss %.3f", epoch + 1, EPOCHS, np.mean(losses))
    return net.eval()


def _augmented(keypoints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by some 5 degrees, stretched by a tenth, shaken, and some points taken away."""
    unit = torso_length(keypoints)[:, None, None]
    out = keypoints.astype(np.float32)
    out[..., :2] += rng.normal(0, NOISE, out[..., :2].shape) * unit
    angle = rng.normal(0, 0.08, (len(out), 1))
    x, y = out[..., 0] * rng.normal(1, 0.1, (len(out), 1)), out[..., 1].copy()
    out[..., 0], out[..., 1] = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    gone = rng.random(out.shape[:2]) < MISSING
    gone[:, GRIP] = False
    out[gone] = 0
    return out


def log_odds(net: HandNet, keypoints: np.ndarray) -> np.ndarray:
    """float32 (N,): of the right hand against the left, for keypoints (N, 19, 3)."""
    with torch.no_grad():
        return np.asarray((net(*graphs(keypoints)) - net(*graphs(mirror_keypoints(keypoints)))).numpy())


def figures_of(odds: np.ndarray, table: PoseTable) -> dict[str, Any]:
    """How often a single picture tells the hand, of right- and left-handers alike."""
    points, present = table.keypoints[..., :2], table.keypoints[..., 2] > 0
    left, right = (
        np.where(present[:, wrist], np.hypot(*(points[:, wrist] - points[:, GRIP]).T), np.inf)
        for wrist in (LEFT_WRIST, RIGHT_WRIST)
    )
    hits = odds > 0
    interval = person_interval(hits, table.people)
    return {
        "samples": len(odds),
        "people": len(np.unique(table.people)),
        "right": round(float(hits.mean()), 4),
        "right_interval_by_person": interval and [round(end, 4) for end in interval],
        "right_by_the_nearer_wrist": round(float((right < left).mean()), 4),
        "negative_log_likelihood": round(float(np.logaddexp(0, -odds).mean()), 4),
    }
