"""Samples as classifiers read them: canonical keypoints with hand crops, and their split by person."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from engine.errors import UserError
from stages.graph import CROP_SIZE_PX, mirror_keypoints, torso_length
from stages.skeleton import GRIP, LEFT_HIP, RIGHT_HIP
from training.data.readers import read_any
from training.data.table import FEWEST_PEOPLE, SPLIT_NAMES, Table, mirrored_views
from training.seen_folder import DETECTORS_FILE, refuse_unfinished

_HIPS = [LEFT_HIP, RIGHT_HIP]
NO_CROPS = np.zeros((0, CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)


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
    """str (N,): from which side the person, in this form, is seen; a left-hander's left is the right here."""
    crops: np.ndarray
    """uint8 RGB (N, 128, 128, 3); black where `crop_present` is 0. (0, 128, 128, 3) when there are none at all."""
    crop_present: np.ndarray
    """float32 (N,): 1 where there is a crop, else 0."""
    splits: np.ndarray
    """str (N,): train, val or test as the data set's own table says, or empty."""
    wrong_hand: np.ndarray
    """bool (N,): mirrored by mistake, or not mirrored, because the stick seemed to be in the other hand."""
    rows: np.ndarray
    """int64 (N,): place in the table that was read; -1 for samples that are of none."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: np.ndarray) -> PoseTable:
        """The samples at the indices or where the mask says."""
        crops = self.crops[chosen] if len(self.crops) else self.crops
        return PoseTable(
            self.keypoints[chosen], self.labels[chosen], self.people[chosen], self.views[chosen], crops,
            self.crop_present[chosen], self.splits[chosen], self.wrong_hand[chosen], self.rows[chosen],
        )  # fmt: skip

    @staticmethod
    def joined(tables: list[PoseTable]) -> PoseTable:
        """One after the other."""
        names = [field.name for field in fields(PoseTable)]
        return PoseTable(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})

    def mirrored(self, chosen: np.ndarray) -> PoseTable:
        """Those where the mask says taken for the other hand: right-handed from left-handed and back.

        A crop goes along if it is of the grip; of who was seen without one it shows what is now the free hand.
        """
        keypoints, crops, present = self.keypoints.copy(), self.crops.copy(), self.crop_present.copy()
        keypoints[chosen] = mirror_keypoints(keypoints[chosen])
        of_wrist = chosen & ~(self.keypoints[:, GRIP, 2] > 0)
        present[of_wrist] = 0
        if len(crops):
            crops[chosen] = crops[chosen, :, ::-1]
            crops[of_wrist] = 0
        return replace(
            self, keypoints=keypoints, crops=crops, crop_present=present, wrong_hand=self.wrong_hand ^ chosen,
            views=mirrored_views(self.views, chosen),
        )  # fmt: skip

    def without_people(self, names: np.ndarray) -> PoseTable:
        """The samples of everybody else."""
        return self.select(~np.isin(self.people, names))

    def without_crops(self) -> PoseTable:
        """The same samples as the graph alone sees them."""
        return replace(self, crops=self.crops[:0], crop_present=np.zeros(len(self), np.float32))


def keypoint_table(keypoints: np.ndarray, labels: np.ndarray) -> PoseTable:
    """Samples of nobody, without crops, from canonical keypoints (N, 19, 3) and labels (N,)."""
    nobody, absent = np.full(len(labels), ""), np.zeros(len(labels), np.float32)
    places = np.full(len(labels), -1)
    return PoseTable(keypoints, labels, nobody, nobody, NO_CROPS, absent, nobody, absent > 0, places)


def read_source(source: Path, class_names: tuple[str, ...]) -> tuple[Table, Path | None]:
    """The table of a folder that `see` wrote, and its crops; or that of a file in any form, and None: labels, unless
    `see` wrote that file too.

    Raises UserError for any other folder: true keypoints are not to be taken for what the detectors saw.
    """
    if not source.exists() and not source.suffix:
        raise UserError(f"folder {source} does not exist; make it with `arnis-train see`")
    if not source.is_dir():
        rows = read_any(source, class_names)
        if not (source.parent / DETECTORS_FILE).is_file():
            return rows.as_held(), None
        refuse_unfinished(source.parent, len(rows))
        return rows, None
    if not (source / "table.csv").is_file() or not (source / "crops").is_dir():
        raise UserError(f"folder {source} is none that `arnis-train see` wrote; let it write one, or give a table file")
    rows = read_any(source / "table.csv", class_names)
    if (source / DETECTORS_FILE).is_file():
        refuse_unfinished(source, len(rows))
    return rows, source / "crops"


def with_hand(rows: Table, hand: str | None) -> Table:
    """The table of people who all hold the stick in `hand`, whatever a detector made of it; as it is without one."""
    return replace(rows, true_hands=np.full(len(rows), hand)) if hand else rows


def pose_table(rows: Table, class_names: tuple[str, ...], crops: Path | None = None) -> PoseTable:
    """The samples of a table, left-handers mirrored, and, with `crops`, the files 00000.npy, ... that hold its hand
    crops in the same order. Raises UserError when these are missing or do not fit."""
    pictures = _load_crops(crops, len(rows)) if crops else NO_CROPS
    present = pictures.any((1, 2, 3)) if crops else np.zeros(len(rows), bool)
    mistaken = (rows.true_hands != "") & (rows.left_handed() != (rows.true_hands == "left"))
    return PoseTable(
        rows.canonical(), rows.label_indices(class_names), rows.groups, rows.canonical_views(), pictures,
        present.astype(np.float32), rows.splits, mistaken, np.arange(len(rows)),
    )  # fmt: skip


def _load_crops(folder: Path, count: int) -> np.ndarray:
    files = sorted(folder.glob("[0-9]*.npy"))
    crops = np.concatenate([np.load(file) for file in files]) if files else np.zeros((0, 1, 1, 3), np.uint8)
    if crops.shape != (count, CROP_SIZE_PX, CROP_SIZE_PX, 3):
        raise UserError(f"{folder} holds {len(crops)} crops for a table of {count} rows; run `arnis-train see` again")
    return crops


def split_table(table: PoseTable) -> tuple[PoseTable, PoseTable, PoseTable]:
    """Train, validation and test, by the table's own split (the detectors were trained by it too), else 8 : 1 : 1 of
    the people, at least one in each; samples in which nothing at all was seen are left out.

    Raises UserError when a part would be empty, or somebody in two.
    """
    table = with_anything_seen(table)
    if (table.splits == "").any():
        names = np.random.default_rng(0).permutation(np.unique(table.people))
        if len(names) < FEWEST_PEOPLE:
            raise UserError(
                f"{len(names)} people or recordings are too few: {FEWEST_PEOPLE} are the least, one to train on, one "
                "to stop and calibrate by, one to test on; picture more people, and name them in the column `group`"
            )
        ends = np.round(np.array([0.8, 0.9]) * len(names)).astype(int)
        # Of fewer than eight, rounding would leave nobody to validate or to test by.
        train_end = min(ends[0], len(names) - 2)
        ends = np.array([train_end, np.clip(ends[1], train_end + 1, len(names) - 1)])
        masks = [np.isin(table.people, part) for part in np.split(names, ends)]
    else:
        masks = [table.splits == name for name in SPLIT_NAMES]
    for name, mask in zip(SPLIT_NAMES, masks, strict=True):
        if not mask.any():
            raise UserError(f"the column `split` leaves no sample for {name}; give each of {', '.join(SPLIT_NAMES)} "
                            "some people, or empty the column (`convert` makes a table of other forms)")  # fmt: skip
    parts = table.select(masks[0]), table.select(masks[1]), table.select(masks[2])
    names, times = np.unique(np.concatenate([np.unique(part.people) for part in parts]), return_counts=True)
    if (twice := names[times > 1]).size:
        raise UserError(f"the column `split` has {twice[0]} in more than one part ({len(twice)} such in all), so it "
                        "would be tested on whom it was trained on; correct the column, or empty it")  # fmt: skip
    return parts


def with_anything_seen(table: PoseTable) -> PoseTable:
    """The samples in which any keypoint was seen."""
    return table.select((table.keypoints[..., 2] > 0).any(1))


def centred(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (B, 19, 2) in torsos from the middle of what is there of the hips, and the torsos (B, 1, 1)."""
    unit = np.maximum(torso_length(keypoints), 1e-6)[:, None, None]
    weights = (keypoints[:, _HIPS, 2:] > 0).astype(np.float32)
    hips = (keypoints[:, _HIPS, :2] * weights).sum(1, keepdims=True) / np.maximum(weights.sum(1, keepdims=True), 1)
    return (keypoints[..., :2] - hips) / unit, unit
