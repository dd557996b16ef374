"""Frames in shared memory: written once, read in place by whoever needs pixels.

A ring is one segment: a table of slot headers and, behind it, the slots' pixels. Slots are protected by a generation
number, not by counting readers: it grows when the slot is begun and when it is complete, and a reader compares it
before and after use.
So a dead reader can leak nothing, the writer never waits, and an overrun is noticed and counted.

The supervisor creates the segment (and unlinks it), so that the death of a capture process neither loses nor leaks it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Container, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.errors import UserError
from engine.leftovers import left_by_the_dead, own_names, owner_of
from engine.packet import FrameRef
from engine.stage import FrameOverrun

MAX_SIDE_PX = 16_384
"""No frame is wider or higher; bounds what a broken source or message can make us allocate."""

_HEADER = np.dtype(
    [("generation", "<i8"), ("sequence", "<i8"), ("width", "<i8"), ("height", "<i8"), ("reserved", "<i8", (4,))]
)
_PAGE_BYTES = 4096
_SHM_FOLDER = Path("/dev/shm")
_PREFIX = own_names("frames")


class FrameWriter(Protocol):
    """Where capture puts pixels; `FrameRing` or `engine.frames.OwnedFrames`."""

    def fits(self, height: int, width: int) -> bool:
        """Whether a frame of that size has room."""

    def begin(self, height: int, width: int, busy: Container[int]) -> np.ndarray:
        """A writable uint8 (height, width, 3) array that holds none of the `busy` sequences' frames."""

    def commit(self, sequence: int) -> FrameRef:
        """The frame begun last is complete and becomes that of `sequence`."""


