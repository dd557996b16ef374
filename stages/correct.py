"""Puts the stick where the picture shows it: refines the angle and finds the tip along the rod.

A detector's tip may be off by several degrees and some tenths of the length. The picture knows better then: a rod is a
pair of parallel edges of constant width and one colour. Where that cannot be seen (over a sleeve of the same colour,
pointing at the lens), or says much the same, the input is kept and marked so; nothing is invented. The often-quoted
rule that makes the stick 1.35 forearms long and bends it towards the forearm is there for comparison (`forearm`): most
real poses break it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

import cv2
import msgspec
import numpy as np

from engine.stage import Context
from stages.graph import torso_length
from stages.packets import ArnisPacket, Person, Stick
from stages.skeleton import LEFT_ELBOW, LEFT_WRIST, RIGHT_ELBOW, RIGHT_WRIST

FOREARM_RATIO = 1.35
FOREARM_CONE_DEG = 20.0

MAX_LENGTH = 1.6
"""Grip to tip in torsos: what a stick reaches at most in a picture. An upper bound only, because of foreshortening; a
longer one (detect.longest_stick allows it) is kept as detected."""

# The strip is sampled in fractions of the torso: a rod, 2 to 6 % of a torso thick, is 3 to 8 rows.
_ROW = 0.0075
_COLUMN = 0.012
_HALF_ROWS = 48
_COLUMNS = int(MAX_LENGTH / _COLUMN) + 1
_RODS = ((3, 1, 1), (5, 3, 1), (7, 3, 2))
"""Width of a rod, height of its half, distance of that from the middle; all in rows."""
_SURE_CONTRAST = (10.0, 40.0)
"""Grey levels between rod and background beyond which more contrast proves no more: the least in a dull picture, the
most in a rich one."""
_CONTRAST_PER_SPREAD = 0.7
_TAPE = 0.3
"""What a column of another colour than the rest of the rod still counts, because grips and tips are taped."""

_ANGLES_DEG = np.linspace(-15.0, 15.0, 41)
_OFFSETS = np.arange(-8, 9)
_HAND = 0.12
"""Torsos from the grip that the fist hides."""
_TRUST = 200.0
_MOST_TRUST = 10.0
"""Votes that it costs to move the tip, by the square of the change in lengths and at most: a rod that clearly goes on
past a tip that was seen halfway along it is followed. With half the trust, rails and frames of pictures behind the tip
lengthen the stick: on 152 sticks in renders 10 % of the tips were off by over 6 % then, 7 % uncorrected, 6 % so."""
_HALFWAY = 1.2
_CLEAR_TURN_DEG = 3.0
_CLEAR_RATIO = (0.9, 1.05)
"""Change in direction, and in length, from which the rod that is followed takes the place of the stick as detected.
Below, the detector is the better judge: on 1,320 sticks in renders 5.8 % of its tips are off by more than a tenth of
the stick, 6.3 % with every rod followed, 5.0 % so; on 652 others 5.8, 5.2 and 3.8 %."""
_SHORTEST = 0.3
"""Torsos; a shorter (foreshortened) stick shows no edges worth following."""


CorrectMethod = Literal["evidence", "forearm", "off"]


class CorrectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [correct]; `config.toml` says what each means, and its unit."""

    method: CorrectMethod = "evidence"
    min_evidence: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.5
    min_margin: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.3


class Refined(msgspec.Struct, frozen=True):
    """The stick on the axis that the picture shows."""

    grip: np.ndarray
    tip: np.ndarray


class _Rod(NamedTuple):
    """A line that begins beside the grip."""

    start: np.ndarray
    direction: np.ndarray
    angle: float
    """To the stick as detected, radians."""
    reach: float
    """Torsos."""
    evidence: float
    margin: float


def clamp_to_forearm(elbow: np.ndarray, wrist: np.ndarray, grip: np.ndarray, tip: np.ndarray) -> np.ndarray:
    """Tip of a stick 1.35 forearms long whose direction is clipped to within 20 degrees of the forearm's; all (2,)."""
    forearm, stick = wrist - elbow, tip - grip
    along = np.degrees(np.arctan2(forearm[1], forearm[0]))
    away = wrap_deg(np.degrees(np.arctan2(stick[1], stick[0])) - along)
    angle = np.radians(along + np.clip(away, -FOREARM_CONE_DEG, FOREARM_CONE_DEG))
    return np.asarray(grip + FOREARM_RATIO * np.hypot(*forearm) * np.array([np.cos(angle), np.sin(angle)]))


def wrap_deg(angle: float) -> float:
    """The same angle in [-180, 180)."""
    return float((angle + 180.0) % 360.0 - 180.0)


