"""Tables of keypoints with crops, their split by person, and the batches that training draws from them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from engine.errors import UserError
from stages.graph import CROP_SIZE_PX, build_graph, mirror_keypoints
from stages.skeleton import NODE_COUNT
from training.geopose.augment import KeypointFaults, augment_crop, augment_keypoints
from training.geopose.pose_statistics import PoseStatistics

_NO_CROPS = np.zeros((0, CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)


@dataclass(frozen=True)
class PoseTable:
    """Samples in the canonical form (weapon hand on the right)."""

    keypoints: np.ndarray
    """float32 (N, 19, 3): x, y, confidence; missing: confidence 0."""
    labels: np.ndarray
    """int64 (N,)."""
    people: np.ndarray
    """str (N,): who it is; no person may be on two sides of a split."""
    views: np.ndarray
    crops: np.ndarray
    """uint8 RGB (N, 128, 128, 3); black where `crop_present` is 0. (0, 128, 128, 3) when there are none at all."""
    crop_present: np.ndarray
    splits: np.ndarray
    """str (N,): train, val or test as the data set's own table says, or empty."""
    wrong_hand: np.ndarray
    """bool (N,): mirrored by mistake, or not mirrored, because the stick seemed to be in the other hand."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: np.ndarray) -> PoseTable:
        """The samples at the indices or where the mask says."""
        crops = self.crops[chosen] if len(self.crops) else self.crops
        return PoseTable(
            self.keypoints[chosen], self.labels[chosen], self.people[chosen], self.views[chosen], crops,
            self.crop_present[chosen], self.splits[chosen], self.wrong_hand[chosen],
        )  # fmt: skip

    @staticmethod
    def joined(tables: list[PoseTable]) -> PoseTable:
        """One after the other."""
        names = [field.name for field in fields(PoseTable)]
        return PoseTable(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})

    def mirrored(self, chosen: np.ndarray) -> PoseTable:
        """Those where the mask says taken for the other hand: right-handed from left-handed and back."""
        keypoints, crops = self.keypoints.copy(), self.crops.copy()
        keypoints[chosen] = mirror_keypoints(keypoints[chosen])
        if len(crops):
            crops[chosen] = crops[chosen, :, ::-1]
        return replace(self, keypoints=keypoints, crops=crops, wrong_hand=self.wrong_hand ^ chosen)

    def without_crops(self) -> PoseTable:
        """The same samples as the graph alone sees them."""
        return replace(self, crops=self.crops[:0], crop_present=np.zeros(len(self), np.float32))


@dataclass(frozen=True)
class Batch:
    """What one step of training reads; arrays in the order of the network's inputs, then the labels."""

    nodes: np.ndarray
    edges: np.ndarray
    mask: np.ndarray
    crop: np.ndarray
    """Only the samples that have a crop, in order: (crop_present.sum(), 128, 128, 3)."""
    crop_present: np.ndarray
    labels: np.ndarray
    shaft: np.ndarray
    """float32 (B, 3): grip to tip in torsos and 1 where it is known."""


def load_table(table: Path, class_names: tuple[str, ...], crops: Path | None = None) -> PoseTable:
    """Read a table of keypoints (columns label_name, group, view, grip_hand, kp0_x ... kp18_conf; `group` names the
    person) and, with `crops`, the files 00000.npy, ... that hold its hand crops in the same order.

    Left-handers are mirrored. Raises UserError when a file is missing or does not fit.
    """
    if not table.is_file():
        raise UserError(f"table {table} does not exist; make it with `arnis-train see`")
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    missing = {"label_name", "group", "view", "grip_hand", "kp18_conf"} - set(rows[0] if rows else ())
    if missing:
        raise UserError(f"table {table} is empty or lacks the column {sorted(missing)[0]}; make it anew")
    unknown = {row["label_name"] for row in rows} - set(class_names)
    if unknown:
        raise UserError(f"table {table} names the class {sorted(unknown)[0]}, which is not in the class file")
    columns = [f"kp{node}_{part}" for node in range(NODE_COUNT) for part in ("x", "y", "conf")]
    keypoints = np.array([[row[c] or "0" for c in columns] for row in rows], np.float32).reshape(-1, NODE_COUNT, 3)
    left = np.array([row["grip_hand"] == "left" for row in rows])
    keypoints[left] = mirror_keypoints(keypoints[left])
    pictures = _load_crops(crops, len(rows)) if crops else _NO_CROPS
    present = pictures.any((1, 2, 3)) if crops else np.zeros(len(rows), bool)
    return PoseTable(
        keypoints, np.array([class_names.index(row["label_name"]) for row in rows], np.int64),
        np.array([row["group"] for row in rows]), np.array([row["view"] for row in rows]), pictures,
        present.astype(np.float32), np.array([row.get("split", "") for row in rows]),
        left != np.array([row.get("true_hand", row["grip_hand"]) == "left" for row in rows]),
    )  # fmt: skip


def _load_crops(folder: Path, count: int) -> np.ndarray:
    files = sorted(folder.glob("[0-9]*.npy"))
    crops = np.concatenate([np.load(file) for file in files]) if files else np.zeros((0, 1, 1, 3), np.uint8)
    if crops.shape != (count, CROP_SIZE_PX, CROP_SIZE_PX, 3):
        raise UserError(f"{folder} holds {len(crops)} crops for a table of {count} rows; run `arnis-train see` again")
    return crops


