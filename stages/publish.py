"""Passes results on: as lines of a file, and on a socket that others subscribe to.

Both stages stand before the drawing ones, so that nobody waits for a picture; both see packets that have ended, so
that every frame is accounted for.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import msgspec

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from engine.stage import Context
from stages.classify import classes_of
from stages.outputs import check_writable, open_lines, takes_more
from stages.packets import ArnisPacket
from stages.publisher import Publisher, PublishSettings, frames_url, results_url
from stages.result import FeedbackMessage, Hello, cue_result, result_of
from stages.skeleton import DRAWN_EDGES, KEYPOINT_NAMES, STICK_EDGE
from stages.tally import PoseTally

log = logging.getLogger(__name__)

TAIL_BYTES = 4 * 1024 * 1024
"""How much of a results file a restarted worker reads: what may come twice is among the last lines."""


class ResultsSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Section [results]; `config.toml` says what each means, and its unit."""

    path: str = ""
    report: str = ""


class Results:
    """Writes one line of JSON for each packet; goes on in a file that has some, as a restarted worker does."""

    name: ClassVar[str] = "results"
    settings_type: ClassVar[type[msgspec.Struct]] = ResultsSettings
    sees_ended: ClassVar[bool] = True

    def __init__(self, settings: ResultsSettings) -> None:
        self._path = settings.path
        self._file = Path(settings.path)
        self._out: BinaryIO | None = None
        self._last: dict[str, int] = {}
        self._resumes = False
        self._unread = 0
        self._tally = PoseTally()
        self._encoder = msgspec.json.Encoder()

    def open(self, context: Context) -> None:
        """Raises UserError when the file cannot be written."""
        self._request_stop, self._alive, self._resumes = context.request_stop, context.alive, context.resumes
        if self._path == "-":
            self._out = sys.stdout.buffer
        elif self._path:
            check_writable(self._file, "results.path")
            if self._file.is_file():
                self._last = mend_lines(self._file)
            self._out = open_lines(self._file, "results.path")

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        _mark_ready(packet)
        self._tally.count(packet)
        if self._out is None or packet.sequence <= self._last.get(packet.stream, -1):
            return packet
        while not takes_more(self._out):
            if not self._alive():
                self._unread += 1
                return packet
            takes_more(self._out, wait_s=0.2)  # no longer: the end is to be heard while there is time to close
        try:
            left = self._encoder.encode(result_of(packet)) + b"\n"
            while left:  # a disk that is nearly full takes a part
                left = left[self._out.write(left) :]
            if self._path == "-":
                self._out.flush()
        except BrokenPipeError:
            # The reader (`| head`) has gone, and a run for nobody has no purpose.
            if self._path == "-":
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, sys.stdout.fileno())
                os.close(nowhere)
            else:
                self._out.close()
            self._out = None
            self._request_stop()
        except OSError as error:
            where = self._path if self._path != "-" else "the standard output"
            if self._path != "-" and self._file.is_file():
                mend_lines(self._file)
            raise UserError(f"results.path: cannot write to {where} any more: {error.strerror}") from error
        return packet

    def close(self) -> None:
        if self._unread:
            log.warning("the last %d results were not written, as nobody read them before the end", self._unread)
            self._unread = 0
        if self._out is not None and self._path != "-":
            self._out.close()
        self._out = None

    def describe(self) -> dict[str, str]:
        """For how long each pose was held, or in how many pictures it is, since this worker was started."""
        told = self._tally.told()
        return told | {"all since the last restart": ""} if told and self._resumes else told


