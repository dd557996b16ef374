"""Finds the person and the stick, follows one person per stream, and says which hand holds the stick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from engine.errors import UserError
from engine.packet import FrameRef
from engine.stage import Context, FrameOverrun
from stages.cards import ModelName, model_folder
from stages.detectors import (
    SAME_PERSON,
    BodyCandidate,
    BodyDetector,
    Runtime,
    StickCandidate,
    StickDetector,
    open_model,
    overlap,
)
from stages.detectors.closer import CloserLook
from stages.detectors.hand import GivenHand, WeaponHand
from stages.detectors.mediapipe import MediaPipePose
from stages.detectors.movenet import MoveNet
from stages.detectors.stick import StickHeatmap
from stages.detectors.yolo import Yolo, YoloStick
from stages.graph import torso_length
from stages.packets import HANDS, LONGEST_STEP_S, ArnisPacket, Hand, Person, Stick
from stages.runtime import Backend, Device, Precision
from stages.skeleton import LEFT_WRIST, RIGHT_WRIST

AUTO_CLOSER = {"movenet_lightning": "movenet_thunder"}
"""The closer look that `auto` puts beside a body network; the others are exact, or somebody's own choice."""

VOTE_WEIGHT = 0.02
"""Share of the earlier votes that a clear sighting replaces: 35 of them make believe that a stick has changed hands."""

AT_FIRST = 0.8
"""Nine of ten people hold the stick in the right hand: what is believed of somebody new, and weighs as one sighting."""

CLEAR_GAP = 0.25
"""Torso lengths by which the other wrist must be nearer to the grip to put the verdict in doubt."""


class DetectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [detect]; `config.toml` says what each means, and its unit."""

    body: str = "movenet_lightning"
    stick: str = "stick_heatmap"
    fused: str = ""
    closer: str = "auto"
    hand: ModelName = "weapon_hand"
    backend: Backend = "auto"
    device: Device = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    precision: Precision = "f32"
    lost_s: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.5
    grip_within: Annotated[float, msgspec.Meta(gt=0, le=5)] = 0.8
    longest_stick: Annotated[float, msgspec.Meta(gt=0, le=5)] = 1.6


def choose_person(
    candidates: Sequence[BodyCandidate], previous: BodyCandidate | None, lost: bool = True
) -> BodyCandidate | None:
    """The one that overlaps the person followed so far; else, if they are `lost` or nobody is followed, the largest,
    weighed by score; None of none."""
    if previous is not None:
        same = [c for c in candidates if overlap(c.box, previous.box) >= SAME_PERSON]
        if same:
            return max(same, key=lambda c: overlap(c.box, previous.box))
        if not lost:
            return None
    return max(candidates, key=_prominence, default=None)


def wrist_distances(grip: np.ndarray, keypoints: np.ndarray, torso_px: float) -> tuple[float, float]:
    """Distance of the grip to the left and to the right wrist, in torso lengths; infinite where it isn't known."""
    if torso_px <= 0:
        return math.inf, math.inf
    grip_px = grip[:2].tolist()
    gaps = (math.dist(keypoints[wrist, :2].tolist(), grip_px) / torso_px for wrist in (LEFT_WRIST, RIGHT_WRIST))
    left, right = (math.inf if math.isnan(gap) else gap for gap in gaps)
    return left, right


def is_plausible(
    stick: StickCandidate, keypoints: np.ndarray, torso_px: float, grip_within: float, longest: float
) -> bool:
    """Whether the grip is near a wrist and the stick no longer than a stick can be; both limits in torso lengths."""
    grip, tip = stick.points
    if min(wrist_distances(grip, keypoints, torso_px)) > grip_within:
        return False
    length_px = math.dist(grip[:2].tolist(), tip[:2].tolist())
    return math.isnan(length_px) or length_px <= longest * torso_px


class HandVote:
    """Which hand holds the stick, over time: what single pictures make of it is averaged."""

    def __init__(self) -> None:
        self._rightness = AT_FIRST  # -1: surely left, 1: surely right
        self._sightings = 1

    def cast(self, rightness: float) -> Hand:
        """`rightness` of one picture, -1 to 1; returns the verdict."""
        self._sightings += 1
        # At first a plain mean, so that the very first frame does not weigh like a long history.
        self._rightness += max(VOTE_WEIGHT, 1 / self._sightings) * (rightness - self._rightness)
        return "left" if self._rightness < 0 else "right"


