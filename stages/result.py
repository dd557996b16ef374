"""One result, the same on the socket and as a line of `--results`; and the schema that says so to other programs.

`python -m stages.result` writes `result.schema.json` anew from the Structs below; a test compares the two.
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from engine.clock import NS_PER_MS
from stages.classes import PoseClass
from stages.packets import ArnisPacket, Cue, Hand, Person, Pose, Status, Stick, StickMethod

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("result.schema.json")

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Point = tuple[float, float]
Keypoint = tuple[float, float, Share]
"""x and y in pixels of the unmirrored source frame, confidence."""


class PersonResult(msgspec.Struct, kw_only=True, frozen=True):
    """The person who is followed; `track` changes when it is another one."""

    track: int
    """Another number: another person, or the same after half a second out of sight or in pictures of another size."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the unmirrored source frame."""
    score: Share
    """How sure the network is of the person as a whole."""
    keypoints: Annotated[list[Keypoint | None], msgspec.Meta(min_length=17, max_length=17)]
    """x, y in pixels and confidence, in COCO order; null where a keypoint was not found."""
    age_frames: int
    """How many frames ago body and stick were seen: 0, or more where a frame was skipped."""


class StickResult(msgspec.Struct, kw_only=True, frozen=True):
    """The stick; an end that was not found is null, and so are angle and length then."""

    hand: Hand
    """The performer's own hand that holds it."""
    grip: Keypoint | None
    """x, y in pixels and confidence."""
    tip: Keypoint | None
    """x, y in pixels and confidence, after smoothing and correction."""
    angle_deg: float | None
    """Direction from grip to tip in the picture, counter-clockwise from the right: 90 points up. From -180 to 180."""
    length_px: float | None
    """From grip to tip in the picture, so shorter where the stick points towards the camera or away."""
    method: StickMethod
    """How the tip was corrected: not (`detected`), by the rod in the picture (`evidence`), by the forearm (`forearm`),
    or left where it was for want of evidence (`kept`)."""
    detected_tip: Point | None
    """x, y of the tip as it was detected."""


class Result(msgspec.Struct, kw_only=True, frozen=True):
    """What is known of one frame."""

    schema: int = SCHEMA_VERSION
    """Version of this form: another number, another meaning of some field."""
    stream: str
    """Place of the source on the command line, from 0."""
    sequence: int
    """Counts the frames of the stream without a gap: a subscriber sees from it what it missed."""
    pts: float
    """Seconds from the start of the stream."""
    captured_at_ns: int
    """On the machine's own steady clock (Python's `time.perf_counter_ns`), not the time of day."""
    picture: str | None
    """Name of the file, of a source that is a folder of pictures; null also for one that was lost with the process that
    read it."""
    latency_ms: float | None
    """From capture to when the result was ready; null for a frame that was not processed."""
    status: Status
    """`ok`: named and sure; `held`: an earlier sure answer stands in; `unsure`: `pose`, if any, is a refused guess;
    `no_person`, `dropped`, `source_lost`, `end`."""
    reason: str | None
    """Of `held`: why the frame was not looked at anew (`still`, `moving`), or not classified. Of `no_person` and
    `unsure`, why the last one that was looked at was not classified: `no_person`, `body_unsure`, `not_upright`,
    `no_stick`, `grip_unsure`, `tip_unsure`, `nothing_seen_yet`; none where the classifier was in doubt. Of `dropped`:
    `replaced`, `too_old`, `worker_lost`, `late`, `overrun`, `stopped`, `malformed`, `refused:<stage>`,
    `error:<stage>`. Of `source_lost`: in words."""
    person: PersonResult | None
    """Null where nobody is followed."""
    stick: StickResult | None
    """Null where neither end is known."""
    pose: Pose | None
    """Look at `accepted` before you show it."""
    feedback: list[Cue]
    """What to correct, worst first; none does not mean that all is right."""


class FeedbackMessage(msgspec.Struct, kw_only=True, frozen=True):
    """Topic `feedback.<stream>`: sent when the cues change, also to none."""

    schema: int = SCHEMA_VERSION
    """Version of this form: another number, another meaning of some field."""
    stream: str
    """As in a result."""
    sequence: int
    """Counts the messages of this topic."""
    frame: int
    """`sequence` of the result that it belongs to."""
    pts: float
    """Seconds from the start of the stream."""
    label: str | None
    """The pose that they belong to; null where there are none."""
    cues: list[Cue]
    """What to correct from now on, worst first."""


