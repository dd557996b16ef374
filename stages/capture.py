"""Where frames come from: a camera, a video file, a network stream, a folder of pictures or the demo clip."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from engine.ring import MAX_SIDE_PX
from engine.stage import Captured, SourceInfo, SourceLost
from stages.classes import models_folder
from stages.sources import CaptureSettings, redact_url
from stages.sources.camera import CameraFeed, camera_device
from stages.sources.images import SUFFIXES, ImageFolder
from stages.sources.live import Feed, Live, RetryDelays
from stages.sources.video import StreamFeed, VideoFile, open_file, open_url

DEMO = "demo"
Reader = Live | VideoFile | ImageFolder
"""One kind of source; the members mean what they mean in `engine.stage.Source`."""


def is_paced(settings: CaptureSettings, source: str) -> bool:
    """Whether this source, if it is a file, plays as fast as it was filmed."""
    return source == DEMO if settings.realtime == "auto" else settings.realtime


class Pacer:
    """Lets frames go when their time has come, as a camera would."""

    def __init__(self) -> None:
        self._started_ns: int | None = None
        self._stopped = threading.Event()

    def wait(self, pts: float) -> None:
        """Return when `pts` seconds have passed since the first frame's; at once when late or stopped."""
        pts_ns = int(pts * NS_PER_S)
        if self._started_ns is None:
            self._started_ns = now_ns() - pts_ns
        self._stopped.wait(max(0.0, (self._started_ns + pts_ns - now_ns()) / NS_PER_S))

    def stop(self) -> None:
        self._stopped.set()


class Capture:
    """One source by its name: `demo`, `0` or `/dev/video0`, a path, or a URL."""

    name: ClassVar[str] = "capture"
    settings_type: ClassVar[type[CaptureSettings]] = CaptureSettings

    def __init__(self, settings: CaptureSettings, source: str) -> None:
        self._settings = settings
        self._source = source
        self._reader: Reader | None = None
        self._pacer: Pacer | None = None

    def open(self, skip: int = 0) -> SourceInfo:
        """Open and look at the first frame; see `engine.stage.Source`."""
        self._reader = make_reader(self._settings, self._source)
        info = self._reader.open(skip)
        _check_size(self._source, info.height, info.width)
        if not info.live and is_paced(self._settings, self._source):
            self._pacer = Pacer()
            return SourceInfo(info.width, info.height, info.fps, live=True, paced=True)
        return info

    def read(self, allocate: Callable[[int, int], np.ndarray]) -> Captured | SourceLost | None:
        """The next frame; see `engine.stage.Source`."""
        assert self._reader is not None, "read before open"

        def allocate_checked(height: int, width: int) -> np.ndarray:
            _check_size(self._source, height, width)
            return allocate(height, width)

        event = self._reader.read(allocate_checked)
        if self._pacer is None or not isinstance(event, Captured):
            return event
        self._pacer.wait(event.pts)
        return msgspec.structs.replace(event, captured_at_ns=now_ns())

    def close(self) -> None:
        """Release the source; also ends a `read` that waits in another thread."""
        if self._pacer is not None:
            self._pacer.stop()
        if self._reader is not None:
            self._reader.close()


def make_reader(settings: CaptureSettings, source: str) -> Reader:
    """The reader for a source's name; raises UserError when a file is missing or no video."""
    if source == DEMO:
        return open_file(models_folder() / "demo.mp4", "the demo clip models/demo.mp4")
    if (index := camera_device(source)) is not None:
        return _live(settings, f"camera {index}", lambda: CameraFeed(index, settings))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source):
        return _url_reader(settings, source)
    if Path(source).is_dir() or Path(source).is_file() and Path(source).suffix.lower() in SUFFIXES:
        return ImageFolder(Path(source), settings.fps)
    return open_file(Path(source), source)


def _url_reader(settings: CaptureSettings, url: str) -> Reader:
    first = open_url(url, settings)
    if isinstance(first, VideoFile):
        return first
    waiting: list[Feed] = [first]

    def connect() -> Feed:
        feed = waiting.pop() if waiting else open_url(url, settings)
        if not isinstance(feed, StreamFeed):
            raise UserError(f"{redact_url(url)} has become a file")
        return feed

    return _live(settings, redact_url(url), connect)


def _live(settings: CaptureSettings, label: str, connect: Callable[[], Feed]) -> Reader:
    return Live(connect, label, RetryDelays(settings.retry_s, settings.longest_retry_s))


def _check_size(source: str, height: int, width: int) -> None:
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise UserError(
            f"{redact_url(source)} has pictures of {width}x{height}; at most {MAX_SIDE_PX} pixels a side are read"
        )
