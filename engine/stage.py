"""What the engine asks of a stage and of a source, and what it gives them.

A stage is named in the configuration as `"module:Class"`. It is constructed in its worker process with its settings:
`Class(settings)`. `name` is the section of the configuration that `settings_type` decodes; stages may share a section,
and then its type. That type is a Struct of plain values (text, numbers, lists, tables): settings travel to the worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

import msgspec
import numpy as np

from engine.packet import FrameRef, Packet


class FrameOverrun(Exception):
    """The frame was overwritten before or while it was read; the worker ends the packet as dropped and counts it."""


class FrameAccess(Protocol):
    """Pixels of the frames that packets refer to."""

    def read(self, ref: FrameRef) -> AbstractContextManager[np.ndarray]:
        """Read-only uint8 BGR view of shape (height, width, 3), valid inside the `with`.

        Raises FrameOverrun on entry or on exit when the writer has taken the slot.
        """


class Context(msgspec.Struct, kw_only=True):
    """What a stage may know and do; given to `open`."""

    streams: list[str]
    """Names of all the streams, in the order of the sources."""
    frames: FrameAccess
    sections: Mapping[str, Any] = {}
    """All settings as plain values, for what a stage must know of another one's."""
    restarts: int = 0
    """How often this worker has been restarted."""
    resumes: bool = False
    """A worker before this one was ready: what it wrote is of this run, so that a writer appends to it."""
    request_stop: Callable[[], None]
    """Asks for an orderly end of the whole program (a key in the window, for example)."""
    alive: Callable[[], bool] = lambda: True
    """To be called each second by a stage that has to wait, for a reader say: who is silent is taken for dead. False
    when it is time to stop."""
    health: Callable[[], dict[str, Any]]
    """The newest health record: FPS in and out, drops by reason, latency percentiles, restarts, memory."""


class Stage(Protocol):
    """A function with state. One instance serves all streams of its worker and keeps state by `packet.stream`."""

    name: ClassVar[str]
    settings_type: ClassVar[type[msgspec.Struct]]

    def open(self, context: Context) -> None:
        """Load what is needed; raises UserError when a file or device is missing."""

    def process(self, packet: Any) -> Packet | None:
        """Add this stage's part and return the packet (the same object), or None to drop it as `refused:<stage>`. Not
        called for packets that have ended, unless the class says `sees_ended = True`."""


# Optional members, looked up by the worker:
#   close()                                   flush and release; called once, also after an error in `process`
#   process_batch(packets: list) -> list      called instead of `process`, over whatever waits, of all streams; gives
#                                             back the same packets in the same order, None for one to drop
#   max_batch: int, max_wait_ms: float        attributes that bound such a batch
#   sees_ended: ClassVar[bool]                process also gets packets that have ended (writers, publishers)
#   stateless: ClassVar[bool]                 each packet stands alone, so that replicas may share a stream
#   has_work(packet) -> bool                  False: it only passes through, which forgives no failure before it
#   idle(now_ns: int) -> None                 called about every 50 ms, whatever arrives (window events, health)
#   describe() -> dict[str, str]              device, runtime and versions really used; goes into --stats


def stage_label(stage: type) -> str:
    """What a stage is called in spans, statistics and logs: `MotionGate` -> `motion_gate`; sections may be shared."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", stage.__name__).lower()


class SourceInfo(msgspec.Struct, frozen=True):
    """What a source turned out to be."""

    width: int
    height: int
    fps: float | None
    live: bool
    """A live source cannot wait: frames that nobody takes are lost, so the newest wins."""
    paced: bool = False
    """It sleeps until a frame's time has come, however long that is: its silence says nothing."""


class Captured(msgspec.Struct, frozen=True):
    """One frame was written into the array that `allocate` gave."""

    pts: float
    """Presentation time in seconds from the start of the stream."""
    captured_at_ns: int
    """By `engine.clock.now_ns`: latency and age are measured against it."""
    picture: str | None = None
    """Name of the file, where each picture has its own."""


class SourceLost(msgspec.Struct, frozen=True):
    """The source gave nothing; it will be tried again. Reported once per loss."""

    reason: str


class Source(Protocol):
    """Where frames come from; constructed as `Class(settings, source)` in the capture process of its stream."""

    name: ClassVar[str]
    settings_type: ClassVar[type[msgspec.Struct]]

    def open(self, skip: int = 0) -> SourceInfo:
        """Open and look at the first frame; `skip` frames at the start were already delivered before a restart
        (ignored by live sources). Raises UserError when it cannot be opened."""

    def read(self, allocate: Callable[[int, int], np.ndarray]) -> Captured | SourceLost | None:
        """Write the next frame into `allocate(height, width)`, a writable uint8 (height, width, 3) BGR array.

        Blocks until there is one; None at the end. A paced file sleeps until its time has come.
        """

    def close(self) -> None:
        """Release the device or file; may be called from another thread to interrupt `read`."""
