"""Video files and network streams, through PyAV: true timestamps, upright pictures."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from engine.stage import Captured, SourceInfo
from stages.sources import Allocate, CaptureSettings, redact_url
from stages.sources.live import SMALLEST_STEP_S, FeedLost

VIDEO_FILES = (".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm", ".ts", ".m2ts", ".mpg")
"""How names of video files end: what is behind a web address that ends so is a file, not a live stream."""

NO_VIDEO_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
"""Demuxers that make a video of any text file."""

UNTIMED_FORMATS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
"""Formats without time stamps, as cheap cameras send them: FFmpeg makes up 25 pictures a second."""

COMPLETE = 0.97
"""A file that ends before this share of its duration was cut off."""

log = logging.getLogger(__name__)


class Decoder:
    """An open video: gives its frames and writes them upright as BGR."""

    def __init__(self, location: str, label: str, options: dict[str, str], timeout_s: float, threads: int) -> None:
        """Raises UserError when `location` cannot be opened or holds no video."""
        started_ns = now_ns()
        try:
            self._container = av.open(location, options=options, timeout=timeout_s)
        except av.FFmpegError as error:
            # RTSP reports a timeout as damaged data.
            late = now_ns() - started_ns >= timeout_s * NS_PER_S
            reason = "it does not answer in time" if late else _reason(error)
            raise UserError(f"{label} cannot be opened: {reason}") from None
        streams = self._container.streams.video
        if not streams or self._container.format.name in NO_VIDEO_FORMATS:
            self._container.close()
            raise UserError(f"{label} holds no video; give a video file, a folder of pictures, a camera or a URL")
        self._untimed = self._container.format.name in UNTIMED_FORMATS
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = threads
        self._packets: Iterator[Any] = self._container.demux(self._stream)
        self._ready: deque[av.VideoFrame] = deque()
        self._reformatter = VideoReformatter()
        self._first_time: float | None = None
        self._last_pts = -SMALLEST_STEP_S
        self.frames = 0
        """Frames given so far."""
        self.until_s = 0.0
        """When the frame that was given last ends, by the file's own time."""
        self.damaged = 0
        """Packets that could not be decoded."""

    @property
    def fps(self) -> float | None:
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate else None

    @property
    def has_end(self) -> bool:
        """Whether the container knows how long it is: a file, not a live stream."""
        return bool(self._container.duration and self._container.duration > 0)

    @property
    def duration_s(self) -> float | None:
        """How long the video itself is, if the container says so. Its own duration may be that of longer sound, and
        a number of frames counts what is not shown; but of an AVI without its end FFmpeg cuts the duration short."""
        if self._container.format.name == "avi" and self._stream.frames and self.fps:
            return self._stream.frames / self.fps
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        said = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", self._stream.metadata.get("DURATION", ""))  # in Matroska
        return int(said[1]) * 3600 + int(said[2]) * 60 + float(said[3]) if said else None

    def next_frame(self) -> av.VideoFrame | None:
        """The next frame, None at the end; raises av.FFmpegError when the data break off."""
        while not self._ready:
            packet = next(self._packets, None)
            if packet is None:
                return None
            try:
                self._ready.extend(packet.decode())
            except av.InvalidDataError:
                self.damaged += 1
        self.frames += 1
        frame = self._ready.popleft()
        if frame.time is not None:
            lasts_s = frame.duration * float(frame.time_base or 0) or 1 / (self.fps or 30.0)
            self.until_s = frame.time + lasts_s
        return frame

    def pts(self, frame: av.VideoFrame, arrived_s: float | None = None) -> float:
        """Seconds since the first frame that was asked for; call it once per frame, in order.

        Of a live frame whose format has no times, the arrival stands in.
        """
        time = frame.time if frame.time is not None else (self.frames - 1) / (self.fps or 30.0)
        if arrived_s is not None and self._untimed:
            time = arrived_s
        if self._first_time is None:
            self._first_time = time
        self._last_pts = max(time - self._first_time, self._last_pts + SMALLEST_STEP_S)
        return self._last_pts

    def write(self, frame: av.VideoFrame, allocate: Allocate) -> None:
        """The frame's pixels, turned upright as the file's metadata say."""
        height, width = upright_size(frame)
        target = allocate(height, width)
        plane = self._reformatter.reformat(frame, format="bgr24").planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        picture = rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
        target[:] = np.rot90(picture, quarter_turns(frame))

    def close(self) -> None:
        self._container.close()


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that put a frame upright."""
    return round(frame.rotation / 90) % 4


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Height and width after turning."""
    return (frame.width, frame.height) if quarter_turns(frame) % 2 else (frame.height, frame.width)