def hand_in_picture(rightness: np.ndarray) -> list[Hand]:
    """The hand in each of N pictures that stand alone."""
    return [HandVote().cast(value) for value in rightness.tolist()]


EVERY_LOOK: tuple[Hand | None, ...] = (None, "right", "left")
"""Where a stick is looked for: in what both hands reach, and from close by, in what each does."""


class Sought(msgspec.Struct):
    """The stick of one person, and where to look for it next."""

    track: int
    hand: Hand | None = None
    """That holds it; None while that is not known, or in doubt."""
    looks: int = 0
    """Since it was last seen, or ever."""

    def where(self, patient: bool) -> Sequence[Sequence[Hand | None]]:
        """Looks to take, of which the next are taken where the first show nothing.

        At first everywhere; then one a frame, in turns, or all that are of use if `patient`. The hand that holds it
        reaches all of the stick; what the other reaches may cut it in two, so that is looked at only while nothing is
        known.
        """
        if self.hand is None:
            everywhere = patient or not self.looks
            return (EVERY_LOOK if everywhere else (EVERY_LOOK[self.looks % len(EVERY_LOOK)],),)
        if patient:
            return (self.hand,), (None,)
        return ((None if self.looks % 2 else self.hand,),)

    def remember(self, stick: Stick | None, person: Person) -> None:
        """What was seen of it; where it is clearly not in the hand that holds it, one of the two is a mistake."""
        self.looks += 1
        if stick is None or not np.isfinite([*stick.grip, *stick.tip]).all():
            return
        left, right = wrist_distances(np.array(stick.grip), person.keypoints, float(torso_length(person.keypoints)))
        away = left - right if stick.hand == "left" else right - left
        self.hand, self.looks = None if away > CLEAR_GAP else stick.hand, 0


class StickChoice:
    """Which of the sticks that a network sees is the person's, and in which hand; votes by stream."""

    def __init__(self, settings: DetectSettings, hand: WeaponHand | GivenHand) -> None:
        self._limits = settings.grip_within, settings.longest_stick
        self._hand = hand
        self._votes: dict[str, tuple[int, HandVote]] = {}

    def choose(self, stream: str, person: Person, candidates: Sequence[StickCandidate]) -> Stick | None:
        """The likeliest of those that the person can hold; None of none. A new track starts a new vote."""
        torso_px = float(torso_length(person.keypoints))
        plausible = [c for c in candidates if is_plausible(c, person.keypoints, torso_px, *self._limits)]
        if not plausible:
            return None
        # One that is seen whole before one of which an end is missing.
        grip, tip = max(plausible, key=lambda c: (bool(np.isfinite(c.points).all()), c.score)).points
        track, vote = self._votes.get(stream, (person.track, HandVote()))
        if track != person.track:
            vote = HandVote()
        self._votes[stream] = person.track, vote
        keypoints = np.vstack([person.keypoints, grip, tip]).astype(np.float32)
        hand = vote.cast(float(self._hand.rightness(keypoints[None])[0]))
        return Stick(hand=hand, grip=_end(grip), tip=_end(tip), detected_tip=None if tip[2] == 0 else _end(tip)[:2])


class _Followed(msgspec.Struct):
    """The person of one stream."""

    track: int = 0
    """Frame in which they were first seen: another one also after a restart of the worker."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the pictures."""
    body: BodyCandidate | None = None
    """As last seen, up to `lost_s` ago."""
    visible: bool = False
    """Whether they were seen in the frame before."""
    seen_at_s: float = -math.inf
    quick: BodyCandidate | None = None
    """As the network saw them last, without what a closer look has put right."""
    frame_at_s: float = -math.inf
    """When the last frame was, looked at or not."""
    held: bool = False
    """A regular look found the picture unchanged, and nothing has moved since."""


