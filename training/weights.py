"""What a network was exported from lies beside it, for others to begin with."""

from __future__ import annotations

from pathlib import Path

from engine.errors import UserError
from stages.cards import load_card, model_folder, sha256_of

WEIGHTS_FILE = "weights.pt"
"""In a model folder: the checkpoint from which the model was exported, for others to begin with."""


def weights_file(model: str) -> Path:
    """A file of weights, or those in a model folder, for which a shipped model's name may stand.

    Raises UserError when those in a model folder are missing or others than its card says.
    """
    if not model_folder(model).is_dir():
        return Path(model)
    card, exported = load_card(model)
    file = exported.with_name(WEIGHTS_FILE)
    if not file.is_file():
        raise UserError(f"model {model} has no {WEIGHTS_FILE}; export it anew, or give a file of weights")
    if sha256_of(file) != card.made_with.get("pt_sha256"):
        raise UserError(f"weights {file} do not match the SHA-256 in the model's card; export the model anew")
    return file
