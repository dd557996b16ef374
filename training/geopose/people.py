"""Whom a network has met in training, as its checkpoint says: figures on these people flatter.

A checkpoint is handed on with a model, so it holds no names but their hashes: nobody reads them by chance, though who
tries first names finds them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UserError
from stages.cards import model_folder
from training.geopose.batches import Mixture
from training.geopose.checkpoint import read_checkpoint
from training.geopose.data import PoseTable
from training.geopose.folds import GROUPED, PEOPLE, named
from training.weights import WEIGHTS_FILE

log = logging.getLogger(__name__)

_LISTS = ("trained_on", "stopped_by", "begun_on")


def people_facts(mixture: Mixture, validation: PoseTable, start: Mapping[str, Any]) -> dict[str, Any]:
    """For a checkpoint: whom it is trained on, whom it is stopped by, and whom the weights of the checkpoint `start`
    had met (empty: none), or that these don't say all."""
    tables = [table for table in (mixture.table, mixture.exact) if table is not None]
    trained = {name for table in tables for name in hashed(table.people).values()}
    begun = {name for part in _LISTS for name in start.get(part, ())}
    return {
        "trained_on": sorted(trained), "stopped_by": sorted(hashed(validation.people).values()),
        "begun_on": sorted(begun), "begun_untold": bool(start) and _is_untold(start),
    }  # fmt: skip


def hashed(people: np.ndarray) -> dict[str, str]:
    """What stands for each name (N,) in a checkpoint; nobody's empty name is left out."""
    names = filter(None, np.unique(people).tolist())
    return {name: hashlib.sha256(name.encode()).hexdigest()[:16] for name in names}


def _is_untold(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint does not say of all people that it has met them."""
    return "trained_on" not in state or bool(state.get("begun_untold"))


def refuse_met(state: Mapping[str, Any], file: Path, tested: np.ndarray, calibrated: Iterable[str] = ()) -> None:
    """Raises UserError when a run was trained on one of those it is calibrated by, or has met one of those it is
    tested on; older checkpoints don't say."""
    trained = set(state.get("trained_on", ()))
    met = trained | set(state.get("stopped_by", ()))
    wrong = [name for name, mark in hashed(tested).items() if mark in met]
    wrong += [name for name, mark in hashed(np.array(list(calibrated), str)).items() if mark in trained]
    if wrong:
        raise UserError(
            f"{file} was trained on {wrong[0]}, whom this table keeps to validate or to test ({len(wrong)} in all): "
            "people are drawn anew when a table has changed, and a fold has people of its own; give the table of the "
            "training, and the network of a `fit` without --folds, or train anew"
        )


def groups_with_warning(groups: str, weights: str, tested: np.ndarray) -> str:
    """`groups`, what a test is by, with a warning where certain weights have met the tested people or don't say so.

    `weights` are those that are tested, or with which a training begins: a shipped model's name, a folder or a file.
    """
    names = hashed(named(tested))
    if not names:
        return groups
    file = (model_folder(weights) / WEIGHTS_FILE if model_folder(weights).is_dir() else Path(weights)).resolve()
    state: Mapping[str, Any] = read_checkpoint(file) if file.is_file() else {}
    if not _is_untold(state):
        marks = {mark for part in _LISTS for mark in state[part]}
        met, said = [name for name, mark in names.items() if mark in marks], "have met"
    else:
        met, said = list(names), "do not say whether they have met"
    if not met:
        return groups
    note = f"the weights {weights} {said} {len(met)} of {len(names)}, such as {met[0]}; figures on people met flatter"
    log.warning("%s", note)
    return f"{PEOPLE if groups == GROUPED else groups}; {note}"
