"""What is worth computing: motion decides before detection, confidence before classification.

A pose is a hold, so most frames of a lesson repeat the one before. `MotionGate` compares each frame with the last one
that was *detected* (not the previous one, or a slow drift would never add up). `ConfidenceGate` stops what would be a
guess. Both gaps are filled by `stages.stand_in`.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import cv2
import msgspec
import numpy as np

from engine.stage import Context
from stages.angles import torso_lean_deg
from stages.packets import HANDS, MISSING_END, ArnisPacket, GateDecision, Hand, Person, Stick

GREY_SIZE = (96, 54)
"""Width and height of the small picture in which motion is looked for."""

STILL, MOVING = "still", "moving"
"""Why a frame is not detected: it hardly differs from the last one that was, or that one is only just past."""

_TOP_CELLS = 5
# Cells of a still picture hardly ever differ by more than this many robust standard deviations of all cells.
_NOISE_SIGMAS = 4.0
_MOST_NOISE = 5.0
"""Grey levels: a cell averages so many pixels that noise is 0 to 4 of them, in a picture of 320 pixels too; where most
cells change by more, another scene is shown."""


class GateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [gate]; `config.toml` says what each means, and its unit."""

    motion: bool = True
    motion_threshold: Annotated[float, msgspec.Meta(ge=0.0, le=255.0)] = 12.0
    moving_rest_s: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.038
    """Of 60 frames a second every third is detected, of 25 and fewer every one. The first that moves is detected at
    once."""
    hold_frames: Annotated[int, msgspec.Meta(ge=0, le=300)] = 5
    hold_s: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 1.0
    """So that a gap in the stream ends a hold."""
    min_body: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.4
    """MoveNet gives the hidden side of a side view little: on renders 21 % lie between 0.4 and 0.5 with hardly larger
    errors (0.06 against 0.05 torso)."""
    min_stick: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.3
    max_lean_deg: Annotated[float, msgspec.Meta(ge=0.0, le=180.0)] = 45.0
    """In 1,852 photographs of the poses it is at most 21 but for five that were turned."""
    need_stick: bool = True
    stick_memory_s: Annotated[float, msgspec.Meta(ge=0.0, le=60.0)] = 3.0

    def may_stand_in(self, sequence: int, pts: float, packet: ArnisPacket) -> bool:
        """Whether a result of frame `sequence`, at `pts` seconds, may stand in for this packet."""
        frames, seconds = packet.sequence - sequence, packet.pts - pts
        return 0 <= frames <= self.hold_frames and 0.0 <= seconds <= self.hold_s


def shrink_grey(frame: np.ndarray) -> np.ndarray:
    """Small grey picture of a frame: uint8 BGR (h, w, 3) -> float32 (54, 96), or (96, 54) of a portrait; 0..255.

    Every pixel counts: skipping some would turn a sway of one pixel into a jump of several. Halving is the one
    size for which area averaging is fast, so that the whole takes 0.4 ms at 720p.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    while min(grey.shape) >= 4 * GREY_SIZE[1]:
        height, width = grey.shape[0] // 2, grey.shape[1] // 2
        grey = cv2.resize(grey[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    size = GREY_SIZE if grey.shape[1] >= grey.shape[0] else GREY_SIZE[::-1]
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)


def motion_between(before: np.ndarray, after: np.ndarray) -> float:
    """How much the most changed spot moved: grey levels beyond noise and exposure, 0 or more.

    `before` and `after` are float32 pictures of one shape from `shrink_grey`. Gain and offset between them are fitted
    and removed (auto-exposure), noise is estimated from all cells (median absolute deviation), and what the few most
    changed cells stand out by is returned: a stick's tip covers only a handful of cells, so a mean would miss it.
    """
    x, y = before - before.mean(), after - after.mean()
    variance = float((x * x).mean())
    gain = float((x * y).mean()) / variance if variance > 1.0 else 1.0
    # A large moving object lowers the fitted gain without any change of exposure.
    change = (y - np.clip(gain, 0.5, 2.0) * x).ravel()
    change = np.abs(change - np.median(change[::4]))
    noise = min(1.4826 * float(np.median(change[::4])), _MOST_NOISE)
    top = np.partition(change, -_TOP_CELLS)[-_TOP_CELLS:]
    return max(0.0, float(top.mean()) - _NOISE_SIGMAS * noise)


def confidence_reason(
    keypoints: np.ndarray,
    stick: Stick | None,
    *,
    min_body: float,
    min_stick: float,
    need_stick: bool,
    max_lean_deg: float,
) -> str | None:
    """Why a person is not worth classifying (`body_unsure`, `not_upright`, `no_stick`, `grip_unsure`, `tip_unsure`), or
    None.

    `keypoints` is (17, 3) with the confidence last, 0 of a missing keypoint.
    """
    if float(keypoints[:, 2].mean()) < min_body:
        return "body_unsure"
    if torso_lean_deg(keypoints) > max_lean_deg:
        return "not_upright"
    if not need_stick:
        return None
    if stick is None:
        return "no_stick"
    if not stick.grip[2] >= min_stick:
        return "grip_unsure"
    return None if stick.tip[2] >= min_stick else "tip_unsure"


class _Reference(msgspec.Struct):
    """The last frame that went through."""

    grey: np.ndarray
    size: tuple[int, int]
    """Width and height of the frame itself."""
    sequence: int
    pts: float
    moving: bool
    """It went through because it moved, and nothing has been still since."""


class MotionGate:
    """Lets a frame through to detection when it has changed since the last one that went through.

    While everything moves, detection only chases the frames and adds to their age; it then takes them at a lower rate.
    """

    name: ClassVar[str] = "gate"
    settings_type: ClassVar[type[msgspec.Struct]] = GateSettings

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings
        self._references: dict[str, _Reference] = {}

    def open(self, context: Context) -> None:
        self._frames = context.frames

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        gate = packet.gate = GateDecision()
        if not self._settings.motion or packet.frame is None:
            return packet
        with self._frames.read(packet.frame) as frame:
            grey = shrink_grey(frame)
        size = packet.frame.width, packet.frame.height
        reference, moved = self._references.get(packet.stream), False
        # A picture of another size is another picture, as in a folder of photographs: what was seen lies elsewhere.
        if reference is not None and reference.size == size:
            gate.reference = reference.sequence
            moved = motion_between(reference.grey, grey) >= self._settings.motion_threshold
            gate.still = not moved
            gate.reason = self._why_skipped(packet, reference, moved)
            if gate.reason is not None:
                gate.detect = gate.classify = False
                reference.moving = moved
                return packet
        self._references[packet.stream] = _Reference(grey, size, packet.sequence, packet.pts, moved)
        return packet

    def _why_skipped(self, packet: ArnisPacket, reference: _Reference, moved: bool) -> str | None:
        if not self._settings.may_stand_in(reference.sequence, reference.pts, packet):
            return None
        if not moved:  # who has just come to rest is looked at once more: what was seen in movement says less
            return None if reference.moving else STILL
        resting = packet.pts - reference.pts < self._settings.moving_rest_s
        return MOVING if resting and reference.moving else None


_SHARE_S = 0.5
"""Time over which the share of looks that showed a stick is taken."""
_LARGEST_WEIGHT = 0.2
_BELIEVED_SHARE = 0.3
"""More than one look weighs: a detector's single mistake is no stick."""
_REMEMBERED_SHARE = 0.5
_LOOKS_TO_REMEMBER = 5


