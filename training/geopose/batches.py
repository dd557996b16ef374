"""The batches that training draws from tables and statistics: augmented in the loader, after the split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from engine.errors import UserError
from stages.graph import DIRECTED_EDGES, EDGE_FEATURES, NODE_FEATURES, build_graph, torso_length
from stages.skeleton import GRIP, TIP
from training.geopose.augment import KeypointFaults, augment_crop, augment_keypoints, changed_faults
from training.geopose.data import NO_CROPS, PoseTable, centred
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.seen_errors import SeenErrors
from training.geopose.settings import FitSettings

MILD_FAULTS = KeypointFaults(
    rotation_deg=4.0, stretch=0.04, shear=0.03, jitter=0.012, limb_miss=0.01, leg_swap=0.02, stick_rotation_deg=2.0,
    stick_stretch=0.04,
)  # fmt: skip
_RIGID = EDGE_FEATURES.index("rigid")
_BONE = [NODE_FEATURES.index("bone_x"), NODE_FEATURES.index("bone_y")]


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
    other_labels: np.ndarray
    """int64 (B,): of the sample that was mixed in."""
    share: np.ndarray
    """float32 (B,): how much of the sample is `labels`, the rest is `other_labels`."""


@dataclass(frozen=True)
class Mixture:
    """What one epoch consists of."""

    table: PoseTable | None
    """People as the detectors see them, each once an epoch."""
    statistics: PoseStatistics | None = None
    """Source of as many samples without a picture as wanted."""
    drawn: int = 0
    """How many of those an epoch has."""
    exact: PoseTable | None = None
    """Rendered or planned people with their true keypoints, each once an epoch."""
    truth: np.ndarray | None = None
    """float32 (R, 19, 3): true keypoints by `rows` of `table`. With them, exact samples get the errors that were made
    of those people of `table` who look alike (`SeenErrors`), in place of `faults`."""
    crop_dropout: float = 0.3
    hand_known: float = 0.6
    """Share of the pictures with a mistaken hand in which it is put right: in a video, votes over time do that."""
    crop_faults: bool = True
    """Whether crops are shifted, turned, recoloured and the like."""
    faults: KeypointFaults = KeypointFaults()
    """Of true keypoints."""
    mild_faults: KeypointFaults = MILD_FAULTS
    """Of those in which a detector's faults are already: seen ones, and drawn ones, whose spread holds them."""

    def without_people(self, names: np.ndarray) -> Mixture:
        """With the exact samples of everybody else only."""
        return replace(self, exact=self.exact.without_people(names)) if self.exact is not None else self

    def samples(self, rng: np.random.Generator) -> PoseTable:
        """Everything that an epoch holds, once and without faults or crops, for classifiers that do not augment."""
        tables = [self.table.without_crops()] if self.table is not None else []
        if self.exact is not None:
            exact = self.exact.without_crops()
            tables.append(replace(exact, keypoints=_as_seen(exact, self.errors(), rng)))
        if self.statistics and self.drawn:
            tables.append(self.statistics.table(self.drawn, rng))
        return PoseTable.joined(tables)

    def errors(self) -> SeenErrors | None:
        """Of the people of `table`, where their true keypoints are known."""
        if self.table is None or self.truth is None:
            return None
        return SeenErrors(self.table, self.truth)

    def facts(self) -> dict[str, Any]:
        """For a checkpoint and a report."""
        drawn = self.drawn if self.statistics else 0
        return {
            "samples": len(self.table) if self.table is not None else 0,
            "exact": len(self.exact) if self.exact is not None else 0,
            "as_seen": self.truth is not None,
            "drawn": drawn, "statistics": self.statistics.name if self.statistics and drawn else "",
            "crop_dropout": self.crop_dropout, "hand_known": self.hand_known,
        }  # fmt: skip

    def steps(self, size: int) -> int:
        """Batches of about `size` samples that make an epoch."""
        count = sum(len(table) for table in (self.table, self.exact) if table is not None)
        return max(1, round((count + (self.drawn if self.statistics else 0)) / size))

    def with_faults_of(self, settings: FitSettings) -> Mixture:
        """With the faults that the settings ask for; raises UserError for a fault that there is not."""
        told = changed_faults(settings.without, settings.strengths)
        kinds = {
            "mild": self.mild_faults,
            "full": self.faults,
            "none": replace(MILD_FAULTS, **{field.name: 0.0 for field in fields(KeypointFaults)}),
        }
        if settings.faults not in kinds:
            raise UserError(f"faults={settings.faults} makes no sense; choose {', '.join(kinds)}")
        return replace(
            self, faults=replace(self.faults, **told), mild_faults=replace(kinds[settings.faults], **told),
            crop_faults=settings.crop_faults,
        )  # fmt: skip


