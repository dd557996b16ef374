"""Ultralytics' own loop, `predict(stream=True)`, with a pose and a stick network, then the pose's name.

Weights of YOLO11n-pose can only be fetched by its own downloader, and there are none for the stick; the networks here
have that architecture and random weights. They take the same time and see nothing, so what follows works on a person
who stands still in the middle of the picture.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers.loop import Answer, Answers, Job, PoseNamer
from engine.clock import NS_PER_MS, now_ns
from stages.skeleton import BODY_COUNT, NODE_COUNT

ARCHITECTURE = "yolo11n-pose.yaml"

_XY = [(628, 156), (638, 151), (620, 151), (654, 167), (612, 167), (685, 217), (580, 219), (710, 291), (563, 290),
       (672, 338), (585, 340), (664, 373), (602, 374), (675, 486), (602, 485), (676, 578), (599, 578), (611, 363),
       (778, 324)]  # fmt: skip
STANDING = np.array([(x, y, 0.9) for x, y in _XY], np.float32)
"""(19, 3): body, grip and tip of somebody in a 720p picture."""


def answers(job: Job) -> Answers:
    """One for every frame of the clip; none names a pose that is really there."""
    body, stick, name = random_network(BODY_COUNT), random_network(NODE_COUNT - BODY_COUNT), PoseNamer()
    for people in body.predict(str(job.clip), stream=True, verbose=False):
        # Decoding has no time of its own in a result, but what was done since has.
        decoded_at_ns = now_ns() - int(sum(people.speed.values()) * NS_PER_MS)
        (sticks,) = stick.predict(people.orig_img, verbose=False)
        for found in (people, sticks):
            found.keypoints.data.cpu().numpy()
        name(people.orig_img, STANDING[:BODY_COUNT], STANDING[BODY_COUNT:])
        yield Answer(decoded_at_ns, None)


def random_network(points: int) -> Any:
    """A YOLO with that many keypoints to an instance."""
    os.environ.setdefault("YOLO_OFFLINE", "true")  # or it reports usage to its makers
    yolo: Any = import_module("ultralytics").YOLO(ARCHITECTURE)
    tasks: Any = import_module("ultralytics.nn.tasks")
    yolo.model = tasks.PoseModel(ARCHITECTURE, data_kpt_shape=(points, 3), verbose=False)
    return yolo
