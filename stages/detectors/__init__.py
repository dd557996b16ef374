"""Detectors of the body and of the stick, behind two protocols; `stages.detect` chooses and combines them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from engine.errors import UserError
from stages.cards import Card, check_inputs, load_card
from stages.graph import GRAPH_INPUTS, PRESENT_CONFIDENCE
from stages.packets import Hand
from stages.runtime import Backend, Device, Network, Precision, load_network

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

SAME_PERSON = 0.1
"""Overlap with the box as last seen from which it is the same person; even a lunge keeps more."""


class Runtime(msgspec.Struct, frozen=True):
    """How networks are to be run."""

    backend: Backend = "auto"
    threads: int = 0
    precision: Precision = "f32"
    device: Device = "cpu"

    def load(self, file: Path, shapes: Sequence[tuple[int, ...]] | None = None) -> Network:
        return load_network(file, self.backend, self.threads, self.precision, self.device, shapes)


class StickCandidate(msgspec.Struct, frozen=True):
    """A stick that may be one: float32 (2, 3) grip and tip as x, y in pixels and score."""

    points: np.ndarray
    score: float


class BodyCandidate(msgspec.Struct, frozen=True):
    """A person that may be the one to follow."""

    keypoints: np.ndarray
    """float32 (17, 3): x, y in pixels and score; missing: score 0, x = y = NaN."""
    score: float
    box: Box
    stick: StickCandidate | None = None
    """The stick that the same network saw with this person."""


class BodyDetector(Protocol):
    """Finds people in one frame; keeps no state between calls but what belongs to `stream`."""

    def detect(
        self, image: np.ndarray, previous: BodyCandidate | None, stream: str, time_s: float
    ) -> Sequence[BodyCandidate]:
        """`image` uint8 BGR (height, width, 3); `previous` is the person followed so far, as last seen."""

    def describe(self) -> str: ...

    def close(self) -> None: ...


class StickDetector(Protocol):
    """Finds the stick of a person whose body is known."""

    def detect(
        self, image: np.ndarray, keypoints: np.ndarray, hands: Sequence[Hand | None]
    ) -> Sequence[StickCandidate]:
        """`image` uint8 BGR (height, width, 3); `keypoints` (17, 3) of the person, in its pixels; `hands`: a look each
        at what that hand reaches, or both (None); a network that sees whole pictures does not ask."""

    def describe(self) -> str: ...


def open_model(model: str, runtime: Runtime, tasks: Sequence[str]) -> tuple[Card, Network]:
    """Card and network of a model folder; raises UserError when it is missing, broken, made for another task, or not as
    its card says."""
    card, file = load_card(model)
    if card.task not in tasks:
        raise UserError(f"model {model} is made for the task {card.task}, not for {' or '.join(tasks)}; choose another")
    network = runtime.load(file, [tuple(size or 1 for size in item.shape) for item in card.inputs])
    check_inputs(card, network.inputs, model)
    return card, network


def open_graph_model(
    model: str, runtime: Runtime, task: str, outputs: Sequence[str], maker: str
) -> tuple[Card, Network]:
    """As `open_model`, of a small network that judges the graph and is made by the command `maker`."""
    card, network = open_model(model, runtime, [task])
    asked, given = [item.name for item in network.inputs], [item.name for item in network.outputs]
    if asked != list(GRAPH_INPUTS) or given != list(outputs):
        raise UserError(
            f"model {model} takes {', '.join(asked)} and gives {', '.join(given)}, not {', '.join(GRAPH_INPUTS)} and "
            f"{', '.join(outputs)}; make one with `{maker}`"
        )
    return card, network


def mark_missing(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Points (n, 3); score 0 and NaN where the score is below PRESENT_CONFIDENCE or the place not in the picture."""
    x, y, score = points.T
    seen = (score >= PRESENT_CONFIDENCE) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    marked = np.where(seen[:, None], points, np.array([np.nan, np.nan, 0.0])).astype(np.float32)
    return marked


def box_around(keypoints: np.ndarray, width: int, height: int, margin: float = 0.1) -> Box:
    """Bounding box of the points that are there, widened by `margin` of its size, inside the picture."""
    low, high = np.nanmin(keypoints[:, :2], axis=0), np.nanmax(keypoints[:, :2], axis=0)
    extra = margin * (high - low)
    x0, y0 = np.maximum(low - extra, 0)
    x1, y1 = np.minimum(high + extra, (width, height))
    return float(x0), float(y0), float(x1), float(y1)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
