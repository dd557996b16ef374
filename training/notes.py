"""The small JSON files that commands leave beside their work, read again by a later call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.errors import UserError

Note = TypeVar("Note")


def read_note(file: Path, kind: type[Note], mend: str) -> Note:
    """What a file holds. Raises UserError with the mend when it is damaged: a process that is killed leaves half."""
    try:
        # Not by msgspec: figures may be NaN.
        return msgspec.convert(json.loads(file.read_text(encoding="utf-8")), kind)
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); {mend}") from None