def refine_stick(
    frame: np.ndarray, grip: np.ndarray, tip: np.ndarray, torso_px: float, *, min_evidence: float, min_margin: float
) -> Refined | None:
    """The stick on the rod that is seen near it, or None where too little is, or nothing clearly else than detected.

    `frame` uint8 BGR (h, w, 3); `grip` and `tip` (2,) in pixels. Searches 15 degrees to either side and a rod's width
    of offset; the grip is projected on to the new axis, the tip is found along it within what the torso allows.
    """
    if torso_px <= 0.0:
        return None
    length = float(np.hypot(*(tip - grip))) / torso_px
    if not _SHORTEST <= length <= MAX_LENGTH:
        return None
    axis = (tip - grip) / np.hypot(*(tip - grip))
    strip = _cut_strip(frame, grip, axis, torso_px)
    contrast = _rod_contrast(strip)
    normal = np.array([-axis[1], axis[0]])

    def follow(expected: float) -> _Rod:
        angle, offset, evidence, margin = _best_line(contrast, expected)
        start = grip + offset * _ROW * torso_px * normal
        direction = np.cos(angle) * axis + np.sin(angle) * normal
        inside = _inside(frame, start, direction) / torso_px
        return _Rod(
            start, direction, angle, _find_tip(strip, contrast, angle, offset, expected, inside), evidence, margin
        )

    rod = follow(length)
    if rod.reach > _HALFWAY * length:
        # Half a rod says little of its direction: what lies behind may be the next best line, so judge the whole.
        rod = follow(rod.reach)
    if rod.evidence < min_evidence or rod.margin < min_margin or not rod.reach:
        return None
    if abs(np.degrees(rod.angle)) < _CLEAR_TURN_DEG and _CLEAR_RATIO[0] < rod.reach / length < _CLEAR_RATIO[1]:
        return None
    foot = rod.start + np.dot(grip - rod.start, rod.direction) * rod.direction
    return Refined(foot, rod.start + rod.reach * torso_px * rod.direction)


