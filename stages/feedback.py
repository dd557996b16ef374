"""Says what to correct: what is measured of a recognised pose against the band in which good examples of it lie.

Bands, not points: inside its band a quantity is right. The bands are learned from examples (`models/bands.toml`), by
pose and by view, because an angle in a picture depends on where the camera stands. Cues are in the performer's own left
and right.

A cue that is untrue teaches bad form, so the doubtful ones are not given: what may be the detector's error alone
(`stages.doubt`), and what is not seen for some time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np

from engine.errors import UserError
from engine.stage import Context
from stages.angles import QUANTITIES, VIEWS, measure, mirrored_name, view_of
from stages.cards import ModelName
from stages.classes import ClassFile, models_folder
from stages.classify import classes_of
from stages.detectors import Runtime
from stages.doubt import Error, MeasuringError
from stages.graph import canonical_keypoints
from stages.packets import LONGEST_STEP_S, MISSING_END, ArnisPacket, Cue, GraphInput, Hand, Person, Stick

log = logging.getLogger(__name__)

ANY_VIEW = "any"


class Band(msgspec.Struct, frozen=True, array_like=True):
    """Where good examples lie, and how many there were."""

    low: float
    high: float
    samples: int


BandTable = dict[str, dict[str, dict[str, Band]]]
"""Pose -> view (or `any`) -> quantity -> band."""


class FeedbackSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [feedback]; `config.toml` says what each means, and its unit."""

    bands: str = ""
    max_cues: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3
    min_severity: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.25
    settle_s: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.3
    """Who moves through a pose is not corrected."""
    errors: ModelName = "measuring_error"
    min_certainty: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.96


class _Advice(NamedTuple):
    part: str
    """Only the worst cue about one part of the body is given."""
    too_low: str
    too_high: str


_ADVICE = {
    "elbow_deg": _Advice("{side} arm", "Straighten your {side} elbow.", "Bend your {side} elbow more."),
    "shoulder_deg": _Advice(
        "{side} arm", "Move your {side} elbow away from your body.", "Bring your {side} elbow closer to your body."
    ),
    "hip_deg": _Advice("{side} leg", "Straighten your {side} hip.", "Bend more at your {side} hip."),
    "knee_deg": _Advice("{side} leg", "Straighten your {side} knee.", "Bend your {side} knee more."),
    "hand_height": _Advice(
        "{side} hand", "Raise your {side} hand {level}.", "Lower your {side} hand {level}."
    ),
    "hand_reach": _Advice(
        "{side} arm", "Reach farther with your {side} hand.", "Bring your {side} hand closer to your shoulder."
    ),
    "torso_lean_deg": _Advice("torso", "Lean in a little more.", "Stand more upright."),
    "stick_deg": _Advice("stick", "Raise the tip of the stick.", "Lower the tip of the stick."),
    "tip_height": _Advice(
        "stick", "Raise the tip of the stick {level}.", "Lower the tip of the stick {level}."
    ),
    "wrist_deg": _Advice(
        "stick",
        "Turn the stick farther from the line of your forearm.",
        "Turn the stick closer to the line of your forearm.",
    ),
    "stance_width": _Advice("feet", "Set your feet farther apart.", "Bring your feet closer together."),
}  # fmt: skip

_CLEARLY_WORSE = 1.5
"""So many times worse must another fault of the same part be, to be told in the place of the one before: two measures
of one fault would else take turns while somebody holds still."""

_EASE = {"wrist_deg": 0.5}
"""What a fault weighs against others of its part whose advice is easier to follow: to lower the tip of the stick is,
to turn it to the line of the forearm is not."""

_LEVELS = (
    (0.6, "above your head"), (0.2, "to eye level"), (-0.12, "to shoulder level"), (-0.4, "to chest level"),
    (-0.7, "to waist level"), (-1.2, "to hip level"), (-2.0, "to knee level"),
)  # fmt: skip
"""Lower ends of the heights, in torsos above the shoulders."""
_LITTLE = 0.2
"""Torsos; where less is missing no level is named, and else the one that comes first on the way."""


