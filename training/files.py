"""Files and models that are there whole or not at all, whatever is killed while they are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from engine.errors import UserError
from stages.cards import CARD_FILE
from stages.classes import CLASSES_FILE
from training.weights import WEIGHTS_FILE


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside the file to write to; what is there at the end takes the file's place at once.

    Raises UserError when the name can only be a folder's."""
    if not path.name:
        raise UserError(f"{path} is a folder; give the name of a file")
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def packed(write: Callable[[BinaryIO], object]) -> memoryview:
    """What is written to a file: for writers that do not say why a disk takes no more."""
    buffer = BytesIO()
    write(buffer)
    return buffer.getbuffer()


@contextmanager
def whole_model(folder: Path) -> Iterator[Path]:
    """A folder to write a model to; at the end its files take their places in `folder`, the card last. A model that is
    there already stays until then: one that differs from its card is loaded by nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name in (CLASSES_FILE, WEIGHTS_FILE):  # the new card looks at them: somebody wrote the one, an IR's folder may
        if (folder / name).is_file():  # have the other beside it
            shutil.copy2(folder / name, part)
    try:
        yield part
        for file in sorted(part.iterdir(), key=lambda file: file.name == CARD_FILE):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
