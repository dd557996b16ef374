"""Packets and pictures to draw on, for the tests of the overlay and of the view."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np

from engine.clock import now_ns
from engine.packet import FrameRef
from engine.stage import Context, FrameOverrun
from stages.packets import ArnisPacket, Cue, Person, Pose, Stick


def standing_person(width: int = 640, height: int = 480) -> Person:
    """A person facing the camera in the middle of the picture; the left ankle was not found."""
    x = np.array([0, 0.02, -0.02, 0.04, -0.04, 0.1, -0.1, 0.14, -0.14, 0.15, -0.15, 0.06, -0.06, 0.06, -0.06, 0, -0.06])
    y = np.array([0.2, 0.18, 0.18, 0.19, 0.19, 0.3, 0.3, 0.45, 0.45, 0.6, 0.6, 0.6, 0.6, 0.77, 0.77, 0, 0.93])
    keypoints = np.stack([(0.5 + x) * width, y * height, np.full(17, 0.9)], axis=1).astype(np.float32)
    keypoints[15] = (math.nan, math.nan, 0.0)
    return Person(track=1, box=(0.3 * width, 0.1 * height, 0.7 * width, 0.98 * height), score=0.9, keypoints=keypoints)


def packet(**changes: Any) -> ArnisPacket:
    """A recognised pose with a stick to the left of the picture and one cue."""
    made = ArnisPacket(
        stream="0", sequence=3, pts=0.1, captured_at_ns=now_ns(), frame=FrameRef("s", 0, 2, 640, 480),
        person=standing_person(),
        stick=Stick(hand="right", grip=(224.0, 288.0, 0.9), tip=(120.0, 250.0, 0.8), detected_tip=(118.0, 270.0)),
        pose=Pose(label="left_eye_thrust", confidence=0.91, accepted=True, family="left_lead", chamber="high",
                  probabilities={"left_eye_thrust": 0.91}),
        feedback=[Cue(quantity="right_elbow_deg", measured=128.0, wanted=(150.0, 175.0), severity=0.6,
                      sentence="Straighten your right elbow.")],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def grey_picture(width: int = 640, height: int = 480) -> np.ndarray:
    return np.full((height, width, 3), 120, np.uint8)


class OneFrame:
    """Frame access to a single picture, or to one that the writer has taken."""

    def __init__(self, picture: np.ndarray, *, overrun: bool = False) -> None:
        self._picture, self._overrun = picture, overrun

    @contextmanager
    def read(self, ref: FrameRef) -> Any:
        yield self._picture
        if self._overrun:
            raise FrameOverrun


def context(picture: np.ndarray, *, overrun: bool = False, streams: tuple[str, ...] = ("0",)) -> Context:
    return Context(streams=list(streams), frames=OneFrame(picture, overrun=overrun),
                   request_stop=lambda: None, health=dict)  # fmt: skip