def read_bands(path: Path) -> BandTable:
    """Bands of a file; raises UserError when it is missing, malformed or names a view or quantity that there is not."""
    try:
        bands = msgspec.toml.decode(path.read_bytes(), type=BandTable)
    except FileNotFoundError:
        sought = path.absolute()
        raise UserError(f"bands file {path} does not exist ({sought}); make it with `arnis-train bands`") from None
    except OSError as error:
        raise UserError(f"bands file {path} cannot be read ({error.strerror}); name a file in feedback.bands") from None
    except UnicodeDecodeError:
        raise UserError(f"bands file {path} is no text; make it with `arnis-train bands`") from None
    except msgspec.DecodeError as error:
        raise UserError(f"bands file {path} is not valid: {error}") from None
    for pose, views in bands.items():
        for view, quantities in views.items():
            unknown = sorted(quantities.keys() - set(QUANTITIES))
            if view not in (*VIEWS, ANY_VIEW) or unknown:
                name = f"view {view}" if not unknown else f"quantity {unknown[0]}"
                raise UserError(
                    f"bands file {path}: {pose} has the unknown {name}; make it anew with `arnis-train bands`"
                )
    return bands


def fitting_bands(bands: BandTable, classes: ClassFile, path: Path) -> BandTable:
    """The bands of the poses among the classes; warns of others, which are no mistake where the model is one's own and
    the bands are still the shipped ones."""
    fitting = {pose: views for pose, views in bands.items() if pose in classes.poses}
    others = sorted(bands.keys() - set(classes.names))
    if not fitting:
        log.warning("bands file %s has no bands for the classes of this model, so no cues are given; make some with "
                    "`arnis-train bands`", path)  # fmt: skip
    elif others:
        log.warning("bands file %s also has bands for %s, which this model does not name; they are passed over", path,
                    ", ".join(others))  # fmt: skip
    return fitting


def severity(value: float, band: Band) -> float:
    """Signed distance to the band in its half-widths: negative below it, positive above, 0 inside; NaN for NaN."""
    half = max((band.high - band.low) / 2.0, 1e-6)
    if band.low <= value <= band.high:
        return 0.0
    return (value - (band.low if value < band.low else band.high)) / half


def bands_for(views: Mapping[str, Mapping[str, Band]], keypoints: np.ndarray) -> Mapping[str, Band]:
    """Of a pose's bands those for the view that canonical keypoints (19, 3) show."""
    view = int(view_of(keypoints))
    return views.get(VIEWS[view] if view >= 0 else ANY_VIEW) or views.get(ANY_VIEW, {})


_NO_ERROR = Error(0.0, 0.0)


def certainty(value: float, band: Band, error: Error) -> float:
    """Probability that the true quantity lies beyond the band, on the side on which `value`, as measured, does."""
    return 1.0 - error.above(value, band.low) if value < band.low else error.above(value, band.high)


def find_faults(
    values: Mapping[str, float],
    bands: Mapping[str, Band],
    hand: Hand,
    *,
    min_severity: float,
    min_certainty: float = 0.0,
    told: Container[str] = (),
    errors: Mapping[str, Error] = {},
) -> dict[str, Cue]:
    """A cue for each quantity that is surely beyond its band, by its canonical name, for the canonical `values` (NaN:
    not seen) of a pose, which may have `errors`.

    A quantity in `told` (canonical names) was cued before and stays until it is back inside its band. `hand` is the
    weapon hand: a left-hander hears of the left elbow where the canonical skeleton has the right one.
    """
    faults = {}
    for name, band in bands.items():
        value = values.get(name, float("nan"))
        away = severity(value, band)
        clearly = abs(away) > min_severity and certainty(value, band, errors.get(name, _NO_ERROR)) >= min_certainty
        if clearly or name in told and abs(away) > 0.0:
            own = mirrored_name(name) if hand == "left" else name
            faults[name] = Cue(
                quantity=own, measured=value, wanted=(band.low, band.high), severity=abs(away),
                sentence=advise(own, value, band),
            )  # fmt: skip
    return faults


def worst_by_part(cues: Mapping[str, Cue], given: Container[str] = ()) -> dict[str, Cue]:
    """One cue for each part of the body, by its canonical name, worst first; one in `given` stays until another is
    clearly worse."""

    def weight(name: str) -> float:
        return cues[name].severity * (_CLEARLY_WORSE if name in given else 1.0) * _EASE.get(name, 1.0)

    worst: dict[str, str] = {}
    for name in sorted(cues, key=weight, reverse=True):
        worst.setdefault(part_of(cues[name].quantity), name)
    return {name: cues[name] for name in sorted(worst.values(), key=lambda name: -cues[name].severity)}


def part_of(quantity: str) -> str:
    """Part of the body that a quantity, in the performer's own sides, tells of."""
    return advice_for(quantity).part.format(side=quantity.partition("_")[0])


