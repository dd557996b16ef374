"""What the stages add to a packet."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec
import numpy as np

from engine.packet import Packet

Status = Literal["ok", "held", "no_person", "unsure", "dropped", "source_lost", "end"]
"""`held`: an earlier result stands in; `unsure`: seen, not accepted; `dropped`: not processed, see `reason`."""
LONGEST_STEP_S = 1.0
"""A longer gap between two frames is a pause: what is before and behind it stands alone, like photographs."""

Hand = Literal["left", "right"]
HANDS: tuple[Hand, ...] = get_args(Hand)
StickMethod = Literal["detected", "forearm", "evidence", "kept"]
"""`detected`: as the detector gave it (correction off); `kept`: correction looked and found too little evidence."""


class Person(msgspec.Struct, kw_only=True):
    """One person in pixels of the source frame (unmirrored)."""

    track: int
    """Changes when another person is followed or after the person was lost."""
    box: tuple[float, float, float, float]
    """Bounding box x0, y0, x1, y1."""
    score: float
    keypoints: np.ndarray
    """float32 (17, 3): x, y in pixels and confidence 0..1, COCO order; missing: confidence 0, x = y = NaN."""
    age_frames: int = 0
    """How many frames ago this was seen; the stick is as old."""


End = tuple[float, float, float]
"""One end of the stick: x, y in pixels of the source frame and confidence 0..1."""

MISSING_END: End = (float("nan"), float("nan"), 0.0)


class Stick(msgspec.Struct, kw_only=True):
    """The stick in pixels of the source frame; a missing end has confidence 0 and x = y = NaN."""

    hand: Hand
    """The hand that holds it, by all that was seen so far."""
    grip: End
    tip: End
    method: StickMethod = "detected"
    detected_tip: tuple[float, float] | None = None
    """The tip before smoothing and correction."""


class GateDecision(msgspec.Struct, kw_only=True):
    """Whether detection and classification are worth their time on this frame."""

    detect: bool = True
    """False: the picture has hardly changed or was looked at just now; the last result stands in."""
    classify: bool = True
    """False: too little was seen with confidence; `reason` names what."""
    reason: str | None = None
    reference: int | None = None
    """Sequence of the frame that it was compared with: the last one that went through to detection."""
    still: bool = False
    """Nothing has moved since the last frame that was detected."""


class GraphInput(msgspec.Struct, kw_only=True):
    """What the classifier gets; built by `stages.graph`, the same in training and serving."""

    nodes: np.ndarray
    """float32 (19, node features)."""
    edges: np.ndarray
    """float32 (directed edges, edge features)."""
    mask: np.ndarray
    """float32 (19,): 1 where the node is present."""
    crop: np.ndarray | None = None
    """uint8 (128, 128, 3) RGB around the grip, mirrored for left-handers; None when there is no hand to look at."""


class Pose(msgspec.Struct, kw_only=True):
    """The classifier's answer; probabilities are calibrated."""

    label: str
    """The likeliest class, such as `left_eye_thrust` or `neutral`."""
    confidence: float
    """Its probability."""
    accepted: bool
    """Whether that is enough; where it is not, the label is a guess that should not be shown as an answer, but with the
    `alternative` where there is one."""
    family: str
    """The foot that leads, as a right-hander does it: in the class `label` where it is accepted, else in the likeliest
    poses together."""
    chamber: str
    """The height of the target, in the same way."""
    alternative: str | None = None
    """Where the label is not accepted: the second likeliest class, if together they are as sure as one must be. So it
    is one of these two. Null where it may be a third, where either is `neutral`, and in a movement at first."""
    probabilities: dict[str, float]
    """Of every class."""
    age_frames: int = 0
    """How many frames ago it was really seen; more than 0 when it stands in."""


class Cue(msgspec.Struct, kw_only=True):
    """One thing to correct."""

    quantity: str
    """Such as `right_elbow_deg` or `tip_height`, in the performer's own left and right."""
    measured: float
    """Degrees where the name ends in `_deg`, else torso lengths (heights: above the shoulders)."""
    wanted: tuple[float, float]
    """The band in which good examples lie, in the same unit."""
    severity: float
    """Distance to the band in half-widths of the band."""
    sentence: str
    """What to do, in plain English."""


class ArnisPacket(Packet, kw_only=True):
    """A frame and what is known of it so far."""

    status: Status = "ok"
    person: Person | None = None
    stick: Stick | None = None
    gate: GateDecision | None = None
    graph: GraphInput | None = None
    pose: Pose | None = None
    feedback: list[Cue] = []
    ready_at_ns: int | None = None
    """When the first stage that passes results on had it: the end of the latency that a result states."""
    canvas: np.ndarray | None = None
    """The drawn frame, uint8 BGR; lives inside the last worker only."""
