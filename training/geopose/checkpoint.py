"""A `best.pt`: the weights of a training, and what they are told by."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from engine.errors import UserError
from training.files import packed, whole_file
from training.geopose.settings import FitSettings

_IDENTITY = ("network", "classes", "settings", "classes_sha256", "start_sha256", "data_sha256")
"""Facts of a training; with any other it is another one."""
_TOLD = ("settings", "mixture", "data_sha256", "start_sha256", "revision", "epoch")
"""Facts that a report tells."""


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What a `best.pt` holds: the facts of `training.geopose.fit.fit`, epoch, loss, finished, weights and, where it was
    calibrated, temperature, threshold and groups; older ones hold less. Raises UserError when there is none or it is
    something else."""
    if not file.is_file():
        folds = (file.parent / "fold0").is_dir()
        mend = (
            "its run only measured by folds: train one with `fit`, without --folds"
            if folds
            else "train them with `arnis-train fit`"
        )
        raise UserError(f"weights {file} do not exist; {mend}")
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
        state = {}
    if not isinstance(state, dict) or not state:
        raise UserError(f"weights {file} cannot be read; give the best.pt of a run of `arnis-train fit`")
    if "weights" not in state:
        raise UserError(f"weights {file} come from an older version of this program; train them anew")
    return state


def write_checkpoint(state: Mapping[str, Any], file: Path) -> None:
    """Write a `best.pt`; one that is there stays until the new one is whole."""
    with whole_file(file) as part:
        part.write_bytes(packed(lambda file: torch.save(dict(state), file)))


def report_facts(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of a training: what it takes to do it again."""
    return {name: state[name] for name in _TOLD if name in state}


def weights_hash(state: Mapping[str, Any]) -> str:
    """SHA-256 over the weights of a checkpoint, whatever else is noted beside them; empty without any."""
    if "weights" not in state:
        return ""
    digest = hashlib.sha256()
    for name, tensor in state["weights"].items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def is_finished(best: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a run is complete; raises UserError when it is another one than these facts tell."""
    if not best.is_file():
        return False
    state = read_checkpoint(best)
    if "start_sha256" not in state:
        raise UserError(f"{best.parent} holds a training by an older version, which did not note all that it learnt "
                        "from; export it as it is, or choose another folder with --run")  # fmt: skip
    # A setting that came later has the default that does what was done before.
    state["settings"] = plain(asdict(FitSettings())) | state["settings"]
    for name in _IDENTITY:
        if state[name] != facts[name]:
            raise UserError(f"{best.parent} holds another training ({_difference(name, state[name], facts[name])}); "
                            "choose another folder with --run, or delete it")  # fmt: skip
    return bool(state["finished"])


def _difference(fact: str, there: Any, asked: Any) -> str:
    if fact == "data_sha256":
        return "other data, or read otherwise by an older version"
    if fact != "settings":
        return f"other {fact.removesuffix('_sha256')}"
    return ", ".join(f"{key} {there[key]}, not {value}" for key, value in asked.items() if there[key] != value)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """For a checkpoint that is loaded without running code, where a tuple would come back as it is."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
