"""A small pipeline with real frames: each frame's pixels say its number, so that every mix-up shows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from engine.packet import Packet
from engine.stage import Captured, Context, SourceInfo, SourceLost


class NumberPacket(Packet, kw_only=True):
    number: int | None = None
    """As read from the pixels."""
    batch: int = 0


class NumbersSettings(msgspec.Struct, forbid_unknown_fields=True):
    width: int = 320
    height: int = 240
    fps: float = 0.0
    """0: as fast as they are taken."""
    live: bool = False
    grow_from: int = -1
    """From this frame on, each frame is higher than the one before."""
    broken_at: int = -1
    crash_at: int = -1
    open_s: float = 0.0


class Numbers:
    """The source "120" gives 120 frames, numbered from 0."""

    name: ClassVar[str] = "numbers"
    settings_type: ClassVar[type[msgspec.Struct]] = NumbersSettings

    def __init__(self, settings: NumbersSettings, source: str) -> None:
        self._settings = settings
        self._source = source
        self._next = 0
        self._first = 0
        self._closed = False
        self._started_ns = 0

    def open(self, skip: int = 0) -> SourceInfo:
        time.sleep(self._settings.open_s)
        if not self._source.isdigit():
            raise UserError(f"{self._source!r} is no number of frames")
        settings = self._settings
        self._next = skip
        self._first = skip if settings.live else 0  # a camera's time begins when it is opened
        self._started_ns = now_ns()
        return SourceInfo(settings.width, settings.height, settings.fps or None, settings.live)

    def read(self, allocate: Callable[[int, int], np.ndarray]) -> Captured | SourceLost | None:
        number, settings = self._next, self._settings
        if number >= int(self._source) or self._closed:
            return None
        if number == settings.broken_at:
            raise UserError(f"frame {number} is broken")
        if number == settings.crash_at:
            raise RuntimeError("the driver has hiccups")
        if settings.fps:
            time.sleep(1 / settings.fps)
        self._next += 1
        grown = number - settings.grow_from if settings.grow_from >= 0 else 0
        frame = allocate(settings.height + 16 * max(0, grown), settings.width)
        frame[:] = number % 251
        return Captured((number - self._first) / 30, now_ns())

    def close(self) -> None:
        self._closed = True


class WorkSettings(msgspec.Struct, forbid_unknown_fields=True):
    delay_ms: float = 0.0
    fail_every: int = 0
    max_batch: int = 8
    max_wait_ms: float = 5.0
    pid_file: str = ""
    missing_file: str = ""
    crash_in_open: bool = False
    open_s: float = 0.0
    hang_at: int = -1


class _Work:
    settings_type: ClassVar[type[msgspec.Struct]] = WorkSettings

    def __init__(self, settings: WorkSettings) -> None:
        self.settings = settings
        self.context: Context

    def open(self, context: Context) -> None:
        self.context = context
        if self.settings.missing_file:
            raise UserError(f"there is no model {self.settings.missing_file}")
        time.sleep(self.settings.open_s)
        if self.settings.crash_in_open:
            raise RuntimeError("the driver is in a bad mood")
        if self.settings.pid_file:
            with Path(self.settings.pid_file).open("a") as file:
                file.write(f"{type(self).__name__} {os.getpid()}\n")

    def process(self, packet: NumberPacket) -> NumberPacket | None:
        if self.settings.fail_every and packet.sequence % self.settings.fail_every == 0:
            raise RuntimeError("not this one")
        if packet.sequence == self.settings.hang_at and self.context.restarts == 0:
            time.sleep(3600)
        time.sleep(self.settings.delay_ms / 1000)
        return packet

    def describe(self) -> dict[str, str]:
        return {"device": "test bench"}

    def close(self) -> None:
        if self.settings.pid_file:
            with Path(self.settings.pid_file).open("a") as file:
                file.write(f"closed {type(self).__name__}\n")


class Read(_Work):
    """Reads the number back from every pixel; a mixed frame is an error that ends the test's hopes."""

    name: ClassVar[str] = "read"
    stateless: ClassVar[bool] = True

    def process(self, packet: NumberPacket) -> NumberPacket | None:
        assert packet.frame is not None
        with self.context.frames.read(packet.frame) as frame:
            before = int(frame[0, 0, 0])
            super().process(packet)
            low, high = int(frame.min()), int(frame.max())
        packet.number = before if before == low == high else -1
        return packet


class Middle(_Work):
    name: ClassVar[str] = "middle"
    stateless: ClassVar[bool] = True


class Mistyping(Middle):
    """Gives one packet what its type does not allow."""

    def process(self, packet: NumberPacket) -> NumberPacket | None:
        if packet.sequence == 7:
            packet.batch = "many"  # type: ignore[assignment]
        return packet


