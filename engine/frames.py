"""Frames without shared memory: the pixels travel in the message (transport `copy`) or stay in the one process."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

import numpy as np

from engine.packet import FrameRef
from engine.stage import FrameOverrun

SEGMENT_PREFIX = "copy-"


class OwnedFrames:
    """Keeps each frame in an array of its own, from `put` or `commit` until `drop`.

    The capture side writes with `begin` and `commit`; a worker puts what came with a packet and drops it afterwards.
    """

    def __init__(self, stream: str = "") -> None:
        self.segment = SEGMENT_PREFIX + stream
        self._frames: dict[tuple[str, int], np.ndarray] = {}
        self._begun: np.ndarray | None = None

    def fits(self, height: int, width: int) -> bool:
        return True

    def begin(self, height: int, width: int, busy: Container[int]) -> np.ndarray:
        for key in [key for key in list(self._frames) if key[1] not in busy]:
            self._frames.pop(key, None)
        self._begun = np.empty((height, width, 3), np.uint8)
        return self._begun

    def commit(self, sequence: int) -> FrameRef:
        frame, self._begun = self._begun, None
        assert frame is not None, "commit without begin"
        self._frames[self.segment, sequence] = frame
        return FrameRef(self.segment, 0, sequence, frame.shape[1], frame.shape[0])

    @contextmanager
    def read(self, ref: FrameRef) -> Iterator[np.ndarray]:
        """Read-only view; raises FrameOverrun when the frame was not sent along or was dropped."""
        frame = self._frames.get((ref.segment, ref.generation))
        if frame is None:
            raise FrameOverrun(f"frame {ref.generation} of {ref.segment} is not here")
        view = frame.view()
        view.flags.writeable = False
        yield view

    def pixels(self, ref: FrameRef) -> bytes | memoryview:
        """The frame as it goes into a message; raises FrameOverrun."""
        with self.read(ref) as frame:
            return frame.reshape(-1).data

    def put(self, ref: FrameRef, pixels: bytes | memoryview) -> None:
        """Keep the pixels that came with a packet; raises ValueError when their number does not fit the reference."""
        array = np.frombuffer(pixels, np.uint8)
        self._frames[ref.segment, ref.generation] = array.reshape(ref.height, ref.width, 3)

    def drop(self, ref: FrameRef) -> None:
        self._frames.pop((ref.segment, ref.generation), None)
