"""What never waits and may come back: keeps a live feed going across losses, with growing delays between attempts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from engine.errors import UserError
from engine.stage import Captured, SourceInfo, SourceLost
from stages.sources import Allocate

STALE_NS = 200 * NS_PER_MS
"""The picture taken to learn the size is thrown away when it has grown older than this before anyone asked for it."""

SMALLEST_STEP_S = 0.0001
"""Time must grow for whoever divides by its steps, also where a stream's own stamps stand still or run backwards."""

log = logging.getLogger(__name__)


class FeedLost(Exception):
    """The feed gave nothing more; says why."""


class Feed(Protocol):
    """One connection to a camera or stream; the first picture has already arrived when it is made."""

    info: SourceInfo
    captured_at_ns: int
    """When the picture that `read` gives next was taken, if it waits already; else 0."""

    def read(self, allocate: Allocate) -> Captured:
        """The next picture, `pts` counted from the feed's first; raises FeedLost."""

    def close(self) -> None: ...


class RetryDelays:
    """Seconds to wait before each attempt: doubled each time, up to the longest."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    def next_s(self) -> float:
        delay, self._next_s = self._next_s, min(2 * self._next_s, self._longest_s)
        return delay

    def reset(self) -> None:
        self._next_s = self._first_s


class Live:
    """Reads a feed and makes it anew when it is lost; reports each loss once."""

    def __init__(self, connect: Callable[[], Feed], label: str, delays: RetryDelays) -> None:
        """`connect` raises UserError when there is nothing to connect to."""
        self._connect = connect
        self._label = label
        self._delays = delays
        self._feed: Feed | None = None
        self._started_ns = 0
        self._offset_s = 0.0
        self._last_pts = -SMALLEST_STEP_S
        self._closed = threading.Event()
        self._reading = threading.Lock()

    def open(self, skip: int) -> SourceInfo:
        self._feed = self._connect()
        return self._feed.info

    def read(self, allocate: Allocate) -> Captured | SourceLost | None:
        with self._reading:
            try:
                return self._read(allocate)
            except FeedLost as loss:
                if self._closed.is_set():
                    return None
                self._drop()
                log.warning("%s is lost (%s) and will be tried again", self._label, loss)
                return SourceLost(f"{self._label}: {loss}")
            finally:
                if self._closed.is_set():
                    self._drop()

    def close(self) -> None:
        self._closed.set()
        # A read under way holds the device: it releases it itself when it returns.
        if self._reading.acquire(blocking=False):
            self._drop()
            self._reading.release()

    def _read(self, allocate: Allocate) -> Captured | None:
        while self._feed is None:
            if self._closed.wait(self._delays.next_s()):
                return None
            self._try_again()
        if self._closed.is_set():
            return None
        is_first = self._started_ns == 0
        waits_since = self._feed.captured_at_ns
        captured = self._feed.read(allocate)
        if is_first and waits_since and now_ns() - waits_since > STALE_NS:
            captured = self._feed.read(allocate)
        if is_first:
            self._started_ns = captured.captured_at_ns
            self._offset_s = -captured.pts
        self._delays.reset()
        # A driver's stamp of the second picture may lie before the time that the first got when the camera was opened.
        self._last_pts = max(captured.pts + self._offset_s, self._last_pts + SMALLEST_STEP_S)
        return Captured(self._last_pts, captured.captured_at_ns)

    def _try_again(self) -> None:
        try:
            self._feed = self._connect()
        except (UserError, FeedLost) as error:
            log.debug("%s is still away: %s", self._label, error)
            return
        log.warning("%s is back", self._label)
        away_since_start_s = (now_ns() - self._started_ns) / NS_PER_S
        self._offset_s = max(away_since_start_s, self._last_pts + SMALLEST_STEP_S)

    def _drop(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None