def training_batches(
    mixture: Mixture, settings: FitSettings, rng: np.random.Generator, neutral: int | None = None
) -> Iterator[Batch]:
    """One epoch of augmented batches, seen, exact and drawn samples mixed in the same ratio in each.

    `neutral` is the label of hard negatives, of which there are none without it.
    """
    errors = mixture.errors()
    sources = [
        (mixture.table, mixture.mild_faults, None),
        (mixture.exact, mixture.faults if errors is None else mixture.mild_faults, errors),
    ]
    tables = [(table, faults, lent) for table, faults, lent in sources if table is not None]
    orders = [rng.permutation(len(table)) for table, *_ in tables]
    orders.append(np.arange(mixture.drawn if mixture.statistics else 0))
    steps = mixture.steps(settings.batch)
    for shares in zip(*(np.array_split(order, steps) for order in orders), strict=True):
        parts = [
            _pictured(table.select(share), lent, faults, mixture, rng)
            for (table, faults, lent), share in zip(tables, shares[:-1], strict=True)
        ]
        if mixture.statistics and len(shares[-1]):
            drawn = mixture.statistics.table(len(shares[-1]), rng)
            parts.append((augment_keypoints(drawn.keypoints, rng, mixture.mild_faults), drawn, NO_CROPS))
        faulty, part_tables, crops = zip(*parts, strict=True)
        table = PoseTable.joined(list(part_tables))
        yield _altered(np.concatenate(faulty), table, np.concatenate(crops), settings, rng, neutral)


def graphs_with_crops(table: PoseTable, size: int = 256) -> Iterator[Batch]:
    """The table as it is, in order, for measuring."""
    for start in range(0, len(table), size):
        part = table.select(np.arange(start, min(start + size, len(table))))
        crop = part.crops[part.crop_present > 0] if len(part.crops) else part.crops
        yield _batch(part.keypoints, part, crop, part.labels, np.ones(len(part), np.float32))


def _as_seen(part: PoseTable, errors: SeenErrors | None, rng: np.random.Generator) -> np.ndarray:
    """The keypoints as they might be seen; as they are without errors to lend them."""
    return part.keypoints if errors is None else errors.seen(part.keypoints, rng)


def _pictured(
    part: PoseTable, errors: SeenErrors | None, faults: KeypointFaults, mixture: Mixture, rng: np.random.Generator
) -> tuple[np.ndarray, PoseTable, np.ndarray]:
    """Faulty keypoints, the samples without their crops, and the augmented crops of those that keep theirs; the samples
    have their shaft as it is in the crop, which is what it is told from."""
    part = part.mirrored(part.wrong_hand & (rng.random(len(part)) < mixture.hand_known))
    present = part.crop_present * (rng.random(len(part)) >= mixture.crop_dropout)
    faulty = augment_keypoints(_as_seen(part, errors, rng), rng, faults)
    crop = part.crops[present > 0] if len(part.crops) else NO_CROPS
    bare = replace(part, crops=NO_CROPS, crop_present=present.astype(np.float32))
    if mixture.crop_faults and len(crop):
        pictures, turns = zip(*(augment_crop(picture, rng) for picture in crop), strict=True)
        crop, bare = np.array(pictures), replace(bare, keypoints=_turned(bare.keypoints, present > 0, np.array(turns)))
    return faulty, bare, crop


