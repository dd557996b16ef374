"""Records what is shown: H.264 in Matroska, with the frames' true times, readable up to its last second if killed.

Matroska in short clusters, flushed as they come, was the only container that kept both times and nearly all frames
after a kill -9; MP4 is made from it, without encoding again, at the end.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import queue
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from glob import escape
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import av
import cv2
import msgspec
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from engine.errors import UserError
from engine.stage import Context, FrameOverrun
from stages.outputs import check_writable
from stages.packets import ArnisPacket
from stages.view import CANVAS_DEMAND, letterbox_into

log = logging.getLogger(__name__)

TIME_BASE = Fraction(1, 1000)
SUFFIXES = (".mkv", ".mp4")
BROKE_OFF = ", stopped: "
"""In the account of a recording that could not be gone on with, before the reason."""
WAITING_FRAMES = 4
"""Frames between the pipeline and the encoder."""


class RecordSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Section [record]; `config.toml` says what each means, and its unit."""

    path: str = ""
    picture: Literal["overlay", "source"] = "overlay"
    when_slow: Literal["auto", "wait", "drop"] = "auto"
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"] = "ultrafast"
    crf: Annotated[int, msgspec.Meta(ge=0, le=51)] = 23
    threads: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1


def recording_path(path: Path, stream: str, streams: Sequence[str], part: int = 0) -> Path:
    """File of one stream and one part: `out.mkv`, of several streams `out-0.mkv`, after a restart `out.1.mkv`."""
    name = f"{path.stem}-{stream}" if len(streams) > 1 else path.stem
    return path.with_name(f"{name}.{part}{path.suffix}" if part else f"{name}{path.suffix}")


def raw_path(path: Path) -> Path:
    """What is written while recording: the file itself, or for MP4 a Matroska file beside it."""
    return path if path.suffix.lower() == ".mkv" else path.with_suffix(".recording.mkv")


def remux(source: Path, target: Path, goes_on: Callable[[], bool]) -> None:
    """Copy the video of `source` into an MP4 file, without encoding it again; `target` appears when it is complete.

    Raises InterruptedError when it may not go on.
    """
    source, part = source.absolute(), target.with_name(f".{target.name}.part").absolute()
    options = {"movflags": "faststart"}
    try:
        with av.open(str(source)) as reader, av.open(str(part), "w", "mp4", options=options) as writer:
            stream = writer.add_stream_from_template(reader.streams.video[0])
            for packet in reader.demux(video=0):
                if not goes_on():
                    raise InterruptedError(errno.EINTR, "it was interrupted")
                if packet.pts is not None:
                    packet.stream = stream
                    packet.dts = packet.pts  # FFmpeg leaves them out in some short files; zerolatency reorders nothing
                    writer.mux(packet)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)  # the disk may be full


class VideoWriter:
    """Encodes pictures to one Matroska file; each picture carries its own time."""

    def __init__(self, path: Path, settings: RecordSettings, width: int, height: int) -> None:
        # H.264 in 4:2:0 needs even sides. FFmpeg would take what stands before a colon in a name for a protocol.
        self.width, self.height = width + width % 2, height + height % 2
        self._container = av.open(
            str(path.absolute()), "w", format="matroska", options={"flush_packets": "1", "cluster_time_limit": "1000"}
        )
        self._stream: Any = self._container.add_stream("libx264", options={
            "preset": settings.preset, "crf": str(settings.crf), "tune": "zerolatency", "g": "60",
        })  # fmt: skip
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base = TIME_BASE
        # What OpenCV's conversion makes; unsaid, players would guess BT.709 for large pictures.
        context.colorspace, context.color_range = Colorspace.SMPTE170M, ColorRange.MPEG
        context.thread_count = settings.threads
        self._last_pts = -1

    def write(self, picture: np.ndarray, pts_s: float) -> None:
        """Append uint8 BGR (height, width, 3), shown at `pts_s`; another size is fitted into that of the first."""
        if picture.shape[:2] != (self.height, self.width):
            fitted = np.zeros((self.height, self.width, 3), np.uint8)
            letterbox_into(fitted, picture)
            picture = fitted
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
        # Times must grow, also when a source that was lost comes back with a clock of its own.
        self._last_pts = max(round(pts_s / TIME_BASE), self._last_pts + 1)
        frame.pts, frame.time_base = self._last_pts, TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._last_pts >= 0:
            self._container.mux(self._stream.encode(None))
        self._container.close()


class Recorder:
    """Writes one stream's file in a thread of its own: a slow disk costs frames of the recording, nothing else."""

    def __init__(self, path: Path, settings: RecordSettings, *, waits: bool) -> None:
        """`waits`: rather hold up the pipeline than leave a frame out."""
        self.path = path
        self.written = 0
        self.dropped = 0
        self.error: Exception | None = None
        self._settings = settings
        self._waits = waits
        self._queue: queue.Queue[tuple[np.ndarray, float] | None] = queue.Queue(WAITING_FRAMES)
        self._thread = threading.Thread(target=self._run, name=f"record {path.name}", daemon=True)
        self._thread.start()

    def put(self, picture: np.ndarray, pts_s: float) -> None:
        """Hand over uint8 BGR (height, width, 3), which must not change any more."""
        try:
            self._queue.put((picture, pts_s), block=self._waits)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is waiting and finish the file."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        writer: VideoWriter | None = None
        while (item := self._queue.get()) is not None:
            if self.error is not None:
                self.dropped += 1
                continue
            picture, pts_s = item
            try:
                if writer is None:
                    writer = VideoWriter(self.path, self._settings, picture.shape[1], picture.shape[0])
                writer.write(picture, pts_s)
                self.written += 1
            except Exception as error:  # whatever it is: a dead thread would make the pipeline wait for ever
                # The recognition goes on without the recording; the account at the end says what is missing.
                self.error = error
                log.error("recording to %s stopped: %s; later frames are not recorded", self.path, error)
        if writer is not None:
            self._finish(writer)

    def _finish(self, writer: VideoWriter) -> None:
        try:
            writer.close()
        except Exception as error:
            self.error = self.error or error
            log.error("recording %s could not be finished: %s", self.path, error)


