"""What a card says of that which its network has learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from training.data.readers import read_any
from training.notes import read_note
from training.stick.clips import HELD_OUT
from training.weights import WEIGHTS_FILE

UNTOLD = "Not recorded: the run is of an earlier version"
_BEGUN_FILE = "begun.json"


class Begun(msgspec.Struct, frozen=True):
    """What a run began with, kept beside its checkpoints: its card may be written by a later call."""

    init: str = ""
    """Name of the weights to start from, if any."""
    data: str = UNTOLD


def keep_begun(run: Path, begun: Begun) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / _BEGUN_FILE).write_bytes(msgspec.json.encode(begun))


def read_begun(run: Path) -> Begun:
    file = run / _BEGUN_FILE
    if not file.is_file():
        return Begun()
    return read_note(file, Begun, "delete it; the card then does not tell what was learnt from")


def data_text(table: Path | None, clips: Sequence[Path]) -> str:
    """For the card's `data`: whom the table's training pictures show, and which clips are learnt from."""
    parts = []
    if table is not None:
        rows = read_any(table)
        rows = rows.select(rows.splits == "train")
        people = len(np.unique(rows.groups[rows.groups != ""])) or "unnamed"
        if rows.is_rendered():
            parts.append(f"Renders of {people} synthetic people with a stick (training/synth; no real person)")
        else:
            parts.append(f"Pictures of {people} people or recordings")
    if learnt := [clip.name for clip in clips if clip.stem not in HELD_OUT]:
        parts.append(f"Sticks drawn anew into frames of {', '.join(learnt)} (the licences of these clips hold too)")
    return "; ".join(parts)


def name_of(weights: Path) -> str:
    """What a card calls weights; those in a model folder go by its name."""
    return weights.resolve().parent.name if weights.name == WEIGHTS_FILE else weights.name
