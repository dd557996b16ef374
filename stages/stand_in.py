"""What fills the gaps that the gates leave: the last result, which then says how old it is."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np

from engine.stage import Context
from stages.gate import MOVING, GateSettings
from stages.packets import ArnisPacket, Cue, End, GateDecision, Person, Pose, Stick


class _Seen(msgspec.Struct):
    """What a detected frame came to."""

    sequence: int
    pts: float
    status: str
    reason: str | None
    person: Person | None
    stick: Stick | None
    pose: Pose | None
    feedback: list[Cue]


_NEAR_LOOKS_S = 0.1
"""Two looks further apart than this say nothing of the speed now."""
_LONGEST_SHARE = 2.0
"""Of the way between two looks that is gone on: of 60 frames a second, two follow the first two looks at a movement."""


def extrapolate(seen: _Seen, before: _Seen | None, pts: float) -> tuple[Person | None, Stick | None]:
    """Body and stick of the last look, moved on to time `pts` at their speed between the last two looks.

    As they are where the looks were too far apart or showed different people, hands or points.
    """
    person, stick = seen.person, seen.stick
    if person is None or before is None or before.person is None or before.person.track != person.track:
        return person, stick
    apart_s = seen.pts - before.pts
    if not 0 < apart_s <= _NEAR_LOOKS_S:
        return person, stick
    share = min((pts - seen.pts) / apart_s, _LONGEST_SHARE)

    def moved(now: np.ndarray, then: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(then), now + share * (now - then), now)

    def moved_end(now: End, then: End) -> End:
        x, y = moved(np.array(now[:2]), np.array(then[:2])).tolist()
        return x, y, now[2]

    keypoints = person.keypoints.copy()
    keypoints[:, :2] = moved(keypoints[:, :2], before.person.keypoints[:, :2])
    # The box keeps its size: it may have changed only because a foot was not seen.
    twice = np.isfinite(keypoints[:, :2] + before.person.keypoints[:, :2]).all(1)
    moves = keypoints[twice, :2] - person.keypoints[twice, :2]
    along, down = np.median(moves, axis=0).tolist() if len(moves) else (0.0, 0.0)
    x0, y0, x1, y1 = person.box
    person = msgspec.structs.replace(person, keypoints=keypoints, box=(x0 + along, y0 + down, x1 + along, y1 + down))
    if stick is not None and before.stick is not None and before.stick.hand == stick.hand:
        grip, tip = moved_end(stick.grip, before.stick.grip), moved_end(stick.tip, before.stick.tip)
        stick = msgspec.structs.replace(stick, grip=grip, tip=tip, detected_tip=None)
    return person, stick


class StandIn:
    """Fills in the last result where detection or classification was skipped."""

    name: ClassVar[str] = "gate"
    settings_type: ClassVar[type[msgspec.Struct]] = GateSettings

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings
        self._last: dict[str, _Seen] = {}
        self._before: dict[str, _Seen | None] = {}
        self._last_ok: dict[str, _Seen] = {}
        """The last accepted result, until another pose or person is seen."""

    def open(self, context: Context) -> None:
        pass

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        gate = packet.gate or GateDecision()
        seen: _Seen | None
        if gate.detect:
            if not gate.classify:
                packet.reason = gate.reason
                if packet.status != "no_person":
                    packet.status = "unsure"
            seen = self._remember(packet)
        else:
            seen = self._last.get(packet.stream)
            if seen is not None and gate.reference is not None and seen.sequence < gate.reference:
                seen = None  # the frame that this one is like was lost on its way: nobody knows what it shows
                self._forget(packet.stream)
            self._repeat(packet, seen)
        if seen is None or seen.pose is None or not gate.detect:
            self._hold(packet)
        return packet

    def _remember(self, packet: ArnisPacket) -> _Seen:
        seen = _Seen(
            packet.sequence, packet.pts, packet.status, packet.reason, packet.person, packet.stick, packet.pose,
            packet.feedback,
        )  # fmt: skip
        self._before[packet.stream] = self._last.get(packet.stream)
        self._last[packet.stream] = seen
        accepted = self._last_ok.get(packet.stream)
        if packet.status == "ok" and packet.pose is not None:
            self._last_ok[packet.stream] = seen
        elif packet.pose is not None or _is_another(accepted, packet.person):
            self._last_ok.pop(packet.stream, None)
        return seen

    def _forget(self, stream: str) -> None:
        for kept in (self._last, self._before, self._last_ok):
            kept.pop(stream, None)

    def _repeat(self, packet: ArnisPacket, seen: _Seen | None) -> None:
        """The picture has not changed, or the next look is near: what was seen last is said again."""
        if seen is None:
            packet.status, packet.reason = "unsure", "nothing_seen_yet"
            return
        packet.person, packet.stick, packet.reason = seen.person, seen.stick, seen.reason
        if packet.gate is not None and packet.gate.reason == MOVING:
            packet.person, packet.stick = extrapolate(seen, self._before.get(packet.stream), packet.pts)
        if packet.person is not None:
            packet.person = msgspec.structs.replace(packet.person, age_frames=packet.sequence - seen.sequence)
        packet.status = "no_person" if seen.status == "no_person" else "unsure"
        if seen.pose is not None:
            packet.pose = msgspec.structs.replace(seen.pose, age_frames=packet.sequence - seen.sequence)

    def _hold(self, packet: ArnisPacket) -> None:
        """An accepted result stands in while it is fresh."""
        accepted = self._last_ok.get(packet.stream)
        if accepted is None or accepted.pose is None:
            return
        if not self._settings.may_stand_in(accepted.sequence, accepted.pts, packet):
            return
        packet.status, packet.reason = "held", packet.gate.reason if packet.gate else None
        packet.pose = msgspec.structs.replace(accepted.pose, age_frames=packet.sequence - accepted.sequence)
        packet.feedback = accepted.feedback
        if packet.person is None and accepted.person is not None:
            packet.stick = accepted.stick
            packet.person = msgspec.structs.replace(accepted.person, age_frames=packet.pose.age_frames)


def _is_another(seen: _Seen | None, person: Person | None) -> bool:
    """Whether this person is not the one who was seen then."""
    return bool(seen and seen.person and person and seen.person.track != person.track)
