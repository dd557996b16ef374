"""Several tables of the same pictures, or of different ones, into one: corrections over what they correct."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import PurePosixPath
from urllib.parse import unquote

import numpy as np

from stages.skeleton import NODE_COUNT
from training.data.pictures import without_upload_prefix
from training.data.table import Table
from training.data.ultralytics import VISIBILITY, flags_of

_STILL_PX = 0.5
"""Tools for labelling round; who moves a point moves it farther."""


def merged(tables: Sequence[Table]) -> Table:
    """One row a picture, in the order of the last table, then what only earlier ones hold; what the first table knows
    overrules the later ones, but for how sure a point is that nobody moved.

    What a table does not know (`Table.known`) the next one adds: so a body's and a stick's data set complete each
    other, and a stick that was deleted in a corrected table is not put back by the old one. Rows without a picture are
    all kept.
    """
    if len(tables) == 1:
        return tables[0]
    joined = Table.joined([table.in_folder(tables[0].folder) for table in tables])
    source = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    keys = [key or f"row {i}" for i, key in enumerate(chain.from_iterable(picture_keys(tables)))]
    rows: dict[str, list[int]] = {keys[i]: [] for i in np.argsort(-source, kind="stable").tolist()}
    for i, key in enumerate(keys):
        rows[key].append(i)
    return _first_known(joined, list(rows.values()))


def untouched(corrected: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """bool (...): points (..., 3) that are where they were, in COCO's coarse confidence or missing in both."""
    still = np.linalg.norm(corrected[..., :2] - keypoints[..., :2], axis=-1) <= _STILL_PX
    same: np.ndarray = corrected[..., 2] == VISIBILITY[flags_of(keypoints[..., 2])]
    return same & (still | (keypoints[..., 2] <= 0))


def picture_keys(tables: Sequence[Table]) -> list[list[str]]:
    """For each row of each table what is equal for the same picture in all: name and bytes of the file; the name alone
    where it is gone. Empty for a row without a picture.

    The name is without its folder where that is unique in each table: data sets sort their pictures differently. Else a
    name that is the end of just one name in the other tables stands for that: an export may leave out folders. Pictures
    of one name that are said to be of several people are several.
    """
    paths = [[_without_suffix(name) for name in table.pictures.tolist()] for table in tables]
    bare = [[without_upload_prefix(path.name) if path else "" for path in own] for own in paths]
    unique = all(max(Counter(filter(None, own)).values(), default=1) == 1 for own in bare)
    names = bare if unique else _completed(paths)
    files = [[table.picture_path(i) for i in range(len(table))] for table in tables]
    sizes = [
        [str(file.stat().st_size) if name and file.is_file() else "" for name, file in zip(*own, strict=True)]
        for own in zip(names, files, strict=True)
    ]
    known: dict[str, set[str]] = {}
    for name, size in zip(chain(*names), chain(*sizes), strict=True):
        known.setdefault(name, set()).update({size} - {""})
    only = {name: next(iter(found)) for name, found in known.items() if len(found) == 1}
    keys = [
        [f"{name} {size or only.get(name, '')}" if name else "" for name, size in zip(*own, strict=True)]
        for own in zip(names, sizes, strict=True)
    ]
    return _told_apart(keys, tables)


def _told_apart(keys: list[list[str]], tables: Sequence[Table]) -> list[list[str]]:
    """The keys, with the person behind them where files are gone whose names without folders are the same: cameras
    begin again with IMG_0001."""
    paths, people = dict[str, set[str]](), dict[str, set[str]]()
    for table, own in zip(tables, keys, strict=True):
        for key, path, person, guessed in zip(own, table.pictures, table.groups, table.guessed, strict=True):
            paths.setdefault(key, set()).add(str(path))
            people.setdefault(key, set()).update({str(person)} - {""} if not guessed else ())
    several = {key for key in paths if key and len(paths[key]) > 1 and len(people[key]) > 1}
    return [
        [f"{key} {person}" if key in several else key for key, person in zip(own, table.groups, strict=True)]
        for table, own in zip(tables, keys, strict=True)
    ]


def _without_suffix(name: str) -> PurePosixPath | None:
    # Label Studio writes spaces as underscores, leaves out brackets, and quotes what lies in its own folders.
    path = PurePosixPath(re.sub(r"[^-\w./]", "", unquote(name).replace(" ", "_")))
    return path.parent / path.stem if path.name else None


def _completed(paths: Sequence[Sequence[PurePosixPath | None]]) -> list[list[str]]:
    """Names, completed to the one name of another table that ends with them, where there is just one."""
    ends: list[dict[str, set[str]]] = [{} for _ in paths]
    for own, known in zip(paths, ends, strict=True):
        for path in filter(None, own):
            for start in range(len(path.parts)):
                known.setdefault("/".join(path.parts[start:]), set()).add(str(path))
    completed = []
    for place, own in enumerate(paths):
        others = ends[:place] + ends[place + 1 :]
        whole = {path: _whole_name(path, others) for path in filter(None, own)}
        # Two pictures are not one, although both names are the end of the same.
        claims = Counter(whole.values())
        completed.append([(whole[path] if claims[whole[path]] == 1 else str(path)) if path else "" for path in own])
    return completed


def _whole_name(path: PurePosixPath, others: Sequence[dict[str, set[str]]]) -> str:
    for end in (str(path), without_upload_prefix(path.name)):
        found = set[str]().union(*(known.get(end, ()) for known in others))
        if str(path) in found or len(found) > 1:
            return str(path)
        if found and (end == str(path) or end != path.name):
            return found.pop()
    return str(path)


def _first_known(joined: Table, rows: list[list[int]]) -> Table:
    """A row for each list of rows of one picture."""
    firsts, lasts = (np.array([own[place] for own in rows]) for place in (0, -1))
    chosen: dict[str, np.ndarray] = {
        "labels": _first_said(joined.labels, joined.label_guessed, rows),
        "groups": _first_said(joined.groups, joined.guessed, rows),
    }
    for name in ("views", "hands", "true_hands", "splits"):
        texts = getattr(joined, name).tolist()
        chosen[name] = np.array([next((texts[i] for i in own if texts[i]), "") for own in rows], dtype=str)
    there = [next((i for i in own if joined.picture_path(i).is_file()), own[-1]) for own in rows]
    sized = [next((i for i in own if joined.sizes[i].all()), own[0]) for own in rows]
    known = joined.known
    sources = np.array([[next((i for i in own if known[i, k]), own[0]) for k in range(NODE_COUNT)] for own in rows])
    keypoints = joined.keypoints[sources, np.arange(NODE_COUNT)]
    # An export calls every point sure that is visible: of those that nobody moved the table knows how sure they are.
    kept = untouched(keypoints, joined.keypoints[lasts])
    keypoints[kept] = joined.keypoints[lasts][kept]
    out = replace(
        joined.select(firsts), pictures=joined.pictures[there], sizes=joined.sizes[sized], keypoints=keypoints, **chosen
    )
    return out.with_landmarks() if out.landmarks.shape[1] else out


def _first_said(texts: np.ndarray, guessed: np.ndarray, rows: list[list[int]]) -> np.ndarray:
    """str (rows,): the first that is said for a picture, before one that is only guessed from its name: an export
    leaves out folders, and what a table corrects may still stand there."""
    values = texts.tolist()
    said = [[values[i] for i in own if values[i] and not guessed[i]] for own in rows]
    told = [[values[i] for i in reversed(own) if values[i]] for own in rows]
    return np.array([([*first, *second] or [""])[0] for first, second in zip(said, told, strict=True)], dtype=str)
