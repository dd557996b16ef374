"""Explanations of a model over a table, by class, and of one picture: as data, as JSON and as pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
from torch import nn

from stages.graph import DIRECTED_EDGES, mirror_keypoints, torso_length
from stages.skeleton import EDGES, KEYPOINT_NAMES, MIRROR
from training.geopose.attention import Attention, attend, has_attention
from training.geopose.data import PoseTable
from training.geopose.explain_picture import (
    ATTENTION_LEGEND,
    EFFECT_LEGEND,
    EFFECT_SCALE,
    EVEN_ATTENTION_SCALE,
    figure_panel,
    picture_panel,
    side_by_side,
    typical,
)
from training.geopose.hiding import Hiding, Part, TipVerdict, hide_parts, judge_tip
from training.geopose.measure import interval_text

log = logging.getLogger(__name__)

EXPLAINED_SAMPLES = 300
ALL = "all"
"""Name of the explanation over all classes."""


class EdgeAttention(msgspec.Struct, frozen=True):
    """Mean attention of `target` to `source`; 1 is what even attention would be."""

    source: str
    target: str
    attention: float


class Explained(msgspec.Struct, frozen=True):
    """Means over the samples of one class, or over `all`."""

    name: str
    samples: int
    nodes: dict[str, float]
    """What all others read from a node, over what even attention would give; empty for a model without attention."""
    edges: list[EdgeAttention]
    hiding: list[Part]
    tip: TipVerdict | None


class Explanation(msgspec.Struct, frozen=True):
    """What `explain.json` holds."""

    model: str
    data: str
    temperature: float
    explained: list[Explained]
    warnings: list[str]


def evenly_sampled(table: PoseTable, count: int) -> PoseTable:
    """At most `count` samples, evenly over the table, with the weapon hand as votes over a video would know it."""
    chosen = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).astype(int))
    part = table.select(chosen)
    return part.mirrored(part.wrong_hand)


def explain_table(
    model: nn.Module, table: PoseTable, class_names: tuple[str, ...], out: Path, temperature: float = 1.0,
    data: str = "",
) -> Explanation:  # fmt: skip
    """Explain all samples together and by their true class; writes `out`/explain.json and `out`/NAME.png.

    `table` is canonical. A model without attention over the graph is explained by hiding alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    hiding = hide_parts(model, table, temperature)
    attention = attend(model, table.keypoints) if has_attention(model) else None
    groups = {ALL: np.ones(len(table), bool)}
    groups |= {name: table.labels == number for number, name in enumerate(class_names)}
    explained = []
    for name, chosen in groups.items():
        if chosen.any():
            entry = _explained(name, chosen, hiding, attention, table.people)
            cv2.imwrite(str(out / f"{name}.png"), _class_picture(entry, table.select(_front(table, chosen))))
            explained.append(entry)
    warnings = [text for entry in explained if (text := tip_warning(entry))]
    explanation = Explanation(type(model).__name__, data, temperature, explained, warnings)
    for warning in warnings:
        log.warning("%s", warning)
    (out / "explain.json").write_bytes(msgspec.json.format(msgspec.json.encode(explanation)))
    return explanation


def explain_picture(
    model: nn.Module, sample: PoseTable, image: np.ndarray, left_handed: bool, title: str, temperature: float = 1.0
) -> tuple[Explained, np.ndarray]:
    """Explain one picture, uint8 BGR; `sample` holds its one row, canonical, in pixels of `image`.

    Returns the explanation, in which nodes are those of the canonical skeleton, and the drawing, uint8 BGR.
    """
    hiding = hide_parts(model, sample, temperature)
    attention = attend(model, sample.keypoints) if has_attention(model) else None
    entry = _explained("picture", np.ones(1, bool), hiding, attention, sample.people)
    keypoints = sample.keypoints[0]
    order = MIRROR if left_handed else np.arange(len(keypoints))
    shown = mirror_keypoints(keypoints) if left_handed else keypoints
    # Edges of the canonical skeleton keep their numbers: only the places of their ends change.
    points, present = shown[order, :2], shown[order, 2] > 0
    return entry, side_by_side([picture_panel(image, points, present, *drawn) for drawn in _drawn(entry, title)])


def tip_warning(entry: Explained) -> str | None:
    """The sentence that says so when the tip alone decides."""
    tip = entry.tip
    if tip is None or not tip.decides_alone:
        return None
    return (
        f"{entry.name}: the tip alone decides {tip.alone:.0%} of {tip.samples} answers (95 % interval: "
        f"{interval_text(tip.alone_interval, '.0%')}): hiding it changes them, hiding any other part does not"
    )


def _explained(
    name: str, chosen: np.ndarray, hiding: Hiding, attention: Attention | None, people: np.ndarray
) -> Explained:
    nodes, edges = {}, []
    if attention is not None:
        there = hiding.present[: len(KEYPOINT_NAMES), chosen].T
        sums = (attention.nodes[chosen] * there).sum(0) / np.maximum(there.sum(0), 1)
        nodes = {node: round(float(v), 4) for node, v in zip(KEYPOINT_NAMES, sums, strict=True)}
        both = there[:, DIRECTED_EDGES].all(2)
        means = (attention.edges[chosen] * both).sum(0) / np.maximum(both.sum(0), 1)
        edges = [
            EdgeAttention(KEYPOINT_NAMES[a], KEYPOINT_NAMES[b], round(float(v), 4))
            for (a, b), v in zip(DIRECTED_EDGES.tolist(), means, strict=True)
        ]
    parts = [hiding.part(number, chosen) for number in range(len(hiding.names))]
    return Explained(name, int(chosen.sum()), nodes, edges, parts, judge_tip(hiding, people, chosen))


def _drawn(entry: Explained, title: str) -> Iterator[tuple[np.ndarray, np.ndarray | None, str, str]]:
    """Of each panel what is drawn, 1 is brightest, its title and its legend: attention to nodes (19,) and along the
    undirected edges, where there is any, and the effect of hiding (19,)."""
    if entry.nodes:
        means = {(e.source, e.target): e.attention for e in entry.edges}
        names = [(KEYPOINT_NAMES[a], KEYPOINT_NAMES[b]) for a, b in EDGES]
        edges = np.array([(means[a, b] + means[b, a]) / 2 for a, b in names]) / EVEN_ATTENTION_SCALE
        nodes = np.array(list(entry.nodes.values())) / EVEN_ATTENTION_SCALE
        yield nodes, edges, f"{title}: attention", ATTENTION_LEGEND
    effect = np.array([part.effect for part in entry.hiding[: len(KEYPOINT_NAMES)]]) / EFFECT_SCALE
    yield effect, None, "lost when hidden", EFFECT_LEGEND


def _class_picture(entry: Explained, table: PoseTable) -> np.ndarray:
    """Both panels, on the skeleton of a typical sample."""
    keypoints = table.keypoints[typical(table.keypoints, torso_length(table.keypoints))]
    points, present = keypoints[:, :2], keypoints[:, 2] > 0
    panels = [figure_panel(points, present, *drawn) for drawn in _drawn(entry, entry.name.replace("_", " "))]
    return side_by_side(panels)


def _front(table: PoseTable, chosen: np.ndarray) -> np.ndarray:
    """Those of the chosen samples that are seen from the front, where there are any."""
    front = chosen & (table.views == "front")
    return front if front.any() else chosen
