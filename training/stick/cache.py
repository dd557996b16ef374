"""The cache of crops: shards of a table's pictures and of real clips, each with what it was made from.

A shard is `train_000.npy` (pictures) and `train_000.npz` (all else). It counts from when the latter is there, which is
written last and at once; a making that was killed before is made again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine.errors import UserError
from stages.skeleton import BODY_COUNT, NODE_COUNT
from training.files import whole_file
from training.stick.data import (
    CACHE_PX,
    Find,
    Row,
    Samples,
    cache_sample,
    is_somebody_else,
    read_picture,
    read_rows,
)

log = logging.getLogger(__name__)


def extend_cache(table: Path | None, cache: Path, split: str, find: Find) -> int:
    """Cache the table's rows of one split that are not cached yet, as a new shard; returns how many were added.

    The network is told of the body that `find` finds, or of the true one where that finds another or none. Raises
    UserError when the cache holds pictures that are not, or not so, in the table's split: they would be learnt from.
    """
    rows = [row for row in read_rows(table) if row.split == split and row.path.is_file()] if table else []
    given = {_source(row): row for row in rows}
    done = made_from(cache, split)
    why = f"not, or no longer so, in split {split} of {table}" if table else "of a table, and --table is not given"
    refuse_others(cache, done, given, why)
    fresh = [row for source, row in given.items() if source not in done]
    if not fresh:
        return 0
    shard, shape = _next_shard(cache, split), (len(fresh), CACHE_PX, CACHE_PX, 3)
    images = np.lib.format.open_memmap(shard, "w+", np.uint8, shape)
    keypoints = np.empty((len(fresh), NODE_COUNT, 3), np.float32)
    bodies = np.empty((len(fresh), BODY_COUNT, 3), np.float32)
    for i, row in enumerate(tqdm(fresh, f"cache {split}", disable=None)):
        image = read_picture(row.path)
        body = find(image, str(row.path))
        if body is None or is_somebody_else(body, row.keypoints):
            body = row.keypoints[:BODY_COUNT]
        images[i], keypoints[i], bodies[i] = cache_sample(image, row.keypoints, body)
    images.flush()
    _finish(shard, keypoints, bodies, [_source(row) for row in fresh])
    log.info("cached %d pictures of split %s", len(fresh), split)
    return len(fresh)


def save_samples(
    cache: Path,
    name: str,
    images: list[np.ndarray],
    keypoints: list[np.ndarray],
    bodies: list[np.ndarray],
    sources: list[str],
) -> None:
    """Write crops as a new shard, with words that tell what they were made from."""
    shard = _next_shard(cache, name)
    np.save(shard, np.stack(images))
    _finish(shard, np.stack(keypoints), np.stack(bodies), sources)


def load_samples(cache: Path, name: str) -> list[Samples]:
    """All shards of a split (`train`, `val`) or of `clips`; the latter are drawable.

    Raises UserError when they are of an earlier version.
    """
    made_from(cache, name)
    shards = []
    for meta in sorted(cache.glob(f"{name}_*.npz")):
        images = np.load(meta.with_suffix(".npy"), mmap_mode="r")
        points = np.load(meta)
        shards.append(Samples(images, points["keypoints"], points["bodies"], drawable=name.startswith("clips")))
    return shards


def made_from(cache: Path, name: str) -> set[str]:
    """The sources of all shards of a name. Raises UserError when they are of an earlier version, which told of none or
    kept smaller crops."""
    sources: set[str] = set()
    for meta in sorted(cache.glob(f"{name}_*.npz")):
        points = np.load(meta)
        size_px = np.load(meta.with_suffix(".npy"), mmap_mode="r").shape[1]
        if "sources" not in points or size_px != CACHE_PX:
            raise UserError(f"cache {cache} is of an earlier version; delete it, it is made anew")
        sources |= set(points["sources"].tolist())
    return sources


def sources_hash(cache: Path) -> str:
    """SHA-256 of what all was made from that is learnt from."""
    sources = sorted(made_from(cache, "train") | made_from(cache, "clips"))
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()


def refuse_others(cache: Path, done: Collection[str], given: Collection[str], why: str) -> None:
    """Raises UserError when something in the cache was made from what is not `given`; `why` says what it is."""
    others = sorted(set(done) - set(given))
    if others:
        what = others[0].rpartition(" ")[0]
        raise UserError(
            f"cache {cache} holds {what}, which is {why}; delete the cache, it is made anew, or choose another --work"
        )


def _source(row: Row) -> str:
    """Picture and a digest of what was learnt of it."""
    facts = row.keypoints.tobytes() + str(row.path.stat().st_size).encode()
    return f"{row.path.resolve()} {hashlib.sha256(facts).hexdigest()[:16]}"


def _next_shard(cache: Path, name: str) -> Path:
    """Where its pictures go."""
    cache.mkdir(parents=True, exist_ok=True)
    return cache / f"{name}_{len(list(cache.glob(f'{name}_*.npz'))):03d}.npy"


def _finish(shard: Path, keypoints: np.ndarray, bodies: np.ndarray, sources: list[str]) -> None:
    # Given a name, NumPy would end it in .npz, and the part would count.
    with whole_file(shard.with_suffix(".npz")) as part, part.open("wb") as stream:
        np.savez(stream, keypoints=keypoints, bodies=bodies, sources=np.array(sources))
