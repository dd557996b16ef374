"""Pictures with overlay for who subscribes to `frame.<stream>`: JPEG, on a socket of their own, only on request.

The JPEG's comment holds stream, sequence and time as JSON, so that the message is a picture for any reader.
"""

from __future__ import annotations

import logging
import struct
from typing import ClassVar

import cv2
import msgspec
import numpy as np

from engine.clock import NS_PER_S, now_ns
from engine.stage import Context
from stages.packets import ArnisPacket
from stages.publisher import Publisher, PublishSettings, frames_url
from stages.view import CANVAS_DEMAND

log = logging.getLogger(__name__)

QUEUE = 2
"""Pictures that wait for a slow subscriber."""


class FrameComment(msgspec.Struct, kw_only=True, frozen=True):
    """What the comment of a published JPEG says."""

    stream: str
    sequence: int
    """Counts the pictures of this topic."""
    frame: int
    """`sequence` of the result that it shows."""
    captured_at_ns: int


class Preview:
    """Publishes the drawn frames of the streams that somebody subscribed to."""

    name: ClassVar[str] = "publish"
    settings_type: ClassVar[type[msgspec.Struct]] = PublishSettings

    def __init__(self, settings: PublishSettings) -> None:
        self._settings = settings
        self._publisher: Publisher | None = None
        self._due_ns: dict[str, int] = {}

    def open(self, context: Context) -> None:
        """Raises UserError when the socket cannot be bound, or may not be without keys."""
        self._streams = context.streams
        url = frames_url(self._settings)
        if url:
            restarted = context.restarts > 0
            self._publisher = Publisher(url, "publish.frames_url", self._settings, queue=QUEUE, restarted=restarted)
            log.info("pictures are published at %s", url)

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        if self._publisher is not None:
            self._look_for_subscribers(self._publisher)
            if packet.canvas is not None and self._due(self._publisher, packet.stream):
                self._send(self._publisher, packet, packet.canvas)
        return packet

    def idle(self, now_ns: int) -> None:
        if self._publisher is not None:
            self._look_for_subscribers(self._publisher)

    def close(self) -> None:
        CANVAS_DEMAND.discard("preview")
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _look_for_subscribers(self, publisher: Publisher) -> None:
        publisher.new_subscriptions()
        if any(publisher.wanted(f"frame.{stream}") for stream in self._streams):
            CANVAS_DEMAND.add("preview")
        else:
            CANVAS_DEMAND.discard("preview")

    def _due(self, publisher: Publisher, stream: str) -> bool:
        now, period = now_ns(), self._period_ns
        due = self._due_ns.get(stream, now)
        if not publisher.wanted(f"frame.{stream}") or now < due:
            return False
        # From when it was due, not from now, or waiting for the camera's next frame would add up.
        self._due_ns[stream] = (due if now - due < period else now) + period
        return True

    @property
    def _period_ns(self) -> int:
        return round(NS_PER_S / self._settings.frames_fps)

    def _send(self, publisher: Publisher, packet: ArnisPacket, canvas: np.ndarray) -> None:
        topic = f"frame.{packet.stream}"
        _, jpeg = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, self._settings.jpeg_quality])
        comment = FrameComment(
            stream=packet.stream,
            sequence=publisher.next_sequence(topic),
            frame=packet.sequence,
            captured_at_ns=packet.captured_at_ns,
        )
        publisher.send(topic, with_comment(jpeg.tobytes(), msgspec.json.encode(comment)))


def with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """The JPEG with a comment segment right behind its start marker (ITU T.81, B.2.4.5); at most 65,533 bytes."""
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]
