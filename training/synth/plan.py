"""Poses that are planned and not drawn: true keypoints, in a tenth of the time that a picture and a look at it take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from training.processes import end_with_parent, helpers
from training.synth import picture
from training.synth.body import pose_body
from training.synth.rotations import Array
from training.synth.write import (
    Order,
    Rows,
    drawable_classes,
    group_of,
    keep_order,
    keypoint_cells,
    labels_of_person,
    write_people,
)

_SIZE = picture.SIZES[0]
_AT_ONCE = 10
"""People that a process plans before it answers."""


def planned_person(per_person: int, seed: int, spread: float, person: int) -> list[tuple[str, str, Array]]:
    """Label, view and keypoints (19, 3) of each pose of somebody right-handed, every point in sight, in pixels; who has
    the same number in a data set of that seed has the same body there."""
    rng, classes = np.random.default_rng([seed, person]), drawable_classes()
    rest = picture.random_rest(rng)
    poses = []
    for number, label in enumerate(labels_of_person(rng, per_person, classes)):
        own = np.random.default_rng([seed, person, number])
        plan = picture.plan_picture(own, rest, label, classes, _SIZE, spread)
        pixels = plan.camera.project(pose_body(rest, plan.points, plan.wish).keypoints)
        poses.append((label, plan.view, np.column_stack([pixels, np.ones(len(pixels))])))
    return poses


def write_poses(order: Order) -> int:
    """Write `table.csv` of a data set without pictures as far as it is missing; returns the number of new poses. The
    same seed gives the same table."""
    drawable_classes()  # before a folder is made
    keep_order(order.out, {"poses": True, "seed": order.seed, "per_person": order.per_person, "spread": order.spread})
    return write_people(order.out / "table.csv", order, partial(_planned, order), "poses", 500)


def _planned(order: Order, people: list[int]) -> Iterator[tuple[int, Rows]]:
    work = partial(_rows, order)
    if order.processes <= 1:
        yield from map(work, people)
        return
    with helpers(order.processes, end_with_parent) as pool:
        yield from pool.map(work, people, chunksize=_AT_ONCE)


def _rows(order: Order, person: int) -> tuple[int, Rows]:
    """Without a split: nobody is judged by them."""
    names, group, (width, height) = drawable_classes().names, group_of(order.seed, person), _SIZE
    poses = planned_person(order.per_person, order.seed, order.spread, person)
    heads = [["", str(names.index(label)), label, group, view, str(width), str(height)] for label, view, _ in poses]
    return person, [[*head, "right", "", *keypoint_cells(pose[2])] for head, pose in zip(heads, poses, strict=True)]