def split_table(table: PoseTable, seed: int = 0) -> tuple[PoseTable, PoseTable, PoseTable]:
    """Train, validation and test, by the table's own split (the detectors were trained by it too), else 8 : 1 : 1 of
    the people; samples in which nothing at all was seen are left out."""
    table = table.select((table.keypoints[..., 2] > 0).any(1))
    if (table.splits == "").any():
        names = np.random.default_rng(seed).permutation(np.unique(table.people))
        ends = np.round(np.array([0.8, 0.9]) * len(names)).astype(int)
        masks = [np.isin(table.people, part) for part in np.split(names, ends)]
    else:
        masks = [table.splits == name for name in ("train", "val", "test")]
    return table.select(masks[0]), table.select(masks[1]), table.select(masks[2])


def graphs_with_crops(table: PoseTable, size: int = 256) -> Iterator[Batch]:
    """The table as it is, in order, for measuring."""
    for start in range(0, len(table), size):
        part = table.select(np.arange(start, min(start + size, len(table))))
        crop = part.crops[part.crop_present > 0] if len(part.crops) else part.crops
        yield _batch(part.keypoints, part, crop)


MILD_FAULTS = KeypointFaults(
    rotation_deg=4.0, stretch=0.04, shear=0.03, jitter=0.012, limb_miss=0.01, leg_swap=0.02, stick_rotation_deg=2.0,
    stick_stretch=0.04,
)  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """What one epoch consists of."""

    table: PoseTable | None
    """Rendered people as the detectors see them, each once an epoch."""
    statistics: PoseStatistics | None
    """Source of as many samples without a picture as wanted."""
    drawn: int
    """How many of those an epoch has."""
    exact: PoseTable | None = None
    """Rendered people with their true keypoints, each once an epoch."""
    crop_dropout: float = 0.3
    hand_known: float = 0.6
    """Share of the pictures with a mistaken hand in which it is put right: in a video, votes over time do that."""
    faults: KeypointFaults = KeypointFaults()
    """Of true keypoints."""
    mild_faults: KeypointFaults = MILD_FAULTS
    """Of those in which a detector's faults are already: seen ones, and drawn ones, whose spread holds them."""


def training_batches(mixture: Mixture, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch of augmented batches, seen, exact and drawn samples mixed in the same ratio in each."""
    sources = [(mixture.table, mixture.mild_faults), (mixture.exact, mixture.faults)]
    tables = [(table, faults) for table, faults in sources if table is not None]
    orders = [rng.permutation(len(table)) for table, _ in tables] + [np.arange(mixture.drawn)]
    steps = max(1, round(sum(map(len, orders)) / size))
    for shares in zip(*(np.array_split(order, steps) for order in orders), strict=True):
        parts = [
            _rendered(table.select(share), faults, mixture, rng)
            for (table, faults), share in zip(tables, shares[:-1], strict=True)
        ]
        if mixture.statistics and len(shares[-1]):
            keypoints, labels = mixture.statistics.draw(len(shares[-1]), rng)
            drawn = _pictureless(keypoints, labels)
            parts.append((augment_keypoints(keypoints, rng, mixture.mild_faults), drawn, _NO_CROPS))
        faulty, part_tables, crops = zip(*parts, strict=True)
        yield _batch(np.concatenate(faulty), PoseTable.joined(list(part_tables)), np.concatenate(crops))


def _rendered(
    part: PoseTable, faults: KeypointFaults, mixture: Mixture, rng: np.random.Generator
) -> tuple[np.ndarray, PoseTable, np.ndarray]:
    """Faulty keypoints, the samples without their crops, and the augmented crops of those that keep theirs."""
    part = part.mirrored(part.wrong_hand & (rng.random(len(part)) < mixture.hand_known))
    present = part.crop_present * (rng.random(len(part)) >= mixture.crop_dropout)
    crop = _augmented(part.crops[present > 0], rng) if len(part.crops) else _NO_CROPS
    bare = replace(part, crops=_NO_CROPS, crop_present=present.astype(np.float32))
    return augment_keypoints(part.keypoints, rng, faults), bare, crop


def _augmented(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array([augment_crop(crop, rng) for crop in crops], np.uint8).reshape(crops.shape)


def _pictureless(keypoints: np.ndarray, labels: np.ndarray) -> PoseTable:
    nobody = np.full(len(labels), "")
    absent = np.zeros(len(labels), np.float32)
    return PoseTable(keypoints, labels, nobody, nobody, _NO_CROPS, absent, nobody, absent > 0)


def _batch(keypoints: np.ndarray, table: PoseTable, crop: np.ndarray) -> Batch:
    """The graph of `keypoints`, which may be faulty, and the shaft as `table` knows it."""
    nodes, edges, mask = build_graph(keypoints)
    true_nodes, _, true_mask = build_graph(table.keypoints)
    shaft = np.concatenate([true_nodes[:, 18, 4:6], true_mask[:, 17:].prod(1, keepdims=True)], 1)
    return Batch(nodes, edges, mask, crop, table.crop_present, table.labels, shaft.astype(np.float32))