class Detect:
    """Adds `person` to the packet, and `stick` when one network sees both; looks closer at who holds still."""

    name: ClassVar[str] = "detect"
    settings_type: ClassVar[type[DetectSettings]] = DetectSettings

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._streams: dict[str, _Followed] = {}
        self._choice: StickChoice
        self._body: BodyDetector
        self._closer: CloserLook | None = None

    def open(self, context: Context) -> None:
        """Load the network; raises UserError when a model, a runtime or a device is missing."""
        chosen = self._settings
        self._frames = context.frames
        if not (chosen.fused or chosen.body):
            raise UserError('detect.body is empty; give a shipped model\'s name, such as "movenet_lightning"')
        self._body = make_body_detector(chosen.fused or chosen.body, _runtime(chosen), fused=bool(chosen.fused))
        if chosen.fused:
            self._choice = StickChoice(chosen, make_hand(chosen.hand, _beside(chosen, self._body)))
        closer = closer_model(chosen)
        gated = context.sections.get("gate", {}).get("motion", True)
        if gated and closer:
            make = partial(make_body_detector, closer, _beside(chosen, self._body))
            if chosen.closer != "auto":
                make().close()  # somebody's choice may be wrong: say so now
            self._closer = CloserLook(make)

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.gate is None or packet.gate.detect

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        if packet.frame is None:
            return packet
        followed = self._streams.setdefault(packet.stream, _Followed())
        size = packet.frame.width, packet.frame.height
        if followed.size != size or packet.pts - followed.frame_at_s > max(LONGEST_STEP_S, self._settings.lost_s):
            followed.body = None
        followed.frame_at_s, followed.size = packet.pts, size
        still = packet.gate is not None and packet.gate.still
        if self._closer is not None and not still:
            self._closer.forget(packet.stream)
            followed.held = False
        if not self.has_work(packet):
            if self._closer is not None and still:
                self._look_closer(self._closer, packet.frame, followed, packet)
            return packet
        lost = not 0 <= packet.pts - followed.seen_at_s <= self._settings.lost_s
        if lost and not followed.visible:
            followed.body = None
        with self._frames.read(packet.frame) as image:
            found = self._body.detect(image, followed.body, packet.stream, packet.pts)
        # Only now, as leaving the `with` raises when the picture was overwritten while it was looked at.
        body = choose_person(found, followed.body, lost)
        self._follow(followed, body, packet)
        if body is not None and self._closer is not None and still:
            live, followed.held = packet.expires_at_ns is not None, True
            body = followed.body = self._closer.refine(body, packet.stream, packet.pts, wait=not live)
        if body is not None:
            packet.person = Person(track=followed.track, box=body.box, score=body.score, keypoints=body.keypoints)
            if body.stick is not None:
                packet.stick = self._choice.choose(packet.stream, packet.person, [body.stick])
        return packet

    def close(self) -> None:
        if hasattr(self, "_body"):
            self._body.close()
        if self._closer is not None:
            self._closer.close()

    def describe(self) -> dict[str, str]:
        """Runtime and device of the networks."""
        chosen = self._settings
        used = {"fused" if chosen.fused else "body": f"{chosen.fused or chosen.body}: {self._body.describe()}"}
        return used | ({"closer": f"{closer_model(chosen)}: {self._closer.describe()}"} if self._closer else {})

    def _look_closer(self, closer: CloserLook, frame: FrameRef, followed: _Followed, packet: ArnisPacket) -> None:
        """Begin a look at a held picture that is not detected, unless there is a fresh one."""
        if followed.body is None or followed.quick is None or not (followed.visible and followed.held):
            return
        if not closer.is_due(packet.stream, packet.pts, wait=packet.expires_at_ns is None):
            return
        try:
            with self._frames.read(frame) as image:
                picture = image.copy()
        except FrameOverrun:
            return  # this frame needs no pixels
        closer.begin(picture, followed.body, followed.quick, packet.stream, packet.pts)

    def _follow(self, followed: _Followed, body: BodyCandidate | None, packet: ArnisPacket) -> None:
        """Give a new track to somebody else, or to whom was lost for long."""
        followed.visible = body is not None
        if body is None:
            return
        if followed.body is None or overlap(body.box, followed.body.box) < SAME_PERSON:
            followed.track = packet.sequence
        followed.body = followed.quick = body
        followed.seen_at_s = packet.pts


