"""Draws what was recognised onto the picture, and shows it: in a window, or as one line in the terminal.

`draw_overlay` is the pure part. The stage draws only when somebody looks: a window is open, or a later stage of the
same worker (a recording, a preview that somebody subscribed to) has asked for the canvas.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import cv2
import msgspec
import numpy as np

from engine.clock import NS_PER_MS, now_ns
from engine.stage import Context, FrameOverrun
from stages.classes import either_text
from stages.classify import classes_of
from stages.gate import MOVING
from stages.packets import ArnisPacket, Cue, Person, Stick
from stages.skeleton import DRAWN_EDGES, KEYPOINT_NAMES
from stages.view import CANVAS_DEMAND, LiveLine, Rate, Window

# BGR. Chosen to differ in brightness as well as in hue, for colour-blind viewers.
WHITE = (255, 255, 255)
GREY = (215, 215, 215)
GREEN = (110, 230, 110)
AMBER = (60, 190, 255)
RED = (80, 80, 255)
LEFT_SIDE = (255, 200, 70)
RIGHT_SIDE = (80, 160, 255)
STICK = (60, 240, 250)
OUTLINE = (20, 20, 20)


class OverlaySettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Section [overlay]; `config.toml` says what each means, and its unit."""

    view: Literal["auto", "window", "none"] = "auto"
    mirror: Literal["auto", "on", "off"] = "auto"
    live_line: Literal["stdout", "stderr", "none"] = "stdout"
    min_confidence: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.3


def draw_overlay(
    image: np.ndarray,
    packet: ArnisPacket,
    *,
    fps: float | None = None,
    age_ms: float | None = None,
    neutral: str = "neutral",
    mirrored: bool = False,
    min_confidence: float = 0.3,
) -> np.ndarray:
    """The picture with skeleton, stick, pose and cues drawn into a copy.

    Args:
        image: uint8 BGR (height, width, 3); not changed.
        packet: what was recognised, in pixels of `image`.
        neutral: name of the class that is shown without emphasis.
        mirrored: flip the picture left to right; the text stays readable.

    Returns:
        uint8 BGR (height, width, 3).
    """
    canvas = image.copy()
    if packet.person is not None:
        draw_person(canvas, packet.person, min_confidence)
        for cue in packet.feedback:
            _mark(canvas, packet, cue)
    if packet.stick is not None:
        draw_stick(canvas, packet.stick, min_confidence)
    if mirrored:
        canvas = cv2.flip(canvas, 1)
    em = text_size_px(canvas)
    _draw_pose(canvas, packet, neutral, em)
    _draw_cues(canvas, packet.feedback, em)
    figures = figures_text(fps, age_ms)
    if figures:
        size = 0.5 * em  # not for who stands far away
        _draw_text(canvas, figures, (canvas.shape[1] - _text_box(figures, size)[0] - 0.3 * em, 0.3 * em), size, WHITE)
    return canvas