def _turned(keypoints: np.ndarray, chosen: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Keypoints (B, 19, 3) of which those `chosen`, bool (B,), have their shaft multiplied with `turns` (C, 2, 2)."""
    out = keypoints.copy()
    shaft = keypoints[chosen, TIP, :2] - keypoints[chosen, GRIP, :2]
    out[chosen, TIP, :2] = keypoints[chosen, GRIP, :2] + np.einsum("nij,nj->ni", turns, shaft)
    return out


def _altered(
    keypoints: np.ndarray,
    table: PoseTable,
    crop: np.ndarray,
    settings: FitSettings,
    rng: np.random.Generator,
    neutral: int | None,
) -> Batch:
    """The batch after what needs several samples: other people's sticks, mixing, noise on edges."""
    if neutral is not None and settings.hard_negatives > 0:
        keypoints, labels = swap_sticks(keypoints, table.labels, settings.hard_negatives, neutral, rng)
        table = replace(table, labels=labels)
    other_labels, share = table.labels, np.ones(len(table), np.float32)
    if settings.mixup > 0:
        keypoints, partner, share = mix_within_views(keypoints, table.views, settings.mixup, rng)
        other_labels = table.labels[partner]
    batch = _batch(keypoints, table, crop, other_labels, share)
    if settings.edge_noise > 0:
        there = batch.edges.any(-1, keepdims=True)
        noise = rng.normal(0, settings.edge_noise, batch.edges.shape) * there
        noise[..., _RIGID] = 0
        batch = replace(batch, edges=(batch.edges + noise).astype(np.float32))
    return batch


def swap_sticks(
    keypoints: np.ndarray, labels: np.ndarray, share: float, neutral: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (B, 19, 3) and labels (B,) in which a share of the poses hold the shaft of another pose: `neutral`."""
    partner = rng.permutation(len(labels))
    chosen = (rng.random(len(labels)) < share) & (labels != labels[partner])
    whole = (keypoints[:, [GRIP, TIP], 2] > 0).all(1)
    chosen &= (labels != neutral) & whole & whole[partner]
    unit = torso_length(keypoints)
    shaft = (keypoints[:, TIP, :2] - keypoints[:, GRIP, :2]) / np.maximum(unit, 1e-6)[:, None]
    out = keypoints.copy()
    out[chosen, TIP, :2] = out[chosen, GRIP, :2] + (shaft[partner] * unit[:, None])[chosen]
    return out, np.where(chosen, neutral, labels)


def mix_within_views(
    keypoints: np.ndarray, views: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (B, 19, 3) mixed with those of a partner of the same view, the partners (B,) and the own share (B,).

    The own share is at least one half, so that the crop stays that of the sample; a node that the partner lacks is
    left as it is.
    """
    partner = np.arange(len(views))
    for view in np.unique(views):
        members = np.flatnonzero(views == view)
        partner[members] = rng.permutation(members)
    share = rng.beta(alpha, alpha, len(views)).astype(np.float32)
    share = np.maximum(share, 1 - share)
    points, unit = centred(keypoints)
    both = (keypoints[..., 2] > 0) & (keypoints[partner][..., 2] > 0)
    mixed = share[:, None, None] * points + (1 - share)[:, None, None] * points[partner]
    out = keypoints.copy()
    out[..., :2] = np.where(both[..., None], mixed, points) * unit
    return out, partner, share


def _batch(
    keypoints: np.ndarray, table: PoseTable, crop: np.ndarray, other_labels: np.ndarray, share: np.ndarray
) -> Batch:
    """The graph of `keypoints`, which may be faulty, and the shaft as `table` knows it."""
    nodes, edges, mask = build_graph(keypoints)
    true_nodes, _, true_mask = build_graph(table.keypoints)
    shaft = np.concatenate([true_nodes[:, TIP, _BONE], true_mask[:, GRIP:].prod(1, keepdims=True)], 1)
    return Batch(
        nodes, edges, mask, crop, table.crop_present, table.labels, shaft.astype(np.float32), other_labels, share
    )


def droppable_edges() -> np.ndarray:
    """bool (E,): edges of the directed graph between two nodes of the body."""
    ends = np.asarray(DIRECTED_EDGES)
    body: np.ndarray = (ends[:, 0] != ends[:, 1]) & (ends < GRIP).all(1)
    return body