class FrameRing:
    """One stream's slots. One process writes, any number read."""

    def __init__(self, memory: _Segment, slots: int) -> None:
        self._memory: _Segment | None = memory
        self.name = memory.name
        self.stream = memory.name.split("-")[-2]
        header_bytes = _header_bytes(slots)
        buffer = memory.buf
        assert buffer is not None, "the segment is closed"
        # np.frombuffer and never np.ndarray(buffer=...): it holds an export of the buffer, so that closing the segment
        # under a living view raises BufferError instead of crashing the process.
        self._headers = np.frombuffer(buffer, _HEADER, slots)
        self._slot_bytes = (memory.size - header_bytes) // slots // _PAGE_BYTES * _PAGE_BYTES
        pixels = np.frombuffer(buffer, np.uint8, self._slot_bytes * slots, header_bytes)
        self._pixels = pixels.reshape(slots, self._slot_bytes)
        self._begun: int | None = None
        self._fence_lock = threading.Lock()

    @classmethod
    def create(cls, stream: str, slots: int, frame_bytes: int) -> FrameRing:
        """New ring for frames of at most `frame_bytes`, every page touched. Raises UserError when memory is short."""
        slot_bytes = -(-frame_bytes // _PAGE_BYTES) * _PAGE_BYTES
        size = _header_bytes(slots) + slots * slot_bytes
        _check_space(size)
        name = f"{_PREFIX}-{os.getpid()}-{stream}-{os.urandom(4).hex()}"
        try:
            segment = _Segment(name, create=True, size=size)
        except OSError as error:
            raise UserError(
                f"no shared memory can be made: {error.strerror}; mend that, or set engine.transport to copy"
            ) from error
        ring = cls(segment, slots)
        ring._headers["generation"] = 0
        ring._headers["sequence"] = -1
        ring._pixels[:, ::_PAGE_BYTES] = 0  # the first touch of a page is slow: now, not in the first frames
        return ring

    @classmethod
    def attach(cls, name: str, slots: int) -> FrameRing:
        """The ring of that name; raises FileNotFoundError when it is gone."""
        return cls(_Segment(name, create=False), slots)

    def fits(self, height: int, width: int) -> bool:
        return height * width * 3 <= self._slot_bytes

    def begin(self, height: int, width: int, busy: Container[int]) -> np.ndarray:
        """Take the oldest slot whose frame nobody waits for, and mark it as being written."""
        if not self.fits(height, width):
            raise ValueError(f"a frame of {width}x{height} does not fit a slot of {self._slot_bytes} bytes")
        order = np.argsort(self._headers["sequence"], kind="stable").tolist()
        free = (slot for slot in order if int(self._headers["sequence"][slot]) not in busy)
        slot = next(free, order[0])
        header = self._headers[slot]
        header["generation"] += 1
        self._fence()
        header["sequence"], header["width"], header["height"] = -1, width, height
        self._begun = slot
        return self._view(slot, height, width)

    def commit(self, sequence: int) -> FrameRef:
        slot = self._begun
        assert slot is not None, "commit without begin"
        header = self._headers[slot]
        header["sequence"] = sequence
        self._fence()
        header["generation"] += 1
        self._begun = None
        return FrameRef(self.name, slot, int(header["generation"]), int(header["width"]), int(header["height"]))

    @contextmanager
    def read(self, ref: FrameRef) -> Iterator[np.ndarray]:
        """Read-only view of the frame; raises FrameOverrun on entry or exit when the writer has taken the slot."""
        if not (0 <= ref.slot < len(self._headers) and self.fits(ref.height, ref.width)):
            raise FrameOverrun(f"there is no such frame in {self.name}: {ref}")
        self._check(ref)
        view = self._view(ref.slot, ref.height, ref.width)
        view.flags.writeable = False
        yield view
        self._check(ref)

    def close(self, unlink: bool = False) -> None:
        """Let go of the memory; `unlink` also removes the segment, which lives until its last user has gone."""
        memory, self._memory = self._memory, None
        if memory is None:
            return
        del self._headers, self._pixels
        with suppress(BufferError):  # somebody still holds a view: the mapping goes with the process
            memory.close()
        if unlink:
            with suppress(FileNotFoundError):
                memory.unlink()

    def _view(self, slot: int, height: int, width: int) -> np.ndarray:
        return self._pixels[slot, : height * width * 3].reshape(height, width, 3)

    def _check(self, ref: FrameRef) -> None:
        self._fence()
        if int(self._headers["generation"][ref.slot]) != ref.generation:
            raise FrameOverrun(f"slot {ref.slot} of {self.name} was overwritten")

    def _fence(self) -> None:
        """Keep memory accesses before and after apart on processors that reorder them: a lock is a barrier."""
        with self._fence_lock:
            pass


class RingReader:
    """Pixels of all streams for the stages of one worker; attaches to a ring when its first frame is read."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._rings: dict[str, FrameRing] = {}

    def read(self, ref: FrameRef) -> AbstractContextManager[np.ndarray]:
        """See `engine.stage.FrameAccess.read`."""
        return self._ring(ref.segment).read(ref)

    def close(self) -> None:
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()

    def _ring(self, name: str) -> FrameRing:
        ring = self._rings.get(name)
        if ring is None:
            if owner_of(name, _PREFIX) is None:
                raise FrameOverrun(f"{name!r} is no ring of frames")
            try:
                ring = FrameRing.attach(name, self._slots)
            except FileNotFoundError as error:  # all its frames counted as finished
                raise FrameOverrun(f"the ring {name} is gone") from error
            for old in [old for old in self._rings.values() if old.stream == ring.stream]:
                self._rings.pop(old.name).close()  # a larger ring replaces it; attached again if a frame comes late
            self._rings[name] = ring
        return ring


def sweep_stale_rings() -> None:
    """Remove segments whose supervisor died without a chance to do so (POSIX; elsewhere they go by themselves)."""
    _unlink(left_by_the_dead(_SHM_FOLDER, _PREFIX))


def remove_rings_of(supervisor_pid: int) -> None:
    """Remove all segments of one supervisor, which has died."""
    _unlink(_SHM_FOLDER.glob(f"{_PREFIX}-{supervisor_pid}-*"))


def _unlink(files: Iterable[Path]) -> None:
    for file in files:
        with suppress(OSError):
            file.unlink()


_register_lock = threading.Lock()


class _Segment(SharedMemory):
    """Shared memory that only its creator's resource tracker knows, and that dies quietly.

    Before Python 3.13 attaching registers the segment too; the tracker of an unrelated program would then unlink it.
    """

    _size = 0

    def __init__(self, name: str, create: bool, size: int = 0) -> None:
        self._attaches = not create
        if create:
            super().__init__(name, create=True, size=size)
        elif sys.version_info >= (3, 13):
            super().__init__(name, track=False)
        else:
            with _register_lock:
                register = resource_tracker.register
                resource_tracker.register = _register_nothing
                try:
                    super().__init__(name)
                finally:
                    resource_tracker.register = register

    def unlink(self) -> None:
        """The base class does so too where the system gives no memory. Then its tracker does not know the segment yet,
        and who only attaches must not take it from the others."""
        if self._attaches:
            return
        if not self.size and os.name == "posix":
            resource_tracker.register(f"/{self.name}", "shared_memory")
        super().unlink()

    def __del__(self) -> None:
        with suppress(BufferError, OSError):
            self.close()


def _register_nothing(name: Sized, rtype: str) -> None:
    """Stands in for `resource_tracker.register` while attaching."""


def _header_bytes(slots: int) -> int:
    return -(-_HEADER.itemsize * slots // _PAGE_BYTES) * _PAGE_BYTES


def _check_space(size: int) -> None:
    """Writing beyond the free shared memory would end the process with a bus error, so ask before."""
    if not _SHM_FOLDER.is_dir():
        return
    status = os.statvfs(_SHM_FOLDER)
    free = status.f_bavail * status.f_frsize
    if size > free:
        raise UserError(
            f"{_SHM_FOLDER} has {free / 1e6:.0f} MB free and the frames need {size / 1e6:.0f} MB: enlarge it "
            "(docker run --shm-size), lower engine.slots, or set engine.transport to copy"
        )