def advice_for(quantity: str) -> _Advice:
    """What is said of a quantity of either side."""
    side, _, rest = quantity.partition("_")
    return _ADVICE[rest if side in ("left", "right") else quantity]


def advise(quantity: str, value: float, band: Band) -> str:
    """Sentence for a quantity, in the performer's own sides, that lies outside its band."""
    advice = advice_for(quantity)
    sentence, edge = (advice.too_low, band.low) if value < band.low else (advice.too_high, band.high)
    level = level_name(edge)
    if abs(value - edge) < _LITTLE or level == level_name(value):
        level = "a little"
    return sentence.format(side=quantity.partition("_")[0], level=level)


def level_name(height: float) -> str:
    """Where a height lies, given in torsos above the shoulders, as people say it."""
    return next((name for lowest, name in _LEVELS if height >= lowest), "to your feet")


class _Faults(NamedTuple):
    """What was seen beyond its band at the last look, and of whom."""

    track: int
    label: str
    hand: Hand
    since_s: dict[str, float]
    """By canonical names, from when on without a break."""
    given: frozenset[str]
    """Those of which a cue was given."""


class Feedback:
    """Adds cues to accepted poses."""

    name: ClassVar[str] = "feedback"
    settings_type: ClassVar[type[msgspec.Struct]] = FeedbackSettings

    def __init__(self, settings: FeedbackSettings) -> None:
        self._settings = settings
        self._bands: BandTable = {}
        self._errors: MeasuringError
        self._faults: dict[str, _Faults] = {}
        self._frame_at_s: dict[str, float] = {}

    def open(self, context: Context) -> None:
        if not self._settings.max_cues:
            return
        path = Path(self._settings.bands or models_folder() / "bands.toml")
        self._bands = fitting_bands(read_bands(path), classes_of(context.sections), path)
        # So small that the way to another device, or a second thread, would take longer.
        self._errors = MeasuringError(self._settings.errors, Runtime("onnxruntime", 1))

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        person, pose = packet.person, packet.pose
        gap_s = packet.pts - self._frame_at_s.get(packet.stream, -math.inf)
        self._frame_at_s[packet.stream] = packet.pts
        if not 0 <= gap_s <= LONGEST_STEP_S:
            self._faults.pop(packet.stream, None)
        if packet.gate is not None and not packet.gate.detect:
            return packet  # an earlier result stands in, with its cues
        graph = packet.graph
        if person is None or graph is None or pose is None or not pose.accepted or pose.label not in self._bands:
            self._faults.pop(packet.stream, None)
            return packet
        stick = packet.stick or Stick(hand="right", grip=MISSING_END, tip=MISSING_END)
        # A picture alone is judged at once; the first of a film cannot be told from it.
        alone = packet.picture is not None and gap_s > LONGEST_STEP_S
        settle_s = 0.0 if alone else self._settings.settle_s
        packet.feedback = self._cues(packet, person, stick, graph, pose.label, settle_s)
        return packet

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.pose is not None

    def _cues(
        self, packet: ArnisPacket, person: Person, stick: Stick, graph: GraphInput, label: str, settle_s: float
    ) -> list[Cue]:
        """Of the faults that have been seen for `settle_s`, the worst."""
        before = self._faults.get(packet.stream)
        if before is None or before[:3] != (person.track, label, stick.hand):
            before = _Faults(person.track, label, stick.hand, {}, frozenset())
        keypoints = canonical_keypoints(person.keypoints, stick.grip, stick.tip, stick.hand)
        faults = self._beyond(keypoints, graph, label, stick.hand, before.given)
        since_s = {name: before.since_s.get(name, packet.pts) for name in faults}
        settled = {name: cue for name, cue in faults.items() if packet.pts - since_s[name] >= settle_s}
        given = dict(list(worst_by_part(settled, before.given).items())[: self._settings.max_cues])
        self._faults[packet.stream] = before._replace(since_s=since_s, given=frozenset(given))
        return list(given.values())

    def _beyond(
        self, keypoints: np.ndarray, graph: GraphInput, label: str, hand: Hand, told: Container[str]
    ) -> dict[str, Cue]:
        """All that surely lies beyond its band now, by canonical names."""
        return find_faults(
            {name: float(value) for name, value in measure(keypoints).items()},
            bands_for(self._bands[label], keypoints),
            hand,
            min_severity=self._settings.min_severity,
            min_certainty=self._settings.min_certainty,
            told=told,
            errors=self._errors.errors(graph),
        )
