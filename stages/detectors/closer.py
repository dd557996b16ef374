"""A closer look at who holds still: a slower, more exact network beside the pipeline, while nothing else is to be done.

A pose is a hold. What is seen of it in passing is good enough to follow somebody, but a hold is judged, and there is
time: only one in six of its frames is detected at all. So the picture of a hold is looked at once more, in a thread of
its own, and the next regular look takes that answer instead of asking the quick network.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np

from stages.detectors import BodyCandidate, BodyDetector

LOOK_AGAIN_S = 0.5
"""From this age on, a look is followed by another."""

BELIEVED_S = 1.0
"""A picture that has not moved from look to look may still have drifted: older answers are not used."""


class _Look(msgspec.Struct, frozen=True):
    """A look that is under way or done."""

    pts: float
    answer: Future[Sequence[BodyCandidate]]


class CloserLook:
    """Answers of an exact body detector for still pictures, by stream; one look at a time for all of them."""

    def __init__(self, detector: BodyDetector) -> None:
        self._detector = detector
        self._thread = ThreadPoolExecutor(1, "closer_look")
        self._looks: dict[str, _Look] = {}
        self._newest: _Look | None = None

    def is_due(self, stream: str, pts: float) -> bool:
        """Whether this stream has no fresh look and the thread is free."""
        last = self._looks.get(stream)
        fresh = last is not None and 0 <= pts - last.pts < LOOK_AGAIN_S
        return not fresh and (self._newest is None or self._newest.answer.done())

    def begin(self, image: np.ndarray, person: BodyCandidate, stream: str, pts: float) -> None:
        """Look at this person in a still picture, uint8 BGR, which must not be written to any more."""
        answer = self._thread.submit(self._detector.detect, image, person, stream, pts)
        self._newest = self._looks[stream] = _Look(pts, answer)

    def answer(self, stream: str, pts: float) -> Sequence[BodyCandidate]:
        """Who was seen in the look at this still picture, which is waited for; empty when there is none."""
        look = self._looks.get(stream)
        if look is None or not 0 <= pts - look.pts <= BELIEVED_S:
            return []
        return look.answer.result()

    def forget(self, stream: str) -> None:
        """The picture has moved."""
        self._looks.pop(stream, None)

    def describe(self) -> str:
        return self._detector.describe()

    def close(self) -> None:
        """Wait for the look that is under way."""
        self._thread.shutdown()
        self._detector.close()