class DetectStick:
    """Adds `stick` to the packet, where a person was found; a stage of its own, so that it can work on one frame while
    the body is looked for in the next.

    A thin stick is seen better from close by: what one hand reaches comes out up to a half larger than what both do.
    """

    name: ClassVar[str] = "detect"
    settings_type: ClassVar[type[DetectSettings]] = DetectSettings

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._choice: StickChoice
        self._sought: dict[str, Sought] = {}
        self._stick: StickDetector | None = None

    def open(self, context: Context) -> None:
        """Load the network; raises UserError when a model, a runtime or a device is missing."""
        self._frames = context.frames
        if self._settings.stick and not self._settings.fused:
            self._stick = make_stick_detector(self._settings.stick, _runtime(self._settings))
            hand = make_hand(self._settings.hand, _beside(self._settings, self._stick))
            self._choice = StickChoice(self._settings, hand)

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.person is not None

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        if self._stick is None or packet.person is None or packet.frame is None:
            return packet
        person, sought = packet.person, self._sought.get(packet.stream)
        if sought is None or sought.track != person.track:
            sought = self._sought[packet.stream] = Sought(person.track)
        still = packet.gate is not None and packet.gate.still
        with self._frames.read(packet.frame) as image:
            for hands in sought.where(patient=still):
                candidates = self._stick.detect(image, person.keypoints, hands)
                if candidates:
                    break
        # Only now, as leaving the `with` raises when the picture was overwritten while it was looked at.
        packet.stick = self._choice.choose(packet.stream, person, candidates)
        sought.remember(packet.stick, person)
        return packet

    def describe(self) -> dict[str, str]:
        """Runtime and device of the network."""
        return {"stick": f"{self._settings.stick}: {self._stick.describe()}"} if self._stick else {}


def closer_model(settings: DetectSettings) -> str:
    """The network that looks closer at holds; empty where none does, or the body's own would."""
    closer = AUTO_CLOSER.get(settings.body, "") if settings.closer == "auto" else settings.closer
    return "" if settings.fused or closer == settings.body else closer


def make_body_detector(model: str, runtime: Runtime, fused: bool = False) -> BodyDetector:
    """Detector of a shipped model's name, a model folder or a `.task` file; raises UserError when it can't be made."""
    if Path(model).suffix == ".task":
        if fused:
            raise UserError(f"detect.fused = {model!r} gives no stick; set it as detect.body")
        if runtime.device not in ("auto", "cpu"):
            raise UserError(f'detect.body = {model!r} runs on the CPU, not on {runtime.device}; set device = "auto"')
        return MediaPipePose(Path(model))
    card, network = open_model(model, runtime, ["fused"] if fused else ["body"])
    if card.architecture == "movenet":
        return MoveNet(model, card, network)
    if card.architecture.startswith("yolo"):
        return Yolo(model, card, network)
    raise UserError(f"model {model}: its card names the architecture {card.architecture}, not movenet or yolo")


def make_stick_detector(model: str, runtime: Runtime) -> StickDetector:
    """Detector of a shipped model's name or a model folder; raises UserError when it can't be made."""
    card, network = open_model(model, runtime, ["stick"])
    whole = card.architecture.startswith("yolo") and "presence" not in {output.name for output in network.outputs}
    kind = YoloStick if whole else StickHeatmap  # a YOLO may have been trained on crops too
    return kind(model, card, network)


def make_hand(hand: str, runtime: Runtime) -> WeaponHand | GivenHand:
    """What tells which hand holds the stick: `left`, `right`, or a network by its name or folder; raises UserError when
    it can't be made."""
    for given in HANDS:
        if hand == given:
            return GivenHand(given)
    if not (folder := model_folder(hand)).is_dir():
        said = f"neither {' nor '.join(HANDS)}, nor a model, as there is no folder {folder.absolute()}"
        raise UserError(f"detect.hand = {hand!r} is {said}; correct it")
    return WeaponHand(hand, runtime)


def _runtime(settings: DetectSettings) -> Runtime:
    return Runtime(settings.backend, settings.threads, settings.precision, settings.device)


def _beside(settings: DetectSettings, first: BodyDetector | StickDetector) -> Runtime:
    """For what helps a network: one thread of the CPU, which is enough, in that network's runtime, as another would
    take some 40 MB more."""
    backend = settings.backend
    if backend == "auto" and isinstance(first, MoveNet | StickHeatmap):
        backend = first.backend
    return Runtime(backend, 1, "f32", "cpu")


def _prominence(candidate: BodyCandidate) -> float:
    x0, y0, x1, y1 = candidate.box
    return candidate.score * (x1 - x0) * (y1 - y0)


def _end(point: np.ndarray) -> tuple[float, float, float]:
    x, y, score = point.tolist()
    return x, y, score
