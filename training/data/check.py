"""What is wrong with a table, rule by rule: a rule names the rows that break it and how many of them may.

More rows than a rule tolerates, and the table must not be trained on; fewer are worth a look.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stages.classes import ClassFile
from training.data import anatomy
from training.data.duplicates import Pair, find_duplicates
from training.data.table import FEWEST_PEOPLE, SPLIT_NAMES, Table, is_relative

FEW_EXAMPLES = 20
FEW_GROUPS = 5
"""Five folds by person need so many."""
NEVER, ALWAYS = 0.0, 1.0


@dataclass(frozen=True)
class Finding:
    """What breaks one rule."""

    rule: str
    means: str
    """What is wrong and what to do about it, for people."""
    rows: list[int]
    """Places in the table; empty when it is the table as a whole."""
    details: list[str]
    """A few words to each row, as many as `rows`."""
    severity: Literal["error", "warning"]
    """error: must not be trained on like this."""


def check_table(
    table: Table, classes: ClassFile, hashes: np.ndarray | None = None, need_groups: bool = True
) -> list[Finding]:
    """All findings, errors first; without `hashes` (`duplicates.picture_hashes`) only the keypoints tell copies."""
    found = [
        *_classes(table, classes), *_groups(table, need_groups), *_pictures(table),
        *_copies(table, find_duplicates(table, hashes)), *_keypoints(table, classes),
    ]  # fmt: skip
    return sorted(found, key=lambda finding: finding.severity)


def trainable(findings: Sequence[Finding]) -> bool:
    return all(finding.severity != "error" for finding in findings)


def counts(table: Table, classes: ClassFile) -> dict[str, Any]:
    """Rows by class, view, group, hand and split, and the share without a stick by class and view."""
    missing = anatomy.no_stick(table)
    tally = {name: _tally(getattr(table, name)) for name in ("views", "groups", "hands", "splits")}
    by_class = {name: 0 for name in classes.names} | _tally(table.labels)
    shares = {
        name: {str(key): round(float(missing[values == key].mean()), 4) for key in np.unique(values)}
        for name, values in (("by_class", table.labels), ("by_view", table.views))
    }
    stick = {"missing": int(missing.sum()), **shares, "median_torsos": _median(anatomy.stick_lengths(table))}
    return {"rows": len(table), "classes": by_class, **tally, "stick": stick}


def _tally(values: np.ndarray) -> dict[str, int]:
    keys, numbers = np.unique(values, return_counts=True)
    return {str(key): int(number) for key, number in zip(keys, numbers, strict=True)}


def _median(values: np.ndarray) -> float | None:
    return round(float(np.nanmedian(values)), 3) if np.isfinite(values).any() else None


def _of_rows(
    rule: str, means: str, broken: np.ndarray, tolerated: float, total: int, details: Sequence[str] | None = None
) -> Iterator[Finding]:
    """A finding when any of bool (N,) is True; `details` for all N rows; an error above the tolerated share."""
    rows = np.flatnonzero(broken).tolist()
    if rows:
        severity: Literal["error", "warning"] = "error" if len(rows) > tolerated * total else "warning"
        yield Finding(rule, means, rows, [details[row] if details else "" for row in rows], severity)


def _whole(rule: str, means: str, severity: Literal["error", "warning"] = "warning") -> Finding:
    return Finding(rule, means, [], [], severity)


def _classes(table: Table, classes: ClassFile) -> Iterator[Finding]:
    unknown = ~np.isin(table.labels, classes.names)
    details = [f"{label!r}" for label in table.labels.tolist()]
    means = "is not in the class file; correct the label or give --classes"
    yield from _of_rows("class", means, unknown, NEVER, len(table), details)
    number = _tally(table.labels)
    none = [name for name in classes.names if name not in number]
    if none:
        yield _whole("none", f"no row of {', '.join(none)}: what is never shown is not learnt")
    few = [f"{name} {number[name]}" for name in classes.names if 0 < number.get(name, 0) < FEW_EXAMPLES]
    if few:
        yield _whole("few", f"fewer than {FEW_EXAMPLES} rows of a class teach little of it: {', '.join(few)}")
    if len(set(number) & set(classes.names)) == 1:
        yield _whole("few", "all rows are of one class; there is nothing to tell apart", "error")


def _groups(table: Table, need_groups: bool) -> Iterator[Finding]:
    nobody = table.groups == ""
    means = "no person or recording (column `group`): training and test may share people; name them or use --no-groups"
    yield from _of_rows("group", means, nobody, NEVER if need_groups else ALWAYS, len(table))
    known = np.unique(table.groups[~nobody])
    if 0 < len(known) < FEWEST_PEOPLE and need_groups:
        means = f"{len(known)} people or recordings are too few: `fit` needs {FEWEST_PEOPLE}; picture more people"
        yield _whole("groups", means, "error")
    elif 0 < len(known) < FEW_GROUPS:
        means = f"{len(known)} people or recordings are too few for {FEW_GROUPS} folds by person; picture more people"
        yield _whole("groups", means)
    # An accent is stored as macOS does it, or as others do.
    folded = [re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", group)).casefold() for group in known.tolist()]
    alike = [group for group, name in zip(known.tolist(), folded, strict=True) if folded.count(name) > 1]
    if alike:
        means = "differ only in capitals, spaces or the like: is one person in training and test? Name them alike"
        yield _whole("groups", f"{', '.join(sorted(alike, key=str.casefold))} {means}")
    if len(known) == len(table) > 1:
        yield _whole("groups", "every row has a group of its own; if people are in several, name them by person")
    splits = {group: set(table.splits[table.groups == group]) - {""} for group in known}
    both = np.array([len(splits.get(group, ())) > 1 for group in table.groups.tolist()])
    lacking = [name for name in SPLIT_NAMES if name not in table.splits]
    if lacking and (table.splits != "").all():
        means = f"the column `split` leaves no row for {', '.join(lacking)}; give each some people, or empty it"
        yield _whole("split", means, "error")
    means = "its person is in more than one of train, val and test; keep a person on one side"
    yield from _of_rows("split", means, both, NEVER, len(table), [str(group) for group in table.groups])


def _pictures(table: Table) -> Iterator[Finding]:
    named = table.pictures != ""
    gone = np.array([bool(n) and not table.picture_path(i).is_file() for i, n in enumerate(table.pictures.tolist())])
    if gone[named].all():
        yield _whole("picture", "there are no pictures beside the table: keypoints alone can be trained on and checked")
    else:
        means = "its picture is not there; correct image_path or delete the row"
        yield from _of_rows("picture", means, gone, ALWAYS, len(table), [str(name) for name in table.pictures])
    unknown = is_relative(table.keypoints) & (table.sizes <= 0).any(1)
    means = "coordinates are 0..1 and width and height unknown: bodies are distorted; add the columns"
    yield from _of_rows("size", means, unknown, ALWAYS, len(table))
    means = "a body of a few pixels; correct the coordinates, or width and height, which are the picture's in pixels"
    yield from _of_rows("pixels", means, anatomy.tiny(table), NEVER, len(table))


def _copies(table: Table, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """What two rows of the same picture may not do: be of two people, two classes, or flipped without saying so."""
    kinds: tuple[tuple[str, str, float, Any], ...] = (
        ("leak", "the same picture under two people: it would be in training and test; give both the same group", NEVER,
         lambda a, b, pair: table.groups[a] != table.groups[b]),
        ("contradiction", "the same picture with two classes; delete or correct one", NEVER,
         lambda a, b, pair: table.labels[a] != table.labels[b]),
        ("mirror", "flipped, with the stick still in the same hand; correct true_hand", NEVER,
         lambda a, b, pair: pair.mirrored and table.true_hands[a] == table.true_hands[b] != ""),
        ("copy", "the same picture again; it counts twice", ALWAYS, lambda a, b, pair: b not in told),
    )  # fmt: skip
    told: set[int] = set()
    for rule, means, tolerated, applies in kinds:
        broken, details = np.zeros(len(table), bool), [""] * len(table)
        for pair in pairs:
            if applies(pair.first, pair.second, pair):
                broken[pair.second] = True
                flip = "flipped " if pair.mirrored else ""
                details[pair.second] = f"{flip}copy of {table.called(pair.first)}"
        told.update(np.flatnonzero(broken).tolist())
        yield from _of_rows(rule, means, broken, tolerated, len(table), details)


def _keypoints(table: Table, classes: ClassFile) -> Iterator[Finding]:
    armed = (table.labels != classes.neutral) & ~anatomy.little_body(table)
    lengths = [f"{length:.3f} torsos" for length in anatomy.stick_lengths(table).tolist()]
    rules: tuple[tuple[str, str, np.ndarray, float, Sequence[str] | None], ...] = (
        ("body", "hardly any body is seen; label it, or delete the row", anatomy.little_body(table), 0.2, None),
        ("stick", "grip or tip is missing in a pose; label it where it can be seen",
         anatomy.no_stick(table) & armed, 0.5, None),
        ("sides", "left and right of some points are exchanged; exchange them back",
         anatomy.exchanged_sides(table), 0.05, None),
        ("flipped", "flipped pictures whose points kept their names, unless these people are seen from behind: then "
         "all is well; else exchange left and right, and true_hand", anatomy.flipped(table), 0.1, None),
        ("hand", "the grip is in the other hand than true_hand says, where `label` writes what most pictures of a "
         "person show; correct the grip, or the hand", anatomy.wrong_hand(table), 0.05, None),
        ("ends", "the grip is in no hand or farther from it than the tip; exchange grip and tip, or place them anew",
         anatomy.stick_ends(table), 0.05, None),
        ("long", f"a stick longer than {anatomy.LONGEST_STICK} torsos; place grip and tip anew",
         anatomy.long_stick(table), 0.05, lengths),
        ("outside", "points far outside the picture; correct width and height or the coordinates",
         anatomy.outside(table), 0.05, None),
    )  # fmt: skip
    for rule, means, broken, tolerated, details in rules:
        yield from _of_rows(rule, means, broken, tolerated, len(table), details)
    median, (low, high) = _median(anatomy.stick_lengths(table)), anatomy.USUAL_STICK
    if median is not None and not low <= median <= high:
        yield _whole(
            "length", f"the median stick is {median:.2f} torsos, usual are {low} to {high}; look at grip and tip"
        )