class Hello(msgspec.Struct, kw_only=True, frozen=True):
    """Topic `hello`: what a subscriber needs to read the rest; sent whenever somebody subscribes to it."""

    schema: int = SCHEMA_VERSION
    """Version of this form: another number, another meaning of some field."""
    sequence: int
    """Counts the messages of this topic."""
    program: str = "arnis-stream"
    """Who publishes."""
    version: str
    """The program's own."""
    streams: list[str]
    """As results name them, in the order of the sources."""
    frames: str | None
    """Address of the socket with the pictures (`frame.<stream>`); `*` stands for the host of this one."""
    classes: list[PoseClass]
    """What a pose may be called, with its meaning."""
    keypoints: list[str]
    """Names of the 17 keypoints, then `grip` and `tip`."""
    edges: list[tuple[int, int]]
    """What to join by lines, as indices into `keypoints`."""


def result_of(packet: ArnisPacket) -> Result:
    """The result of a packet, rounded to what is measured: no NaN, null where there is none."""
    seen = None if packet.ended else packet
    latency_ns = packet.ready_at_ns - packet.captured_at_ns if seen and packet.ready_at_ns is not None else None
    return Result(
        stream=packet.stream,
        sequence=packet.sequence,
        pts=round(packet.pts, 6),
        captured_at_ns=packet.captured_at_ns,
        picture=packet.picture,
        latency_ms=None if latency_ns is None else round(latency_ns / NS_PER_MS, 1),
        status=packet.status,
        reason=packet.reason,
        person=_person(seen.person) if seen and seen.person else None,
        stick=_stick(seen.stick) if seen and seen.stick else None,
        pose=_pose(seen.pose) if seen and seen.pose else None,
        feedback=[cue_result(cue) for cue in seen.feedback] if seen else [],
    )


def cue_result(cue: Cue) -> Cue:
    """A cue as others read it: rounded."""
    low, high = cue.wanted
    return msgspec.structs.replace(
        cue, measured=round(cue.measured, 2), wanted=(round(low, 3), round(high, 3)), severity=round(cue.severity, 2)
    )


def json_schema() -> dict[str, Any]:
    """JSON Schema of a result, with those of the other messages among its `$defs`."""
    (root, *_), definitions = msgspec.json.schema_components((Result, FeedbackMessage, Hello))
    for kind in (PersonResult, StickResult, Result, FeedbackMessage, Hello, Pose, Cue, PoseClass):
        for name, meaning in field_meanings(kind).items():
            definitions[kind.__name__]["properties"][name]["description"] = meaning
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"arnis-stream result, version {SCHEMA_VERSION}",
        **root,
        "$defs": definitions,
    }


def field_meanings(kind: type) -> dict[str, str]:
    """What the strings below the fields of a class say, by field."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(said.value.value.split())
        for field, said in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant) and isinstance(said.value.value, str)
    }  # fmt: skip


def schema_text() -> str:
    """What stands in `result.schema.json`."""
    return msgspec.json.format(msgspec.json.encode(json_schema(), order="deterministic"), indent=2).decode() + "\n"


def _person(person: Person) -> PersonResult:
    x0, y0, x1, y1 = (round(float(v), 1) for v in person.box)
    return PersonResult(
        track=person.track,
        box=(x0, y0, x1, y1),
        score=_share(person.score),
        keypoints=[_keypoint(point) for point in person.keypoints],
        age_frames=person.age_frames,
    )


def _stick(stick: Stick) -> StickResult | None:
    grip, tip = _keypoint(stick.grip), _keypoint(stick.tip)
    if grip is None and tip is None:  # only the hand is known, from earlier frames
        return None
    angle = length = None
    if grip and tip:
        across, up = stick.tip[0] - stick.grip[0], stick.grip[1] - stick.tip[1]
        angle, length = round(math.degrees(math.atan2(up, across)), 1), round(math.hypot(across, up), 1)
    detected = stick.detected_tip
    found = detected is not None and all(map(math.isfinite, detected))
    return StickResult(
        hand=stick.hand, grip=grip, tip=tip, angle_deg=angle, length_px=length, method=stick.method,
        detected_tip=(round(detected[0], 1), round(detected[1], 1)) if detected and found else None,
    )  # fmt: skip


def _pose(pose: Pose) -> Pose:
    shares = {name: _share(value) for name, value in pose.probabilities.items()}
    return msgspec.structs.replace(pose, confidence=_share(pose.confidence), probabilities=shares)


def _keypoint(point: Sequence[float] | np.ndarray) -> Keypoint | None:
    x, y, confidence = (float(v) for v in point)
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    return round(x, 1), round(y, 1), _share(confidence)


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, float(value))), 4)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    sys.stdout.write(f"wrote {SCHEMA_FILE.name}\n")
