"""Poses that are planned and not drawn: true keypoints, in a tenth of the time that a picture and a look at it take."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from engine.clock import NS_PER_S, now_ns
from stages.classes import load_classes
from training.data.table import Table, make_table, write_table
from training.processes import end_with_parent, helpers
from training.synth import picture
from training.synth.body import pose_body
from training.synth.rotations import Array
from training.synth.write import drawable_classes, group_of, labels_of_person

log = logging.getLogger(__name__)

_SIZE = picture.SIZES[0]
_AT_ONCE = 10
"""People that a process plans before it answers."""
_SAID_EVERY = 500
"""People."""

Poses = list[tuple[str, str, Array]]
"""Label, view and pixels (19, 2) of each pose of a person."""


def planned_table(people: int, per_person: int, seed: int, processes: int = 1, spread: float = 1.0) -> Table:
    """Poses as a data set of these people would hold them, all right-handed and every point in sight. The same seed
    gives the same table, and whoever has a name in a data set of that seed has the same body there."""
    drawable_classes()  # before anything is planned
    work = partial(_planned_person, per_person, seed, spread)
    if processes <= 1:
        planned = list(map(work, range(people)))
    else:
        with helpers(processes, end_with_parent) as pool:
            planned = list(_told(pool.map(work, range(people), chunksize=_AT_ONCE), people))
    poses = [(group_of(seed, person), *pose) for person, poses in enumerate(planned) for pose in poses]
    groups, labels, views, points = zip(*poses, strict=True)
    keypoints = np.concatenate([np.array(points), np.ones((*np.shape(points)[:2], 1))], 2)
    count = len(labels)
    return make_table(
        Path(), [""] * count, labels, np.full((count, 2), _SIZE), keypoints,
        [f"planned pose {number}" for number in range(count)], groups=groups, views=views, hands=["right"] * count,
    )  # fmt: skip


def write_planned(out: Path, people: int, per_person: int, seed: int, processes: int, spread: float) -> None:
    """`planned_table` as a file."""
    table = planned_table(people, per_person, seed, processes, spread)
    write_table(table, out, load_classes().names)
    log.info("%d poses of %d people are in %s", len(table), people, out)


def _told(planned: Iterable[Poses], people: int) -> Iterator[Poses]:
    """The same, with a word now and then: thousands of people take many minutes."""
    started = now_ns()
    for done, poses in enumerate(planned, 1):
        if done % _SAID_EVERY == 0:
            left_s = (now_ns() - started) / NS_PER_S / done * (people - done)
            log.info("%d of %d people, %.0f min left", done, people, left_s / 60)
        yield poses


def _planned_person(per_person: int, seed: int, spread: float, person: int) -> Poses:
    rng, classes = np.random.default_rng([seed, person]), drawable_classes()
    rest = picture.random_rest(rng)
    poses = []
    for number, label in enumerate(labels_of_person(rng, per_person, classes)):
        own = np.random.default_rng([seed, person, number])
        plan = picture.plan_picture(own, rest, label, classes, _SIZE, spread)
        poses.append((label, plan.view, plan.camera.project(pose_body(rest, plan.points, plan.wish).keypoints)))
    return poses
