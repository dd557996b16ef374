"""Writes a data set: pictures, ultralytics pose labels, and one table row a picture; by person, resumable."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from stages import skeleton as sk
from stages.classes import ClassFile, load_classes
from training.data.cells import KEYPOINT_COLUMNS, whole_lines
from training.data.table import SPLIT_NAMES
from training.files import whole_file
from training.notes import read_note
from training.processes import end_with_parent, helpers
from training.synth import picture, scene
from training.synth.render import Renderer
from training.synth.skeletons import statistics

log = logging.getLogger(__name__)

Rows = list[list[str]]
"""Of table.csv, all of one person."""
SPLITS = ("train",) * 8 + ("val", "test")
PHOTOS_PER_PROCESS = 150
_AS_BEGUN = "delete this file alone, and repeat the command as it was first given"
TABLE_HEAD = [
    "image_path", "label", "label_name", "group", "view", "width", "height", "grip_hand", "split",
    *KEYPOINT_COLUMNS,
]  # fmt: skip
# COCO's standard deviations of the 17 points; grip and tip are small and sharp.
KEYPOINT_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089, 0.04, 0.03,
)  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What to write: `people` numbered from 0, `per_person` pictures each, from one seed."""

    out: Path
    people: int
    per_person: int
    seed: int
    processes: int
    backgrounds: Path | None
    spread: float = 1.0
    """Share of the statistics' spread that the poses have."""
    size: tuple[int, int] | None = None
    """Width and height of every picture in pixels; None: those of `picture.SIZES`."""


