"""A model folder: one model file and the `card.toml` that says what it is; what differs from its card is not loaded.

A pose classifier of other classes than the shipped ones has them beside its card, in a `classes.toml` of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from engine.errors import UserError
from stages.classes import CLASSES_FILE, ClassFile, load_classes, models_folder
from stages.sessions import TensorSpec

CARD_FILE = "card.toml"
ModelName = Annotated[str, msgspec.Meta(min_length=1)]
"""A shipped model's name or a model folder."""


class CardInput(msgspec.Struct, frozen=True):
    """One input of the network; 0 in `shape` stands for a free dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = ""
    colour: str = ""


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model is, where it comes from and what it was measured to do."""

    task: str
    """body, stick, fused, weapon_hand, measuring_error or pose_classifier."""
    architecture: str
    """Of body and fused: `movenet` or `yolo...`, which says how the answer is read; elsewhere for people."""
    file: str
    sha256: str
    inputs: tuple[CardInput, ...]
    outputs: tuple[str, ...]
    licence: str
    source: str
    data: str
    """What it was trained on."""
    metrics: dict[str, Any] = {}
    threshold: float | None = None
    """Score from which a detection counts or a pose is accepted."""
    temperature: float = 1.0
    """Divides the logits, so that confidence means what it says."""
    classes: tuple[str, ...] = ()
    classes_sha256: str = ""
    notes: str = ""
    made_with: dict[str, str] = {}


def model_folder(model: str | Path) -> Path:
    """The folder itself, or that of a shipped model by its name (`stick_heatmap`); it need not exist."""
    shipped = models_folder() / model
    return shipped if not Path(model).is_dir() and shipped.is_dir() else Path(model)


def load_model_classes(model: str | Path) -> ClassFile:
    """Classes of a pose classifier: those in its folder, or else the shipped ones.

    Raises UserError when they are malformed; `stages.classify.check_card` tells whether they are the model's.
    """
    own = model_folder(model) / CLASSES_FILE
    return load_classes(own if own.is_file() else None)


def load_card(model: str | Path) -> tuple[Card, Path]:
    """Card and verified model file of a folder, or of a shipped model by its name (`stick_heatmap`).

    Raises UserError when the folder, card or file is missing, or the file's SHA-256 differs from the card's.
    """
    folder = model_folder(model)
    path = folder / CARD_FILE
    if not path.is_file():
        raise UserError(
            f"model {model}: no card.toml in {folder.absolute()}; give a shipped model's name or a folder with a card"
        )
    try:
        card = msgspec.toml.decode(path.read_bytes(), type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"model card {path} is not valid: {error}") from None
    file = folder / card.file
    if file.resolve().parent != folder.resolve() or not file.is_file():
        raise UserError(f"model {model}: its card names {card.file}, which is not in {folder}; put the file there")
    if sha256_of(file) != card.sha256:
        raise UserError(f"model file {file} does not match the SHA-256 in {path}; fetch it again or export it anew")
    return card, file


def check_inputs(card: Card, inputs: Sequence[TensorSpec], model: str) -> None:
    """Raises UserError unless the file takes the inputs that its card names."""
    if len(card.inputs) != len(inputs) or not all(map(_is_as_told, inputs, card.inputs)):
        raise UserError(
            f"model {model}: its card says that {card.file} takes {_text(card.inputs)}, but it takes {_text(inputs)}; "
            "correct the card or export it anew"
        )


def sha256_of(file: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_as_told(own: TensorSpec, told: CardInput) -> bool:
    """Whether they are the same; what is free in the file may have any size."""
    same = (own.name, own.dtype.name, len(own.shape)) == (told.name, told.dtype, len(told.shape))
    return same and all(size in (0, said) for size, said in zip(own.shape, told.shape, strict=True))


def _text(inputs: Sequence[TensorSpec | CardInput]) -> str:
    return ", ".join(f"{item.name} {item.dtype} {list(item.shape)}" for item in inputs) or "nothing"
