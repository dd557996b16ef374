"""Supervision's video loop with the same networks as the plain loop: it brings frames and leaves the rest to us."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.peers import sequential
from benchmarks.peers.loop import Answers, Job


def answers(job: Job) -> Answers:
    """One for every frame of the clip."""
    supervision: Any = import_module("supervision")
    return sequential.over(supervision.get_video_frames_generator(str(job.clip)))