def draw_person(canvas: np.ndarray, person: Person, min_confidence: float) -> None:
    """Bounding box, limbs and joints, into `canvas`; performer's left and right differ in colour."""
    thick = _line_px(canvas)
    x0, y0, x1, y1 = (round(v) for v in person.box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), GREY, thick, cv2.LINE_AA)
    points = person.keypoints
    seen = (points[:, 2] >= min_confidence) & np.isfinite(points[:, :2]).all(axis=1)
    for a, b in DRAWN_EDGES:
        if seen[a] and seen[b]:
            cv2.line(canvas, pixel(points[a]), pixel(points[b]), _side_colour(a, b), thick, cv2.LINE_AA)
    for node in np.flatnonzero(seen):
        cv2.circle(canvas, pixel(points[node]), thick + 1, OUTLINE, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(canvas, pixel(points[node]), thick, _side_colour(int(node)), cv2.FILLED, cv2.LINE_AA)


def draw_stick(canvas: np.ndarray, stick: Stick, min_confidence: float) -> None:
    """The stick as it was detected, thin, and as it was corrected, thick, with a ring at the tip."""
    thick = _line_px(canvas)
    if not _end_seen(stick.grip, min_confidence):
        return
    grip = pixel(stick.grip)
    if _end_seen(stick.tip, min_confidence):
        if stick.detected_tip is not None and np.isfinite(stick.detected_tip).all():
            cv2.line(canvas, grip, pixel(stick.detected_tip), WHITE, max(1, thick // 2), cv2.LINE_AA)
        tip = pixel(stick.tip)
        cv2.line(canvas, grip, tip, OUTLINE, 2 * thick + 2, cv2.LINE_AA)
        cv2.line(canvas, grip, tip, STICK, 2 * thick, cv2.LINE_AA)
        cv2.circle(canvas, tip, 3 * thick, STICK, thick, cv2.LINE_AA)
    cv2.circle(canvas, grip, 2 * thick, OUTLINE, cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, grip, 2 * thick - 1, STICK, cv2.FILLED, cv2.LINE_AA)


_REASONS = {"not_upright": "not upright: stand straight, or turn the camera"}
"""Where the words of the reason don't say what to do."""


def pose_text(packet: ArnisPacket) -> str:
    """What is said of the pose, in the window and in the terminal."""
    if packet.status == "source_lost":
        return f"no picture: {packet.reason}" if packet.reason else "no picture"
    if packet.status == "dropped":
        return f"dropped: {packet.reason}" if packet.reason else "dropped"
    if packet.status == "no_person":
        return "no person"
    pose = packet.pose
    if pose is None:
        reason = packet.reason
        return f"unsure ({_REASONS.get(reason, reason.replace('_', ' '))})" if reason else "unsure"
    if not pose.accepted and pose.alternative is None:
        return "unsure"  # a guess that was refused is nobody's business
    left = " (left-handed)" if packet.stick is not None and packet.stick.hand == "left" else ""
    if pose.alternative is not None:
        return f"{either_text(pose.label, pose.alternative)}{left}"
    return f"{pose.label.replace('_', ' ')}{left} {100 * pose.confidence:.0f} %"


def is_remembered(packet: ArnisPacket) -> bool:
    """Whether an older pose stands in and should look like it. Between two looks at a movement that would flicker."""
    return packet.status == "held" and not (packet.gate and packet.gate.reason == MOVING)


def figures_text(fps: float | None, age_ms: float | None) -> str:
    """Frames per second and the age of what is shown."""
    parts = [f"{fps:.1f} FPS" if fps is not None else "", f"age {age_ms:.0f} ms" if age_ms is not None else ""]
    return "  ".join(part for part in parts if part)


def text_size_px(canvas: np.ndarray) -> float:
    """Height of a capital letter of the main text: readable from three metres, where who is filmed stands, on a laptop
    of 14 inches (7 mm, 9 arc minutes); larger, the longest cue would not fit into a line."""
    return max(14.0, 0.05 * float(min(canvas.shape[:2])))


class Overlay:
    """Shows each frame to who wants to see it; `packet.canvas` is the drawn frame, unmirrored, if one was asked for."""

    name: ClassVar[str] = "overlay"
    settings_type: ClassVar[type[msgspec.Struct]] = OverlaySettings
    sees_ended: ClassVar[bool] = True

    def __init__(self, settings: OverlaySettings) -> None:
        self._settings = settings
        self._window: Window | None = None
        self._line: LiveLine | None = None
        self._rates: dict[str, Rate] = {}
        self._neutral = "neutral"

    def open(self, context: Context) -> None:
        """Raises UserError when a window is wanted and there is no display."""
        self._frames = context.frames
        self._neutral = classes_of(context.sections).neutral
        if self._settings.view == "window":
            self._window = Window(context.streams, context.request_stop)
        elif self._settings.live_line != "none":
            self._line = LiveLine(self._settings.live_line, with_stream=len(context.streams) > 1)

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        now = now_ns()
        if packet.status == "end":
            return packet
        if packet.ended:
            if packet.status == "source_lost":
                self._tell(packet, None, None)
            return packet
        fps = self._rates.setdefault(packet.stream, Rate()).tick(now)
        age_ms = (now - packet.captured_at_ns) / NS_PER_MS
        self._draw(packet, fps, age_ms)
        self._tell(packet, fps, age_ms)
        return packet

    def idle(self, now_ns: int) -> None:
        if self._window is not None:
            self._window.handle_events()

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
        if self._line is not None:
            self._line.close()

    def _draw(self, packet: ArnisPacket, fps: float | None, age_ms: float) -> None:
        if packet.frame is None or not (CANVAS_DEMAND or self._window is not None):
            return
        show_mirrored = self._window is not None and self._settings.mirror == "on"

        def draw(mirrored: bool) -> np.ndarray:
            return draw_overlay(
                image, packet, fps=fps, age_ms=age_ms, neutral=self._neutral, mirrored=mirrored,
                min_confidence=self._settings.min_confidence,
            )  # fmt: skip

        seen: np.ndarray | None = None
        canvas: np.ndarray | None = None
        try:
            with self._frames.read(packet.frame) as image:
                if CANVAS_DEMAND or not show_mirrored:
                    canvas = draw(mirrored=False)
                seen = draw(mirrored=True) if show_mirrored else canvas
        except FrameOverrun:
            return  # Only the picture is gone; the result was made from sound pixels and goes on.
        packet.canvas = canvas
        if self._window is not None and seen is not None:
            self._window.show(packet.stream, seen)

    def _tell(self, packet: ArnisPacket, fps: float | None, age_ms: float | None) -> None:
        if self._line is not None:
            cue = packet.feedback[0].sentence if packet.feedback else ""
            self._line.tell(packet.stream, pose_text(packet), cue, figures_text(fps, age_ms))
        elif self._window is not None and packet.status == "source_lost":
            self._window.say(packet.stream, pose_text(packet))


def _draw_pose(canvas: np.ndarray, packet: ArnisPacket, neutral: str, em: float) -> None:
    """Name and confidence at the top left, accepted green, what was refused or is one of two amber, all else grey; with
    a bar where it is accepted."""
    pose = packet.pose
    is_refused = pose is not None and not pose.accepted
    colour = AMBER if is_refused else GREY if pose is None or pose.label == neutral else GREEN
    left, top = round(0.3 * em), round(1.4 * em)
    width = 0
    lines = _lines(canvas, pose_text(packet), em)
    size = min(_fitting(canvas, line, em) for line in lines)
    for line in lines:
        width, height = _draw_text(canvas, line, (left, top), size, colour)
        top += height
    if pose is not None and not is_refused:
        upper, right = top + 2, left + max(1, round(width * pose.confidence))
        lower = upper + round(0.4 * em)
        cv2.rectangle(canvas, (left, upper), (right, lower), colour, cv2.FILLED)
        if is_remembered(packet):  # Shown hollow: it is remembered, not seen.
            edge = _line_px(canvas)
            cv2.rectangle(canvas, (left + edge, upper + edge), (right - edge, lower - edge), OUTLINE, cv2.FILLED)


def _lines(canvas: np.ndarray, text: str, size: float) -> list[str]:
    """A text of two poses in two lines where it is too wide for one of this size: smaller, it is read from less far."""
    first, _, second = text.partition(" or ")
    return [f"{first} or", second] if second and _fitting(canvas, text, size) < size else [text]


def _draw_cues(canvas: np.ndarray, cues: list[Cue], em: float) -> None:
    bottom = canvas.shape[0] - round(0.3 * em)
    size = min((_fitting(canvas, cue.sentence, em) for cue in cues), default=0.0)  # the same for all
    for cue in reversed(cues):
        bottom -= _text_box(cue.sentence, size)[1] + round(0.2 * em)
        _draw_text(canvas, cue.sentence, (0.3 * em, bottom), size, AMBER)


def _mark(canvas: np.ndarray, packet: ArnisPacket, cue: Cue) -> None:
    """A ring around the joint, or the stick's end, that the cue speaks of, if it speaks of one."""
    point = _point_of(packet, cue.quantity)
    if point is not None and np.isfinite(point[:2]).all():
        thick = _line_px(canvas)
        # White on both sides: who sees no red sees a ring too, and not the stick's.
        cv2.circle(canvas, pixel(point), 6 * thick, WHITE, 3 * thick, cv2.LINE_AA)
        cv2.circle(canvas, pixel(point), 6 * thick, RED, thick, cv2.LINE_AA)


def _point_of(packet: ArnisPacket, quantity: str) -> np.ndarray | tuple[float, float, float] | None:
    """The joint or the stick's end that the cue about a quantity names."""
    if quantity in ("stick_deg", "tip_height", "wrist_deg"):
        ends = packet.stick
        return None if ends is None else ends.grip if quantity == "wrist_deg" else ends.tip
    # What the shoulder's angle asks for is told of the elbow.
    joint = quantity.rsplit("_", 1)[0].replace("hand", "wrist").replace("shoulder", "elbow")
    known = packet.person is not None and joint in KEYPOINT_NAMES[: len(packet.person.keypoints)]
    return packet.person.keypoints[KEYPOINT_NAMES.index(joint)] if packet.person is not None and known else None


_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_CAPITAL_PX = 21.0  # Height of a capital of this font at scale 1.


def _draw_text(
    canvas: np.ndarray, text: str, corner: tuple[float, float], size: float, colour: tuple[int, int, int]
) -> tuple[int, int]:
    """Text on a darkened box at `corner` (top left), shrunk when too wide; returns the box's width and height."""
    text = _printable(text)
    size = _fitting(canvas, text, size)
    width, height = _text_box(text, size)
    x, y = max(0, round(corner[0])), max(0, round(corner[1]))
    area = canvas[y : y + height, x : x + width]
    if not area.size:  # a picture too small for any word
        return 0, 0
    area[:] = cv2.convertScaleAbs(area, alpha=0.2)
    thick = max(1, round(size / 9))
    origin = (x + round(0.45 * size), y + height - round(0.45 * size))
    cv2.putText(canvas, text, origin, _FONT, size / _FONT_CAPITAL_PX, colour, thick, cv2.LINE_AA)
    return width, height


def _text_width(text: str, size: float) -> int:
    (width, _), _ = cv2.getTextSize(_printable(text), _FONT, size / _FONT_CAPITAL_PX, max(1, round(size / 9)))
    return int(width)


def _text_box(text: str, size: float) -> tuple[int, int]:
    return _text_width(text, size) + round(0.9 * size), round(1.9 * size)


def _fitting(canvas: np.ndarray, text: str, size: float) -> float:
    # Glyphs come in whole pixels, so that widths are not quite in proportion to the size.
    room = 0.97 * canvas.shape[1] - size
    return size * min(1.0, float(room / max(1, _text_box(text, size)[0])))


def _printable(text: str) -> str:
    """The built-in font knows ASCII only."""
    return text.replace("°", " deg").encode("ascii", "replace").decode()


def _line_px(canvas: np.ndarray) -> int:
    return max(2, round(float(min(canvas.shape[:2])) / 280))


def pixel(point: np.ndarray | tuple[float, ...]) -> tuple[int, int]:
    """Whole pixels of a point (x, y, ...)."""
    return round(float(point[0])), round(float(point[1]))


def _end_seen(end: tuple[float, float, float], min_confidence: float) -> bool:
    return end[2] >= min_confidence and bool(np.isfinite(end).all())


def _side_colour(*nodes: int) -> tuple[int, int, int]:
    sides = {KEYPOINT_NAMES[node].split("_")[0] for node in nodes}
    if sides == {"left"}:
        return LEFT_SIDE
    return RIGHT_SIDE if sides == {"right"} else WHITE
