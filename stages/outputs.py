"""Files that are going to be written: checks before work begins, and what happens to those of an earlier run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from engine.errors import UserError

log = logging.getLogger(__name__)


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
        path.resolve().unlink()  # of a link that leads to nothing yet, not the link


def is_file_to_be(path: Path) -> bool:
    """Whether what is written there can be read again: it is a file, or nothing yet."""
    return path.is_file() or not path.exists()


def check_apart(outputs: Iterable[tuple[str, Path]], sources: Sequence[str]) -> None:
    """Raise UserError where an output, given with its setting, would overwrite a source or another output."""
    taken = {Path(source).resolve(): f"the source {source}" for source in sources if Path(source).is_file()}
    for setting, path in outputs:
        if not is_file_to_be(path):
            continue  # /dev/null and pipes take several
        if path.resolve() in taken:
            raise UserError(f"{setting}: {path} would overwrite {taken[path.resolve()]}; choose another name")
        taken[path.resolve()] = f"what {setting} writes"


def keep_earlier(path: Path, setting: str) -> None:
    """Rename what an earlier run wrote there, and say so: `out.mp4` becomes `out.earlier-1.mp4`.

    Yesterday's lesson can't be had again. What is empty or no file stays; of a link, what it leads to is renamed.
    Raises UserError.
    """
    file = path.resolve()
    if not file.is_file() or not file.stat().st_size:
        return
    names = (file.with_name(f"{file.stem}.earlier-{number}{file.suffix}") for number in count(1))
    kept = next(name for name in names if not name.exists())
    try:
        file.rename(kept)
    except OSError as error:
        message = f"{setting}: the earlier {path} cannot be renamed: {error.strerror}; remove it or choose another name"
        raise UserError(message) from error
    log.warning("%s of an earlier run is now called %s", path, kept.name)
