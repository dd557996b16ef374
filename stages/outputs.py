"""Files that are going to be written: checks before work begins, and what happens to those of an earlier run."""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from engine.errors import UserError

log = logging.getLogger(__name__)
_MAY_LOCK = sys.platform != "win32"
"""On Windows an open file can be neither renamed nor removed anyway, and a locked one takes no data."""


def check_writable(path: Path, setting: str) -> None:
    """Raise UserError unless `path` can be written; an existing file stays as it is, a missing one is not left."""
    check_name(path, setting)
    if not path.parent.is_dir():
        raise UserError(f"{setting}: cannot write {path}: there is no folder {path.parent}; make it first")
    existed = path.exists()
    if existed and not path.is_file():  # to open and close a pipe would tell its reader that all is over
        if not os.access(path, os.W_OK):
            raise UserError(f"{setting}: {path} may not be written to; choose another place")
        return
    try:
        path.open("ab").close()
    except OSError as error:
        raise UserError(f"{setting}: cannot write {path}: {error.strerror}; choose another place") from error
    if not existed:
        path.resolve().unlink()  # of a link that leads to nothing yet, not the link


def check_name(path: Path, setting: str) -> None:
    """Raise UserError where the name is a folder's."""
    if path.is_dir():
        raise UserError(f"{setting}: {path} is a folder; give the name of a file")


def is_file_to_be(path: Path) -> bool:
    """Whether what is written there can be read again: it is a file, or nothing yet."""
    return path.is_file() or not path.exists()


def check_apart(outputs: Iterable[tuple[str, Path]], sources: Sequence[str], settings: Path | None) -> None:
    """Raise UserError where an output, given with its setting, would overwrite a source, the settings, or another
    output."""
    files = ((source, _local_path(source)) for source in sources)
    taken = {path.resolve(): f"the source {source}" for source, path in files if path.is_file()}
    if settings is not None:
        taken[settings.resolve()] = "the settings of --config"
    for setting, path in outputs:
        if not is_file_to_be(path):
            continue  # /dev/null and pipes take several
        if path.resolve() in taken:
            raise UserError(f"{setting}: {path} would overwrite {taken[path.resolve()]}; choose another name")
        taken[path.resolve()] = f"what {setting} writes"


def open_lines(path: Path, setting: str) -> BinaryIO:
    """Open to append lines, each one write, so that a killed process has lost none. Raises UserError."""
    if not path.is_fifo():
        return path.open("ab", buffering=0)
    try:  # to wait for a reader would be to wait for ever where none comes
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"{setting}: nobody reads from the pipe {path}; start its reader first") from error
    os.set_blocking(pipe, True)
    return os.fdopen(pipe, "wb", buffering=0)


def takes_more(out: IO[Any], wait_s: float = 0.0) -> bool:
    """Whether what is written now is taken at once: not by a terminal that is held (Ctrl-S) or a pipe that is full."""
    try:
        return sys.platform == "win32" or bool(select.select((), (out,), (), wait_s)[1])
    except (OSError, ValueError):  # no file of the system's: nothing holds it up
        return True


def _local_path(source: str) -> Path:
    """The file that a source names, if it is one."""
    return Path(url2pathname(urlsplit(source).path) if source.lower().startswith("file:") else source)


@contextmanager
def owned(written: Iterable[tuple[str, Path]], made_later: Iterable[tuple[str, Path]]) -> Iterator[None]:
    """Hold the files, given with their settings, into which one run writes, or of which it makes some at its end.

    What an earlier run left there gets another name, what another one still writes is refused. Where nothing was
    written in the end, all is as it was. Raises UserError.
    """
    with ExitStack() as stack:
        for setting, path in written:
            if not is_file_to_be(path):
                continue
            file = path.resolve()  # not before: what /dev/stdout leads to, where that is a pipe, has no name
            _refuse_if_written(setting, path)
            stack.callback(_put_back, file, keep_earlier(path, setting))
            if _MAY_LOCK:
                try_lock(stack.enter_context(file.open("ab")))
        for setting, path in made_later:
            if path.is_file():
                _refuse_if_written(setting, path)
            stack.callback(_put_back, path.resolve(), keep_earlier(path, setting))
        yield


def _refuse_if_written(setting: str, path: Path) -> None:
    with path.open("ab") as probe:
        if _MAY_LOCK and not try_lock(probe):
            raise UserError(f"{setting}: another run is writing {path}; choose another name")


def try_lock(stream: IO[bytes]) -> bool:
    """Lock an open file until it is closed; False where another has done so, True also where files can't be locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # as Linux and macOS say it, and as Windows does
        return False
    except OSError:
        return True
    return True


def keep_earlier(path: Path, setting: str) -> Path | None:
    """Rename what an earlier run wrote there, and say so: `out.mp4` becomes `out.earlier-1.mp4`, which is returned.

    Yesterday's lesson can't be had again. What is empty or no file stays; of a link, what it leads to is renamed.
    Raises UserError.
    """
    file = path.resolve()
    if not file.is_file() or not file.stat().st_size:
        return None
    names = (file.with_name(f"{file.stem}.earlier-{number}{file.suffix}") for number in count(1))
    kept = next(name for name in names if not name.exists())
    try:
        file.rename(kept)
    except OSError as error:
        message = f"{setting}: the earlier {path} cannot be renamed: {error.strerror}; remove it or choose another name"
        raise UserError(message) from error
    log.warning("%s of an earlier run is now called %s", path, kept.name)
    return kept


def _put_back(file: Path, kept: Path | None) -> None:
    """Of a run that wrote nothing."""
    if file.is_file() and not file.stat().st_size:
        file.unlink()
    if kept is not None and not file.exists():
        kept.rename(file)
        log.warning("%s is called %s again, as nothing was written", kept.name, file.name)