class HeldStick:
    """Whether a person holds a stick, over time: a lone sighting is a mistake, a lone miss is one as well."""

    def __init__(self, track: int) -> None:
        self.track = track
        self._looks = 0
        self._share = 0.0
        self._looked_at_s = 0.0
        self._sure: tuple[float, Hand] | None = None
        """When it was last seen for sure, and in which hand."""

    def look(self, hand: Hand | None, pts: float, memory_s: float) -> Hand | None:
        """`hand` in which a stick is seen now, or None; returns the hand that is believed to hold one."""
        self._looks += 1
        passed_s = max(0.0, pts - self._looked_at_s)
        weight = min(1 - math.exp(-passed_s / _SHARE_S), _LARGEST_WEIGHT)
        # At first a plain mean, so that a single picture can be judged.
        self._share += max(weight, 1 / self._looks) * ((hand is not None) - self._share)
        self._looked_at_s = pts
        if hand is not None:
            if self._share >= _REMEMBERED_SHARE and self._looks >= _LOOKS_TO_REMEMBER:
                self._sure = pts, hand
            return hand if self._share >= _BELIEVED_SHARE else None
        return self._sure[1] if self._sure and 0.0 <= pts - self._sure[0] <= memory_s else None


class ConfidenceGate:
    """Stops the classifier where too little was seen; sets `no_person` where nobody was."""

    name: ClassVar[str] = "gate"
    settings_type: ClassVar[type[msgspec.Struct]] = GateSettings

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings
        self._held: dict[str, HeldStick] = {}

    def open(self, context: Context) -> None:
        hand = context.sections.get("detect", {}).get("hand")
        self._given: Hand | None = hand if hand in HANDS else None

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        gate = packet.gate = packet.gate or GateDecision()
        if not gate.detect:
            return packet
        if packet.person is None:
            packet.status = "no_person"
            gate.classify, gate.reason = False, "no_person"
            return packet
        hand = self._hand(packet, packet.person)
        if hand is None and self._is_seen(packet.stick):
            packet.stick = None  # a lone sighting, not believed
        settings = self._settings
        gate.reason = confidence_reason(
            packet.person.keypoints,
            packet.stick,
            min_body=settings.min_body,
            min_stick=settings.min_stick,
            need_stick=settings.need_stick and hand is None,
            max_lean_deg=settings.max_lean_deg,
        )
        gate.classify = gate.reason is None
        hand = self._given or hand
        if packet.stick is None and hand is not None:
            # The graph must know which hand is the weapon hand even while the stick points at the lens.
            packet.stick = Stick(hand=hand, grip=MISSING_END, tip=MISSING_END)
        return packet

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.gate is None or packet.gate.detect

    def _is_seen(self, stick: Stick | None) -> bool:
        return stick is not None and min(stick.grip[2], stick.tip[2]) >= self._settings.min_stick

    def _hand(self, packet: ArnisPacket, person: Person) -> Hand | None:
        """The hand that holds the stick, seen now or lately; None when this person is not believed to hold one."""
        held = self._held.get(packet.stream)
        if held is None or held.track != person.track:
            held = self._held[packet.stream] = HeldStick(person.track)
        seen = packet.stick.hand if packet.stick is not None and self._is_seen(packet.stick) else None
        return held.look(seen, packet.pts, self._settings.stick_memory_s)