class Publish:
    """Sends results, cues and health to whoever has subscribed; `hello` and health at once to who comes late."""

    name: ClassVar[str] = "publish"
    settings_type: ClassVar[type[msgspec.Struct]] = PublishSettings
    sees_ended: ClassVar[bool] = True

    def __init__(self, settings: PublishSettings) -> None:
        self._settings = settings
        self._publisher: Publisher | None = None
        self._encode: Callable[[Any], bytes] = (
            msgspec.json.Encoder() if settings.format == "json" else msgspec.msgpack.Encoder()
        ).encode
        self._cues: dict[str, tuple[str | None, list[str]]] = {}
        self._health_at_ns = 0

    def open(self, context: Context) -> None:
        """Raises UserError when the socket cannot be bound, or may not be without keys."""
        self._context = context
        self._classes = list(classes_of(context.sections).classes)
        url = results_url(self._settings)
        if url:
            queue, restarted = self._settings.queue, context.restarts > 0
            self._publisher = Publisher(url, "publish.url", self._settings, queue=queue, restarted=restarted)
            log.info("results are published at %s", url)

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        _mark_ready(packet)
        if self._publisher is not None:
            self._serve(self._publisher, now_ns())
            if self._publisher.wanted(f"result.{packet.stream}"):
                self._publisher.send(f"result.{packet.stream}", self._encode(result_of(packet)))
            self._send_cues(self._publisher, packet)
        return packet

    def idle(self, now_ns: int) -> None:
        if self._publisher is not None:
            self._serve(self._publisher, now_ns)

    def close(self) -> None:
        if self._publisher is not None:
            self._send_health(self._publisher)
            self._publisher.close()
            self._publisher = None

    def _serve(self, publisher: Publisher, now: int) -> None:
        """Greet new subscribers; send health each second."""
        fresh = publisher.new_subscriptions()
        if any(b"hello\0".startswith(prefix) for prefix in fresh):
            self._send_hello(publisher)
        newcomer = any(b"health\0".startswith(prefix) for prefix in fresh)
        if (newcomer or now - self._health_at_ns >= NS_PER_S) and self._send_health(publisher):
            self._health_at_ns = now

    def _send_hello(self, publisher: Publisher) -> None:
        hello = Hello(
            sequence=publisher.next_sequence("hello"),
            version=program_version(),
            streams=self._context.streams,
            frames=frames_url(self._settings) or None,
            classes=self._classes,
            keypoints=list(KEYPOINT_NAMES),
            edges=[*DRAWN_EDGES, STICK_EDGE],
        )
        publisher.send("hello", self._encode(hello))

    def _send_health(self, publisher: Publisher) -> bool:
        """False while there is nothing to tell, as other workers still load; who asked gets the first record."""
        record = self._context.health()
        if not record:
            return False
        publisher.send("health", self._encode({"sequence": publisher.next_sequence("health"), **record}))
        return True

    def _send_cues(self, publisher: Publisher, packet: ArnisPacket) -> None:
        sentences = [] if packet.ended else [cue.sentence for cue in packet.feedback]
        label = packet.pose.label if packet.pose and sentences else None
        # What a predecessor said last nobody knows: it may have to be taken back.
        before = self._cues.get(packet.stream, None if self._context.resumes else (None, []))
        if packet.status == "dropped" or (label, sentences) == before:
            return
        self._cues[packet.stream] = label, sentences
        topic = f"feedback.{packet.stream}"
        message = FeedbackMessage(
            stream=packet.stream,
            sequence=publisher.next_sequence(topic),
            frame=packet.sequence,
            pts=round(packet.pts, 6),
            label=label,
            cues=[cue_result(cue) for cue in packet.feedback] if sentences else [],
        )
        publisher.send(topic, self._encode(message))


def mend_lines(path: Path) -> dict[str, int]:
    """Last sequence of each stream at the end of a results file, after cutting off a half-written last line."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        file.truncate(size - len(tail) + whole)
    lines = tail[:whole].splitlines()[0 if size <= TAIL_BYTES else 1 :]
    # Lines of a stream are in order, so that the last one wins.
    return {line.stream: line.sequence for line in (msgspec.json.decode(text, type=_Line) for text in lines)}


def program_version() -> str:
    """Version of the installed package; `0` in a bare checkout."""
    try:
        return version("arnis-stream")
    except PackageNotFoundError:
        return "0"


class _Line(msgspec.Struct):
    stream: str
    sequence: int


def _mark_ready(packet: ArnisPacket) -> None:
    if packet.ready_at_ns is None:
        packet.ready_at_ns = now_ns()