class Unsendable(Middle):
    """Gives one packet what no packet can hold."""

    def process(self, packet: NumberPacket) -> NumberPacket | None:
        if packet.sequence == 7:
            packet.batch = object()  # type: ignore[assignment]
        return packet


class Batched:
    """Sees packets of all streams together."""

    name: ClassVar[str] = "middle"
    stateless: ClassVar[bool] = True
    settings_type: ClassVar[type[msgspec.Struct]] = WorkSettings

    def __init__(self, settings: WorkSettings) -> None:
        self.max_batch, self.max_wait_ms = settings.max_batch, settings.max_wait_ms
        self._delay_ms = settings.delay_ms

    def open(self, context: Context) -> None:
        """Nothing to load."""

    def process_batch(self, packets: list[NumberPacket]) -> list[NumberPacket]:
        time.sleep(self._delay_ms / 1000)
        for packet in packets:
            packet.batch = len(packets)
        return packets

    def close(self) -> None:
        """Nothing to release."""


class WriteSettings(msgspec.Struct, forbid_unknown_fields=True):
    path: str = ""
    health_path: str = ""
    stop_after: int = -1
    pid_file: str = ""
    delay_ms: float = 0.0
    close_s: float = 0.0
    broken_at: int = -1
    failing_from: int = 1_000_000
    failing_file: str = ""
    """It fails from when there is such a file."""


class Write:
    """One line for each packet, whatever became of it; a restarted one skips what its predecessor wrote."""

    name: ClassVar[str] = "write"
    settings_type: ClassVar[type[msgspec.Struct]] = WriteSettings
    sees_ended: ClassVar[bool] = True

    def __init__(self, settings: WriteSettings) -> None:
        self._settings = settings
        self._context: Context
        self._written: set[tuple[str, int]] = set()
        self._closed = False

    def open(self, context: Context) -> None:
        self._context = context
        path = Path(self._settings.path)
        if context.resumes and path.exists():
            self._written = {(line["stream"], line["sequence"]) for line in map(json.loads, path.open())}
        self._file = path.open("a", buffering=1)
        if self._settings.pid_file:
            with Path(self._settings.pid_file).open("a") as file:
                file.write(f"Write {os.getpid()}\n")

    def process(self, packet: NumberPacket) -> NumberPacket:
        time.sleep(self._settings.delay_ms / 1000)
        if packet.sequence == self._settings.broken_at:
            raise UserError("the disk is full")
        failing_file = self._settings.failing_file
        if packet.sequence >= self._settings.failing_from or failing_file and Path(failing_file).exists():
            raise RuntimeError("the encoder is lost")
        if (packet.stream, packet.sequence) not in self._written:
            line = {
                "stream": packet.stream,
                "sequence": packet.sequence,
                "status": packet.status,
                "reason": packet.reason,
                "pts": packet.pts,
                "number": packet.number,
                "batch": packet.batch,
                "age_ms": (now_ns() - packet.captured_at_ns) * 1000 / NS_PER_S,
            }
            self._file.write(json.dumps(line) + "\n")
        if packet.sequence == self._settings.stop_after:
            self._context.request_stop()
        return packet

    def idle(self, now: int) -> None:
        if self._settings.health_path and self._context.health():
            Path(self._settings.health_path).write_text(json.dumps(self._context.health()))

    def describe(self) -> dict[str, str]:
        return {"file": "closed"} if self._closed else {}

    def close(self) -> None:
        time.sleep(self._settings.close_s)
        self._file.close()
        self._closed = True
        if self._settings.pid_file:
            with Path(self._settings.pid_file).open("a") as file:
                file.write("closed Write\n")


def lines_of(path: Path, stream: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if stream is None or line["stream"] == stream]


class Flaky(Numbers):
    """Is lost once for longer than the engine's patience with a source that hangs, or hangs for good."""

    name: ClassVar[str] = "numbers"

    def read(self, allocate: Callable[[int, int], np.ndarray]) -> Captured | SourceLost | None:
        if self._next == 10 and self._lost is None:
            self._lost = now_ns()
            return SourceLost("the cable is out")
        if self._next == 10 and self._lost is not None and self._lost > 0:
            time.sleep(3)
            self._lost = 0
        return super().read(allocate)

    _lost: int | None = None


class Hanging(Numbers):
    """Hangs at its tenth frame, in the first process that reads it."""

    name: ClassVar[str] = "numbers"
    _skipped = 0

    def open(self, skip: int = 0) -> SourceInfo:
        self._skipped = skip
        return super().open(skip)

    def read(self, allocate: Callable[[int, int], np.ndarray]) -> Captured | SourceLost | None:
        if self._next == 10 and self._skipped == 0:
            time.sleep(3600)
        return super().read(allocate)
