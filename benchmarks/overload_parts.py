"""A pipeline that is slower than its source, on purpose: frames of 720p at a fixed rate, and a stage that sleeps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

import msgspec
import numpy as np

from engine.clock import NS_PER_S, now_ns
from engine.packet import Packet
from engine.stage import Captured, Context, SourceInfo, SourceLost


class TickerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [ticker]."""

    fps: float = 50.0
    live: bool = True
    """A live source cannot wait."""


class Ticker:
    """Gives noise at a fixed rate, for as long as it is let."""

    name: ClassVar[str] = "ticker"
    settings_type: ClassVar[type[msgspec.Struct]] = TickerSettings

    def __init__(self, settings: TickerSettings, source: str) -> None:
        self._settings = settings
        self._noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
        self._number = 0
        self._begun_ns: int | None = None
        self._closed = threading.Event()

    def open(self, skip: int = 0) -> SourceInfo:
        """Nothing to look for."""
        self._number = skip
        return SourceInfo(1280, 720, self._settings.fps, self._settings.live)

    def read(self, allocate: Callable[[int, int], np.ndarray]) -> Captured | SourceLost | None:
        """The next frame, when its time has come."""
        pts = self._number / self._settings.fps
        if self._begun_ns is None:
            self._begun_ns = now_ns() - int(pts * NS_PER_S)
        np.copyto(allocate(720, 1280), self._noise)
        late_ns = now_ns() - self._begun_ns - int(pts * NS_PER_S)
        if self._closed.wait(max(0.0, -late_ns / NS_PER_S)):
            return None
        self._number += 1
        return Captured(pts, now_ns())

    def close(self) -> None:
        self._closed.set()


class SleeperSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [sleeper]."""

    service_ms: float = 40.0


class Sleeper:
    """Takes a fixed time for each frame, and reads it."""

    name: ClassVar[str] = "sleeper"
    settings_type: ClassVar[type[msgspec.Struct]] = SleeperSettings

    def __init__(self, settings: SleeperSettings) -> None:
        self._service_ns = int(settings.service_ms * NS_PER_S / 1000)
        self._wake = threading.Event()

    def open(self, context: Context) -> None:
        self._frames = context.frames

    def process(self, packet: Packet) -> Packet:
        until_ns = now_ns() + self._service_ns
        assert packet.frame is not None
        with self._frames.read(packet.frame) as pixels:
            pixels[::4].sum()
        self._wake.wait(max(0.0, (until_ns - now_ns()) / NS_PER_S))
        return packet

    def close(self) -> None:
        """Nothing to release."""


class Sink:
    """The end of the pipeline, in a process of its own."""

    name: ClassVar[str] = "sink"
    settings_type: ClassVar[type[msgspec.Struct]] = msgspec.defstruct("SinkSettings", [])

    def __init__(self, settings: msgspec.Struct) -> None:
        """Nothing to set."""

    def open(self, context: Context) -> None:
        """Nothing to load."""

    def process(self, packet: Packet) -> Packet:
        return packet

    def close(self) -> None:
        """Nothing to release."""
