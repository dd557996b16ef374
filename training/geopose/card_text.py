"""What a card says of the data and of its figures, told from the table that was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.data.table import Table
from training.geopose.folds import GROUPED, UNGROUPED
from training.see import Detectors, read_detectors
from training.seen_folder import DETECTORS_FILE

_CONFIDENCE = "Confidence is softmax(logits / temperature); temperature and threshold come from validation people: "
_CERTAIN = "nine of ten accepted answers are right with 95 % certainty, as if pictures of one person were independent."
_UNCERTAIN = (
    "it could not be shown, from the surest down, that nine of ten accepted answers are right with 95 % certainty, "
    "so the surest threshold was taken; mistrust it."
)
_RAISED = "The threshold was raised from there, for fewer and surer answers."
_HAND = "top1 knows the weapon hand, as votes over a video do; top1_hand_from_one_picture does not."
_TRANSFER = (
    "Real keypoints are measured only, without crops, and flatter: the statistics behind the renders were made from "
    "the same photographs (extra trees on statistics of others lose 6 points)."
)


def data_text(table: Table, mixture: Mapping[str, Any]) -> str:
    """For the card's `data`; `mixture` is what the checkpoint says of it, empty in older ones."""
    what = "pictures" if (table.pictures != "").all() else "samples of keypoints"
    people = len(np.unique(table.groups[table.groups != ""]))
    of = "synthetic people, rendered" if table.is_rendered() else "people or recordings"
    parts = [f"{len(table)} {what} of {people or 'unnamed'} {of}, a part kept to validate and to test"]
    if mixture.get("exact"):
        errors = " with the errors that detectors made of people alike" if mixture.get("as_seen") else ""
        parts.append(f"{mixture['exact']} samples of true keypoints{errors}")
    if mixture.get("drawn"):
        parts.append(f"{mixture['drawn']} samples an epoch drawn from {mixture['statistics']}")
    return "; ".join(parts)


def notes_text(table: Table, source: Path, groups: str, transfer: bool, certain: bool, raised: bool = False) -> str:
    """For the card's `notes`; `source` is what was given as --seen or --table, `groups` what the test is by, `transfer`
    whether real keypoints were measured too, `certain` whether the threshold that the validation people ask for keeps
    its promise, `raised` whether a higher one is used."""
    seen = _eyes(source)
    if table.is_rendered():
        people = f"Test people are rendered and {seen};"
    elif (table.groups == "").all():
        people = f"The table names no people: test samples, {seen}, may be of people who were trained on, and flatter;"
    else:
        people = f"Test people are in the same table but were not trained on; they are {seen};"
    confidence = _CONFIDENCE + (_CERTAIN if certain else _UNCERTAIN) + (f" {_RAISED}" if raised else "")
    doubt = [] if groups in (GROUPED, UNGROUPED) else [f"Tested on {groups}."]
    unseen = 1 - float((table.keypoints[..., 2] > 0).any(1).mean())
    left_out = [f"Pictures in which nobody was seen ({unseen:.1%} of the table) are left out."] if unseen else []
    return " ".join([confidence, people, _HAND, *left_out, *doubt, *([_TRANSFER] if transfer else [])])


def _eyes(source: Path) -> str:
    """Who saw the samples of --seen or --table."""
    file, shipped = source / DETECTORS_FILE, Detectors()
    if not file.is_file():
        return "as the table has them"
    told = read_detectors(file)
    if told.truth:
        return "given with their true keypoints"
    if (told.body, told.stick, told.fused) == (shipped.body, shipped.stick, shipped.fused):
        return "seen through the shipped detectors"
    return f"seen through {told.fused or f'{told.body} and {told.stick}'}"
