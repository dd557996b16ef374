"""A closer look at who holds still: a slower, more exact network beside the pipeline.

A pose is a hold. What is seen of it in passing is good enough to follow somebody, but a hold is judged, and there is
time: only one in six of its frames is detected at all. So the picture of a hold is looked at once more, in a thread of
its own. The quick network goes on looking; where it sees a keypoint stay, the exact place is taken instead of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np

from stages.detectors import SAME_PERSON, BodyCandidate, BodyDetector, overlap
from stages.graph import torso_length

LOOK_AGAIN_S = 2.0
"""From this age on, a look is followed by another."""

BELIEVED_S = 4.0
"""Older looks are not used."""

READY_S = 0.25
"""Age from which a file waits for a look, whatever the machine's speed, so that its results are the same each time."""

STAYED = 0.1
"""Torso lengths by which a keypoint of the quick network may have moved since the look and still count as staying; it
trembles by 0.04."""

log = logging.getLogger(__name__)


class _Look(msgspec.Struct, frozen=True):
    """A look that is under way or done."""

    pts: float
    quick: BodyCandidate
    """The person as the quick network saw them then."""
    answer: Future[Sequence[BodyCandidate]]


class CloserLook:
    """Looks of an exact body detector at still pictures, by stream; one at a time for all of them.

    `make` makes the detector at the first look, so that a start waits for nothing that may never be used.
    """

    def __init__(self, make: Callable[[], BodyDetector]) -> None:
        self._make = make
        self._detector: BodyDetector | None = None
        self._thread = ThreadPoolExecutor(1, "closer_look")
        self._looks: dict[str, list[_Look]] = {}
        self._under_way: Future[Sequence[BodyCandidate]] | None = None
        self._failed = False

    def is_due(self, stream: str, pts: float, wait: bool) -> bool:
        """Whether this stream has no fresh look, none has failed, and the thread is free or `wait`."""
        if self._failed:
            return False
        fresh = any(0 <= pts - look.pts < LOOK_AGAIN_S for look in self._looks.get(stream, []))
        return not fresh and (wait or self._under_way is None or self._under_way.done())

    def begin(self, image: np.ndarray, person: BodyCandidate, quick: BodyCandidate, stream: str, pts: float) -> None:
        """Look at a person in a picture, uint8 BGR, which must not be written to any more; `quick` is the person as the
        quick network last saw them, nothing having moved since."""
        self._under_way = self._thread.submit(self._look, image, person, stream, pts)
        # The one before is used until this one is done.
        self._looks[stream] = [*self._looks.get(stream, [])[-1:], _Look(pts, quick, self._under_way)]

    def _look(self, image: np.ndarray, person: BodyCandidate, stream: str, pts: float) -> Sequence[BodyCandidate]:
        """Runs in the thread."""
        if self._detector is None:
            self._detector = self._make()
        return self._detector.detect(image, person, stream, pts)

    def refine(self, person: BodyCandidate, stream: str, pts: float, wait: bool) -> BodyCandidate:
        """The person whom the quick network sees now, with the exact places of the keypoints that have stayed since the
        look; as given where there was none. `wait` for a look that is due, else only one that is done is used."""
        looks = [look for look in self._looks.get(stream, []) if 0 <= pts - look.pts <= BELIEVED_S]
        usable = [look for look in looks if (pts - look.pts >= READY_S if wait else look.answer.done())]
        if not usable:
            return person
        try:
            found = usable[-1].answer.result()
        except Exception as error:  # whatever it was, the quick network goes on
            self.forget(stream)
            if not self._failed:
                log.warning("the closer look at a hold fails, holds are judged without it: %s", error)
                log.debug("the closer look fails", exc_info=True)
            self._failed = True
            return person
        exact = max(found, key=lambda candidate: overlap(candidate.box, person.box), default=None)
        if exact is None or overlap(exact.box, person.box) < SAME_PERSON:
            return person
        return _merged(person, usable[-1].quick, exact)

    def forget(self, stream: str) -> None:
        """The picture has moved."""
        self._looks.pop(stream, None)

    def describe(self) -> str:
        return self._detector.describe() if self._detector else "not needed yet"

    def close(self) -> None:
        """Wait for the look that is under way."""
        self._thread.shutdown()
        if self._detector is not None:
            self._detector.close()


def _merged(now: BodyCandidate, then: BodyCandidate, exact: BodyCandidate) -> BodyCandidate:
    """`now` with the keypoints of `exact` that did not move from `then`, when `exact` was seen, to `now`."""
    gaps = np.linalg.norm(now.keypoints[:, :2] - then.keypoints[:, :2], axis=1)
    missing = np.isnan(now.keypoints[:, 0]) & np.isnan(then.keypoints[:, 0])
    stayed = missing | (gaps <= STAYED * float(torso_length(now.keypoints)))
    stayed &= ~np.isnan(exact.keypoints[:, 0])
    keypoints = np.where(stayed[:, None], exact.keypoints, now.keypoints)
    return msgspec.structs.replace(now, keypoints=keypoints, score=float(keypoints[:, 2].mean()))