def _cut_strip(frame: np.ndarray, grip: np.ndarray, axis: np.ndarray, torso_px: float) -> np.ndarray:
    """uint8 (rows, columns, 3): columns run from the grip along `axis`, rows across it, the axis in the middle row."""
    along, across = axis * _COLUMN * torso_px, np.array([-axis[1], axis[0]]) * _ROW * torso_px
    # Pixel 0 reaches from 0 to 1, while OpenCV counts from its middle.
    matrix = np.column_stack([along, across, grip - 0.5 - _HALF_ROWS * across])
    size = (_COLUMNS, 2 * _HALF_ROWS + 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(frame, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _rod_contrast(strip: np.ndarray) -> np.ndarray:
    """float32 (rows, columns), 0..1: how much a rod centred there would differ from *both* its sides.

    Each half of the rod is held against the background next to it, and the smaller difference counts: on the edge of
    a wall or sleeve each half is like its own side, so that an edge is no rod.
    """
    rows = strip.shape[0]
    smooth = {size: cv2.blur(strip, (3, size)) for size in (1, 3)}
    best = np.zeros(strip.shape[:2], np.uint8)
    for width, half, inward in _RODS:
        outward = width // 2 + 2
        centre = slice(outward, rows - outward)
        differences = []
        for way in (-1, 1):
            inside = smooth[half][outward + way * inward : rows - outward + way * inward]
            beside = smooth[3][outward + way * outward : rows - outward + way * outward]
            differences.append(_mean_channel(cv2.absdiff(inside, beside)))
        best[centre] = cv2.max(best[centre], cv2.min(*differences))
    # As one channel, for one spread over all colours.
    spread = float(cv2.meanStdDev(strip.reshape(rows, -1))[1][0, 0])
    sure = np.clip(_CONTRAST_PER_SPREAD * spread, *_SURE_CONTRAST)
    return np.asarray(np.minimum(best / np.float32(sure), 1.0))


def _mean_channel(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.transform(image, np.full((1, 3), 1.0 / 3.0)))


_SLOPES = np.tan(np.radians(_ANGLES_DEG)) * _COLUMN / _ROW
_LINE_ROWS = np.clip(
    np.rint(_HALF_ROWS + _OFFSETS[None, :, None] + _SLOPES[:, None, None] * np.arange(_COLUMNS)).astype(np.intp),
    0,
    2 * _HALF_ROWS,
)
"""Row of each hypothesis (angle, offset) in each column."""
_LINES = np.ascontiguousarray((_LINE_ROWS * _COLUMNS + np.arange(_COLUMNS)).transpose(2, 0, 1))
"""(columns, angles, offsets): where each hypothesis crosses each column of a flattened strip of `_COLUMNS` columns."""
_DOUBT = 0.1 * (_ANGLES_DEG[:, None] / _ANGLES_DEG[-1]) ** 2 + 0.05 * (_OFFSETS / _OFFSETS[-1]) ** 2
"""Contrast by which a line must be better the farther it lies from the detected one."""


def _best_line(contrast: np.ndarray, length: float) -> tuple[float, float, float, float]:
    """Angle (radians), offset (rows), mean contrast and its margin over the typical line."""
    first = int(_HAND / _COLUMN)
    last = max(int(0.85 * length / _COLUMN), first + 8)
    scores = contrast.ravel().take(_LINES[first:last]).mean(axis=0)
    a, o = np.unravel_index(int((scores - _DOUBT).argmax()), scores.shape)
    best = float(scores[a, o])
    angle = _ANGLES_DEG[a] + _vertex(scores[:, o], int(a)) * (_ANGLES_DEG[1] - _ANGLES_DEG[0])
    offset = _OFFSETS[o] + _vertex(scores[a], int(o))
    return float(np.radians(angle)), float(offset), best, best - float(np.median(scores))


def _vertex(values: np.ndarray, peak: int) -> float:
    """Where between its neighbours the maximum of a sampled curve lies (parabola through three points), -0.5..0.5."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    before, at, after = (float(v) for v in values[peak - 1 : peak + 2])
    bend = before - 2.0 * at + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < -1e-9 else 0.0


def _find_tip(
    strip: np.ndarray, contrast: np.ndarray, angle: float, offset: float, length: float, inside: float
) -> float:
    """Grip to tip in torsos: where the evidence for a rod ends when one walks outward along the refined axis.

    Each column votes for or against; the tip is where the sum of votes is largest, so that a short shadow does not
    end the rod and a stray edge behind it does not lengthen it. 0 where the picture ends long before.
    """
    columns = np.arange(_COLUMNS)
    rows = np.clip(np.rint(_HALF_ROWS + offset + np.tan(angle) * columns * _COLUMN / _ROW), 1, 2 * _HALF_ROWS - 1)
    rows = rows.astype(np.int32)
    seen = np.max([contrast[rows + d, columns] for d in (-1, 0, 1)], axis=0)
    colour = cv2.blur(strip, (3, 3))[rows, columns].astype(np.float32)
    first, known = int(_HAND / _COLUMN), int(0.75 * length / _COLUMN)
    usual = np.median(colour[first:known], axis=0)
    spread = 15.0 + np.median(np.abs(colour[first:known] - usual))
    alike = np.exp(-0.5 * np.square((colour - usual) / (2.0 * spread)).mean(axis=1))
    level = max(float(np.median(seen[first:known])), 1e-3)
    votes = np.minimum(seen / level, 1.0) * (_TAPE + (1.0 - _TAPE) * alike) - 0.5
    reach = (columns + 0.5) * _COLUMN / np.cos(angle)
    possible = (columns >= int(0.6 * length / _COLUMN)) & (reach <= min(MAX_LENGTH, inside))
    if not possible.any():
        return 0.0
    cost = np.minimum(_TRUST * np.square(reach / length - 1.0), _MOST_TRUST)
    return float(reach[np.where(possible, np.cumsum(votes) - cost, -np.inf).argmax()])


def _inside(frame: np.ndarray, start: np.ndarray, direction: np.ndarray) -> float:
    """Pixels from a place along a direction to the middle of the picture's last pixel; 0 from outside of that."""
    size = np.array(frame.shape[1::-1])
    room = np.where(direction > 0, size - 0.5 - start, start - 0.5)
    return max(0.0, float((room / np.maximum(np.abs(direction), 1e-9)).min()))


class Correct:
    """Refines the stick of each detected frame by the configured method."""

    name: ClassVar[str] = "correct"
    settings_type: ClassVar[type[msgspec.Struct]] = CorrectSettings
    stateless: ClassVar[bool] = True

    def __init__(self, settings: CorrectSettings) -> None:
        self._settings = settings

    def open(self, context: Context) -> None:
        self._frames = context.frames

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        person, stick, method = packet.person, packet.stick, self._settings.method
        if method == "off" or person is None or stick is None or (packet.gate and not packet.gate.detect):
            return packet
        if not np.isfinite([*stick.grip, *stick.tip]).all():
            return packet
        if method == "forearm":
            _bend_to_forearm(stick, person)
        elif packet.frame is not None:
            with self._frames.read(packet.frame) as frame:
                self._follow_rod(frame, stick, person)
        return packet

    def has_work(self, packet: ArnisPacket) -> bool:
        return packet.person is not None

    def _follow_rod(self, frame: np.ndarray, stick: Stick, person: Person) -> None:
        stick.method = "kept"
        refined = refine_stick(
            frame,
            np.array(stick.grip[:2]),
            np.array(stick.tip[:2]),
            float(torso_length(person.keypoints)),
            min_evidence=self._settings.min_evidence,
            min_margin=self._settings.min_margin,
        )
        if refined is not None:
            stick.grip = (float(refined.grip[0]), float(refined.grip[1]), stick.grip[2])
            stick.tip = (float(refined.tip[0]), float(refined.tip[1]), stick.tip[2])
            stick.method = "evidence"


def _bend_to_forearm(stick: Stick, person: Person) -> None:
    elbow, wrist = (LEFT_ELBOW, LEFT_WRIST) if stick.hand == "left" else (RIGHT_ELBOW, RIGHT_WRIST)
    arm = person.keypoints[[elbow, wrist], :2].astype(np.float64)
    if not np.isfinite(arm).all() or np.allclose(arm[0], arm[1]):
        stick.method = "kept"
        return
    tip = clamp_to_forearm(arm[0], arm[1], np.array(stick.grip[:2]), np.array(stick.tip[:2]))
    stick.tip = (float(tip[0]), float(tip[1]), stick.tip[2])
    stick.method = "forearm"