class Record:
    """Records every stream that has pictures; what a dead worker recorded is kept, its successor begins a new part."""

    name: ClassVar[str] = "record"
    settings_type: ClassVar[type[msgspec.Struct]] = RecordSettings

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._path = Path(settings.path)
        self._recorders: dict[str, Recorder] = {}

    def open(self, context: Context) -> None:
        """Raises UserError when the file cannot be written."""
        self._context = context
        if self._settings.path:
            for stream in context.streams:
                check_recording(recording_path(self._path, stream, context.streams, context.restarts))
            if self._settings.picture == "overlay":
                CANVAS_DEMAND.add(self.name)

    def process(self, packet: ArnisPacket) -> ArnisPacket:
        if self._settings.path and packet.frame is not None:
            picture = self._picture(packet)
            if picture is not None:
                self._recorder(packet).put(picture, packet.pts)
            else:
                self._recorder(packet).dropped += 1
        return packet

    def close(self) -> None:
        CANVAS_DEMAND.discard(self.name)
        for recorder in self._recorders.values():
            recorder.close()
        program = multiprocessing.parent_process()
        if self._recorders and program is not None and not program.is_alive():  # which would have done so at its end
            finish_recordings(self._settings, self._context.streams, self._context.restarts)

    def describe(self) -> dict[str, str]:
        """What was recorded, for the account at the end."""
        kept = {str(path): "kept from before a restart" for path in self._earlier_parts()}
        return kept | {
            str(self._recording_path(stream)): f"{recorder.written} frames, {recorder.dropped} left out"
            + (f"{BROKE_OFF}{recorder.error}" if recorder.error else "")
            for stream, recorder in self._recorders.items()
        }

    def _recording_path(self, stream: str) -> Path:
        return recording_path(self._path, stream, self._context.streams, self._context.restarts)

    def _earlier_parts(self) -> list[Path]:
        """What dead predecessors recorded, by the names that it has in the end."""
        if not self._settings.path:
            return []
        parts = _parts(self._path, self._context.streams, self._context.restarts)
        return [path for path in parts if any(map(_is_recorded, {path, raw_path(path)}))]

    def _recorder(self, packet: ArnisPacket) -> Recorder:
        stream, when_slow = packet.stream, self._settings.when_slow
        if stream not in self._recorders:
            waits = packet.expires_at_ns is None if when_slow == "auto" else when_slow == "wait"
            self._recorders[stream] = Recorder(raw_path(self._recording_path(stream)), self._settings, waits=waits)
        return self._recorders[stream]

    def _picture(self, packet: ArnisPacket) -> np.ndarray | None:
        if self._settings.picture == "overlay":
            return packet.canvas  # none where the pixels were gone when it was to be drawn
        assert packet.frame is not None
        try:
            with self._context.frames.read(packet.frame) as image:
                return image.copy()
        except FrameOverrun:
            return None


def _is_recorded(file: Path) -> bool:
    """Whether it holds pictures: in its first second a recording is a mere head."""
    if not file.is_file() or not file.stat().st_size:
        return False
    try:
        av.open(str(file.absolute())).close()
    except (av.FFmpegError, OSError) as error:
        return not isinstance(error, EOFError)  # what else is wrong tells who makes something of it
    return True


_PARTS = frozenset(range(1, 1000))
"""Numbers of parts; `out.2024.mp4` is somebody's own recording."""


def files_of(path: Path, streams: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Into which files a run records, and which others it may make: an MP4, and parts, as earlier runs left."""
    first = [recording_path(path, stream, streams) for stream in streams]
    later = [file for file in first if raw_path(file) != file]
    for stream, file in zip(streams, first, strict=True):
        beside = [found.name.removeprefix(f"{file.stem}.") for found in file.parent.glob(f"{escape(file.stem)}.*")]
        numbers = {name.partition(".")[0] for name in beside}
        for number in {int(number) for number in numbers if number.isdecimal()} & _PARTS:
            part = recording_path(path, stream, streams, number)
            later += {part, raw_path(part)}
    return [raw_path(file) for file in first], later


def finish_recordings(
    settings: RecordSettings, streams: Sequence[str], restarts: int, goes_on: Callable[[], bool] = lambda: True
) -> dict[str, str]:
    """Turn what was recorded for MP4 files into them; again harmless where that has happened, or nothing is there.

    `goes_on`: False when nobody wants to wait for them any more.
    Returns why not, by the file in which such a recording is left.
    """
    failed = {}
    for path in _parts(Path(settings.path), streams, restarts + 1):
        raw = raw_path(path)
        if raw.is_file() and not _is_recorded(raw):
            raw.resolve().unlink()  # of a link, what it leads to
        if raw == path or not raw.is_file():
            continue
        try:
            remux(raw, path, goes_on)
        except (av.FFmpegError, OSError) as error:
            failed[str(raw)] = f"cannot make {path}: {error.strerror}; the recording is in {raw}"
            continue
        raw.unlink()
    return failed


def _parts(path: Path, streams: Sequence[str], count: int) -> list[Path]:
    """The first `count` parts of every stream."""
    return [recording_path(path, stream, streams, part) for stream in streams for part in range(count)]


def check_recording(path: Path) -> None:
    """Raise UserError unless a recording can be written under this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"record.path: {path} must end in .mkv or .mp4")
    check_writable(path, "record.path")
    check_writable(raw_path(path), "record.path")