def split_of(person: int) -> str:
    """train, val or test of a person, 8 : 1 : 1, spread evenly over the numbers."""
    return SPLITS[(person * 7 + person // 10) % 10]


def group_of(seed: int, person: int) -> str:
    """The person's name in the table: another seed draws other people, and tables may be joined."""
    return f"s{seed}p{person:04d}"


def labels_of_person(rng: np.random.Generator, count: int, classes: ClassFile) -> list[str]:
    """`count` labels, about a fifth neutral where there is such a class, the poses without repetition as far as they
    go."""
    poses, neutral = classes.poses, classes.neutral
    order = [poses[k] for _ in range(count // len(poses) + 1) for k in rng.permutation(len(poses))]
    return [neutral if rng.random() < picture.NEUTRAL_SHARE and neutral else order.pop() for _ in range(count)]


def drawable_classes() -> ClassFile:
    """The classes of the class file; raises UserError for a pose whose statistics nobody has taken."""
    classes = load_classes()
    for name in classes.poses:
        if name not in statistics():
            raise UserError(f"synthetic people know only the shipped poses, and {name} is none of them; label pictures "
                            "of real people with `arnis-train label`")  # fmt: skip
    return classes


def pose_label(keypoints: NDArray[np.float64], width: int, height: int) -> str:
    """One line of an ultralytics pose label: class 0, box, 19 x (x, y, v), all relative to the picture.

    The box holds the body and the stick; v is 2 seen, 1 hidden, 0 absent or outside (then x = y = 0).
    """
    seen = np.isfinite(keypoints[:, 0])
    points = keypoints[seen, :2]
    margin = 0.03 * np.ptp(points[:, 1])
    crown = 0.06 * np.ptp(points[:, 1])
    low = np.clip(points.min(0) - [margin, margin + crown], 0, [width, height])
    high = np.clip(points.max(0) + margin, 0, [width, height])
    centre, size = (low + high) / 2, high - low
    box = [centre[0] / width, centre[1] / height, size[0] / width, size[1] / height]
    parts = ["0", *(f"{v:.6f}" for v in box)]
    for x, y, v in keypoints:
        present = bool(np.isfinite(x)) and v > 0
        parts += [f"{x / width:.6f}", f"{y / height:.6f}", "2" if v >= 1 else "1"] if present else ["0", "0", "0"]
    return " ".join(parts)


def table_row(name: str, shot: picture.Shot, group: str, person: int, label: int) -> list[str]:
    """One row of table.csv."""
    h, w = shot.picture.shape[:2]
    row = [name, str(label), shot.label_name, group, shot.view, str(w), str(h), shot.grip_hand, split_of(person)]
    return row + keypoint_cells(shot.keypoints)


def keypoint_cells(keypoints: NDArray[np.float64]) -> list[str]:
    """Cells of keypoints (19, 3), empty where one is absent."""
    cells = []
    for x, y, v in keypoints:
        cells += [f"{x:.2f}", f"{y:.2f}", f"{v:.2f}"] if np.isfinite(x) else ["", "", ""]
    return cells


def write_person(
    renderer: Renderer, order: Order, person: int, photos: list[picture.Picture], bystanders: list[picture.Picture]
) -> Rows:
    """Draw and write all pictures of one person; returns the table rows. The same seed gives the same files."""
    classes = drawable_classes()
    rng = np.random.default_rng([order.seed, person])
    performer = picture.make_performer(rng)
    renderer.dress(performer.rest, performer.garment, performer.outfit)
    group = group_of(order.seed, person)
    rows = []
    for k, name in enumerate(labels_of_person(rng, order.per_person, classes)):
        own = np.random.default_rng([order.seed, person, k])
        size = order.size or picture.SIZES[int(own.random() < 0.3)]
        plan = picture.plan_picture(own, performer.rest, name, classes, size, order.spread)
        shot = picture.take_picture(own, renderer, performer, plan, photos, bystanders)
        stem = f"{group}_{k:02d}"
        quality = int(own.integers(40, 95))
        target = order.out / "images" / f"{stem}.jpg"
        if not cv2.imwrite(str(target), shot.picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality]):
            raise UserError(f"cannot write {target}; check the folder and the free space")
        h, w = shot.picture.shape[:2]
        (order.out / "labels" / f"{stem}.txt").write_text(pose_label(shot.keypoints, w, h) + "\n")
        rows.append(table_row(f"images/{stem}.jpg", shot, group, person, classes.names.index(name)))
    return rows


_state: dict[str, object] = {}


def _start_worker(order: Order) -> None:
    cv2.setNumThreads(1)  # there are several processes
    _state["renderer"] = renderer = Renderer()
    _state["bystanders"] = picture.make_bystanders(renderer, order.seed)
    _state["photos"] = scene.load_backgrounds(order.backgrounds, PHOTOS_PER_PROCESS, np.random.default_rng(order.seed))


def _work(order: Order, person: int) -> tuple[int, Rows]:
    if not _state:  # here and not when the process starts, so that what is wrong is told as any other mistake
        _start_worker(order)
    renderer, photos, bystanders = (_state[name] for name in ("renderer", "photos", "bystanders"))
    assert isinstance(renderer, Renderer) and isinstance(photos, list) and isinstance(bystanders, list)
    return person, write_person(renderer, order, person, photos, bystanders)


def finished_people(table: Path, per_person: int) -> set[str]:
    """Groups whose rows are all in the table, which is left, or made, with a head and these rows alone."""
    rows = whole_lines(table)[1:] if table.exists() else []
    count = Counter(r[3] for r in rows)
    done = {g for g, n in count.items() if n >= per_person}
    _rewrite(table, [r for r in rows if r[3] in done])
    return done


def _drawn(order: Order, people: list[int]) -> Iterator[tuple[int, Rows]]:
    if order.processes <= 1:
        _start_worker(order)
        yield from map(partial(_work, order), people)
        return
    left = set(people)
    while left:
        before = len(left)
        try:
            for person, rows in _in_parallel(order, sorted(left)):
                left.discard(person)
                yield person, rows
        except BrokenProcessPool:
            if len(left) == before:
                raise UserError("the processes that draw die at once; say --processes 1 to see why") from None
            log.warning("a process that draws died; %d people are left and go on with new ones", len(left))


def _in_parallel(order: Order, people: list[int]) -> Iterator[tuple[int, Rows]]:
    """People as they are finished. Raises BrokenProcessPool when a process dies, where `Pool` would wait for ever."""
    with helpers(order.processes, end_with_parent) as pool:
        for drawn in as_completed([pool.submit(_work, order, person) for person in people]):
            yield drawn.result()


def write_dataset(order: Order) -> int:
    """Write what is still missing; returns the number of new pictures."""
    drawable_classes()  # before a folder is made
    facts = {"seed": order.seed, "per_person": order.per_person, "spread": order.spread, "size": order.size,
             "backgrounds": order.backgrounds and str(order.backgrounds)}  # fmt: skip
    keep_order(order.out, facts)
    for sub in ("images", "labels"):
        (order.out / sub).mkdir(exist_ok=True)
    _write_yaml(order.out)
    table = order.out / "table.csv"
    pictures = write_people(table, order, partial(_drawn, order), "pictures", 10)
    _sort(table)
    _write_lists(order.out, table)
    return pictures


def write_people(
    table: Path, order: Order, made: Callable[[list[int]], Iterator[tuple[int, Rows]]], what: str, told_every: int
) -> int:
    """Add the rows of those whom the table lacks, as they are made; returns how many. Says after so many people how
    many of `what` there are."""
    done = finished_people(table, order.per_person)
    people = [p for p in range(order.people) if group_of(order.seed, p) not in done]
    log.info("%s of %d people to make, %d are there", what, len(people), len(done))
    started, count = now_ns(), 0
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        for k, (_, rows) in enumerate(made(people), 1):
            writer.writerows(rows)
            file.flush()
            count += len(rows)
            if k % told_every == 0 or k == len(people):
                rate = count * NS_PER_S / (now_ns() - started)
                left = (len(people) - k) * order.per_person / rate / 60
                log.info("%d of %d people, %d %s, %.1f a second, %.0f min left", k, len(people), count, what, rate,
                         left)  # fmt: skip
    return count


def keep_order(out: Path, facts: dict[str, Any]) -> None:
    """Make the folder; raises UserError when it holds what was made otherwise, or by others."""
    file, told = out / "order.json", json.loads(json.dumps(facts))
    out.mkdir(parents=True, exist_ok=True)
    if file.is_file() and (there := read_note(file, dict[str, Any], _AS_BEGUN)) != told:
        if there.get("poses") != told.get("poses"):
            kind = "planned poses" if there.get("poses") else "what was drawn"
            raise UserError(f"{out} holds {kind}; choose another --out")
        changed = ", ".join(f"{name} {there.get(name)}" for name in told | there if there.get(name) != told.get(name))
        raise UserError(f"{out} was begun with {changed}; say the same, or choose another --out")
    if (out / "table.csv").is_file() and not _is_of(facts["seed"], out / "table.csv"):
        raise UserError(f"{out} holds a table.csv that `synth` did not write with this seed; choose another --out")
    with whole_file(file) as part:
        part.write_text(json.dumps(told, indent=1))


def _is_of(seed: int, table: Path) -> bool:
    """Whether all whole lines of a table are of people who are drawn by this seed."""
    try:
        head, *rows = whole_lines(table) or [TABLE_HEAD]
    except (UnicodeDecodeError, csv.Error):
        return False
    known = group_of(seed, 0).rstrip("0")
    return head == TABLE_HEAD and all(len(row) == len(head) and row[3].startswith(known) for row in rows)


def _sort(table: Path) -> None:
    """By picture: processes finish people in any order, and the same seed is to give the same table."""
    _rewrite(table, sorted(whole_lines(table)[1:]))


def _rewrite(table: Path, rows: list[list[str]]) -> None:
    """Hours of drawing are in it."""
    with whole_file(table) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([TABLE_HEAD, *rows])


def _write_yaml(out: Path) -> None:
    flip = ", ".join(str(int(i)) for i in sk.MIRROR)
    sigmas = ", ".join(str(s) for s in KEYPOINT_SIGMAS)
    (out / "data.yaml").write_text(
        f"path: {out.resolve()}\ntrain: train.txt\nval: val.txt\ntest: test.txt\nnames:\n  0: person\n"
        f"kpt_shape: [{sk.NODE_COUNT}, 3]\nflip_idx: [{flip}]\nkpt_oks_sigmas: [{sigmas}]\n"
    )


def _write_lists(out: Path, table: Path) -> None:
    """train.txt, val.txt and test.txt for ultralytics."""
    lists: dict[str, list[str]] = {split: [] for split in SPLIT_NAMES}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            lists[row["split"]].append(f"./{row['image_path']}")
    for split, names in lists.items():
        (out / f"{split}.txt").write_text("\n".join(sorted(names)) + "\n")
