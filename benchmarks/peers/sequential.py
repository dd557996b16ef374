"""A plain loop as a tutorial writes it: OpenCV reads, the shipped networks on ONNX Runtime's defaults, one after the
other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.peers.loop import Answer, Answers, Job, StickAndPose, frames_of, load_body
from engine.clock import now_ns
from stages.detect import choose_person
from stages.detectors import BodyCandidate


def answers(job: Job) -> Answers:
    """One for every frame of the clip."""
    return over(frames_of(job.clip))


def over(frames: Iterable[np.ndarray]) -> Answers:
    """The loop itself, over uint8 BGR frames from anywhere."""
    body, rest = load_body(), StickAndPose()
    person: BodyCandidate | None = None
    for image in frames:
        decoded_at_ns = now_ns()
        person = choose_person(body.detect(image, person, "0", 0.0), person)
        yield Answer(decoded_at_ns, rest.name(image, [person] if person else []))