class VideoFile:
    """Reads a video file, or a file behind a URL, from its start to its end."""

    def __init__(self, decoder: Decoder, label: str) -> None:
        self._decoder = decoder
        self._label = label
        self._next: av.VideoFrame | None = None
        self._to_skip = 0
        self._closed = threading.Event()
        self._reading = threading.Lock()

    def open(self, skip: int) -> SourceInfo:
        self._to_skip, self._next = skip, self._advance()
        if self._next is None:
            # The table of an MP4 may stand at its end; many servers don't let a reader go back from there.
            mend = "download it and give the file" if "://" in self._label else "check the file"
            raise UserError(f"{self._label} holds no frame that can be decoded; {mend}")
        height, width = upright_size(self._next)
        return SourceInfo(width, height, self._decoder.fps, live=False)

    def read(self, allocate: Allocate) -> Captured | None:
        with self._reading:
            if self._closed.is_set():
                return None
            self._skip()
            if self._closed.is_set():
                return None
            frame, self._next = self._next, None
            frame = frame or self._advance()
            if frame is None:
                self._warn_if_cut_off()
                return None
            pts = self._decoder.pts(frame)
            self._decoder.write(frame, allocate)
            return Captured(pts, now_ns())

    def close(self) -> None:
        self._closed.set()
        with self._reading:
            self._decoder.close()

    def _skip(self) -> None:
        """Pass over what an earlier process has read. Here and not in `open`: of a long film it takes minutes, in which
        the process would seem dead."""
        while self._to_skip and self._next is not None and not self._closed.is_set():
            self._to_skip -= 1
            self._decoder.pts(self._next)
            self._next = self._advance()

    def _advance(self) -> av.VideoFrame | None:
        try:
            return self._decoder.next_frame()
        except av.FFmpegError as error:
            log.warning("%s breaks off: %s", self._label, _reason(error))
            return None

    def _warn_if_cut_off(self) -> None:
        until_s, duration_s, damaged = self._decoder.until_s, self._decoder.duration_s, self._decoder.damaged
        if damaged:
            log.warning("%s is damaged: %d packets of it could not be decoded", self._label, damaged)
        if duration_s is not None and until_s < COMPLETE * duration_s:
            log.warning("%s is cut off: it gave %.1f of the %.1f s that it names", self._label, until_s, duration_s)


class StreamFeed:
    """A live network stream that has given its first picture; see `stages.sources.live.Feed`."""

    def __init__(self, decoder: Decoder, label: str) -> None:
        """Raises UserError when no picture comes."""
        self._decoder = decoder
        try:
            self._first = decoder.next_frame()
        except av.FFmpegError as error:
            self._first = None
            log.debug("%s: %s", label, _reason(error))
        if self._first is None:
            decoder.close()
            raise UserError(f"{label} opens but gives no picture; check the camera or server")
        self.captured_at_ns = now_ns()
        height, width = upright_size(self._first)
        self.info = SourceInfo(width, height, decoder.fps, live=True)

    def read(self, allocate: Allocate) -> Captured:
        frame, self._first = self._first, None
        taken_ns = self.captured_at_ns
        if frame is None:
            self.captured_at_ns = 0
            frame = self._next_frame()
            taken_ns = now_ns()
        pts = self._decoder.pts(frame, arrived_s=taken_ns / NS_PER_S)
        self._decoder.write(frame, allocate)
        return Captured(pts, taken_ns)

    def close(self) -> None:
        self._decoder.close()

    def _next_frame(self) -> av.VideoFrame:
        try:
            frame = self._decoder.next_frame()
        except av.FFmpegError as error:
            raise FeedLost(_reason(error)) from None
        if frame is None:
            raise FeedLost("the stream ended")
        return frame


def open_file(path: Path, label: str) -> VideoFile:
    """Raises UserError when the file is missing, empty or no video."""
    if not path.exists():
        raise UserError(
            f"{label} does not exist; give a video file, a picture or a folder of them, a camera, a URL or demo"
        )
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(f"{label} is empty; record or fetch it again")
    # FFmpeg would take what stands before a colon in a name for a protocol.
    return VideoFile(Decoder(str(path.absolute()), label, {}, timeout_s=60.0, threads=2), label)


def open_url(url: str, settings: CaptureSettings) -> VideoFile | StreamFeed:
    """A finite file behind a URL or a live stream; raises UserError when it does not answer in time."""
    label = redact_url(url)
    scheme, _, rest = url.partition("://")
    url = f"{scheme.lower()}://{rest}"  # FFmpeg knows small letters only
    options = {"rtsp_transport": settings.rtsp_transport, "fflags": "nobuffer"} if url.startswith("rtsp") else {}
    decoder = Decoder(url, label, options, settings.timeout_s, threads=1)
    return VideoFile(decoder, label) if decoder.has_end else StreamFeed(decoder, label)


def _reason(error: av.FFmpegError) -> str:
    """FFmpeg's reason without the address, which may hold a password."""
    if isinstance(error, av.error.ExitError):
        return "it does not answer in time"
    if isinstance(error, av.InvalidDataError):
        return "no video can be read from it"
    return str(error.strerror).lower()
