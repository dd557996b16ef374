"""What a card says of the data and of its figures, told from the table that was trained on."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from training.data.table import Table

_RENDER = re.compile(r"images/(s\d+p\d{4,})_\d{2,}\.jpg$")
"""How `training.synth.write` names its pictures; the group is the person."""
_RENDERED_DATA = "Renders of synthetic people, samples of aggregate pose statistics"
_CONFIDENCE = (
    "Confidence is softmax(logits / temperature); temperature and threshold (nine of ten accepted answers right, with "
    "95 % certainty) come from validation people."
)
_HAND = "top1 knows the weapon hand, as votes over a video do."
_TRANSFER = (
    "Real keypoints are measured only, without crops, and flatter: the statistics behind the renders were made from "
    "the same photographs (extra trees on statistics of others lose 6 points)."
)


def is_rendered(table: Table) -> bool:
    """Whether `arnis-train synth` drew every picture of the table."""
    found = (_RENDER.search(name) for name in table.pictures.tolist())
    groups = table.groups.tolist()
    return all(match and match[1] == group for match, group in zip(found, groups, strict=True))


def data_text(table: Table) -> str:
    """For the card's `data`."""
    if is_rendered(table):
        return _RENDERED_DATA
    what = "pictures" if (table.pictures != "").all() else "samples of keypoints"
    people = len(np.unique(table.groups[table.groups != ""]))
    return f"{len(table)} {what} of {people or 'unnamed'} people or recordings, a part kept to validate and to test"


def notes_text(table: Table, source: Path, transfer: bool) -> str:
    """For the card's `notes`; `source` is what was given as --seen or --table, `transfer` whether real keypoints were
    measured too."""
    seen = "seen through the shipped detectors" if source.is_dir() else "as the table has them"
    if is_rendered(table):
        people = f"Test people are rendered and {seen};"
    elif (table.groups != "").all():
        people = f"Test people are in the same table but were not trained on; they are {seen};"
    else:
        people = f"The table names no people: test samples, {seen}, may be of people who were trained on, and flatter;"
    return " ".join([_CONFIDENCE, people, _HAND, *([_TRANSFER] if transfer else [])])
