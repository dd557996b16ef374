"""Checks on files that are going to be written, before work begins."""

from __future__ import annotations

from pathlib import Path

from engine.errors import UserError


def check_writable(path: Path, setting: str) -> None:
    """Raise UserError unless `path` can be written; an existing file stays as it is, a missing one is not left."""
    if path.is_dir():
        raise UserError(f"{setting}: {path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise UserError(f"{setting}: cannot write {path}: there is no folder {path.parent}; make it first")
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise UserError(f"{setting}: cannot write {path}: {error.strerror}; choose another place") from error
    if not existed:
        path.unlink()
