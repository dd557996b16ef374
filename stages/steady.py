"""Averages what is said of one person over the last looks: who goes from one pose to another looks for a moment like a
third, and so does who was badly seen once."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from engine.stage import Context
from stages.cards import load_card, load_model_classes
from stages.classify import name_pose, settings_of, threshold_of
from stages.packets import ArnisPacket, Pose


class SteadySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [steady]; `config.toml` says what each means, and its unit."""

    time_constant_s: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.1
    """In films of 18 rendered people (seed 8100) the classifier of that time named 110 of 216 holds with it and 112
    without; a third pose in 55 of 6,547 frames on the way from pose to pose, without it in 207."""


_EITHER_AFTER_S = 0.2
"""For so long looks at a movement must be narrowed to the same two poses: what is shorter nobody reads."""
_ALONE = 0.95
"""Share of a look in the mean from which those before hardly count."""


class _Mean(msgspec.Struct):
    """Of one person, at the last look."""

    track: int
    pts: float
    probabilities: np.ndarray
    either: frozenset[str]
    """The two poses to which that look by itself was narrowed; empty where it was not."""
    either_since: float
    """Time of the first look in a row that was narrowed to these."""
    named: str
    """What was accepted; empty: nothing."""


class Steady:
    """Puts the exponentially weighted mean of the classes' probabilities in the place of each look's own, while
    somebody moves: a look at who has come to rest stands by itself. Two poses of which it is one are told only where
    the look by itself says so too, and those before for a while, or the one that was named is among them."""

    name: ClassVar[str] = "steady"
    settings_type: ClassVar[type[msgspec.Struct]] = SteadySettings

    def __init__(self, settings: SteadySettings) -> None:
        self._settings = settings
        self._means: dict[str, _Mean] = {}

    def open(self, context: Context) -> None:
        """Raises UserError when the classifier's card or classes can't be read."""
        chosen = settings_of(context.sections)
        self._classes = load_model_classes(chosen.model)
        self._threshold = threshold_of(chosen, load_card(chosen.model)[0])

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.pose is not None

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        pose, person, constant_s = packet.pose, packet.person, self._settings.time_constant_s
        if pose is None or person is None or not constant_s:
            return packet
        now = np.array([pose.probabilities[name] for name in self._classes.names])
        before = self._means.get(packet.stream)
        rests = packet.gate is not None and packet.gate.still
        either, since = _either(pose), packet.pts
        if before is not None and before.track == person.track and packet.pts > before.pts and not rests:
            weight = 1 - math.exp((before.pts - packet.pts) / constant_s)
            now = before.probabilities + weight * (now - before.probabilities)
            pose = name_pose(now, self._classes, self._threshold)
            if either == before.either:
                since = before.either_since
            elif before.named in either:
                since = -math.inf  # only less is said than before
            lasts = packet.pts - since >= _EITHER_AFTER_S
            if weight < _ALONE and not (lasts and _either(pose) == either):
                pose.alternative = None  # a mean of two poses is none of both
            packet.pose, packet.status = pose, "ok" if pose.accepted else "unsure"
        named = pose.label if pose.accepted else ""
        self._means[packet.stream] = _Mean(person.track, packet.pts, now, either, since, named)
        return packet


def _either(pose: Pose) -> frozenset[str]:
    """The two poses to which an answer is narrowed; empty where it is not."""
    return frozenset() if pose.alternative is None else frozenset((pose.label, pose.alternative))
