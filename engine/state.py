"""What must outlive any one process of a run: small tables in files that are mapped into memory.

They lie in the run's folder, so that a restarted worker goes on where the dead one stopped, with nothing lost since
the last message. One process writes a row, any may read it.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import UserError

_NAME_BYTES = 64


class SharedTable:
    """Rows of int64, found by name; a new name takes the next free row. One writing process."""

    def __init__(self, path: Path | None, columns: int, rows: int) -> None:
        """`path` None: in this process only. All users of a file must agree on `columns` and `rows`."""
        row_bytes = _NAME_BYTES + 8 * columns
        self._map = _map(path, row_bytes * rows)
        self._kind = np.dtype([("name", f"S{_NAME_BYTES}"), ("values", "<i8", (columns,))])
        self._rows = np.frombuffer(self._map, self._kind, rows)
        self._index: dict[str, int] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """The row's values, int64 (columns,), as a live view; names beyond the last row share the row `other`."""
        if name not in self._index and not self._find(name):
            key = name.encode()[:_NAME_BYTES]
            free = np.flatnonzero(self._rows["name"] == b"")
            if len(free) == 0:
                return np.asarray(self._rows["values"][-1])
            # The last row is kept for the overflow.
            self._rows["name"][free[0]] = key if len(free) > 1 else b"other"
            self._index[name] = int(free[0])
        return np.asarray(self._rows["values"][self._index[name]])

    def names(self) -> list[str]:
        """Names of all rows in use, in the order of their first use."""
        return [bytes(name).decode(errors="replace") for name in self._rows["name"] if name]

    def _find(self, name: str) -> bool:
        found = np.flatnonzero(self._rows["name"] == name.encode()[:_NAME_BYTES])
        if len(found):
            self._index[name] = int(found[0])
        return len(found) > 0


class _Column:
    """One column of a row, as an attribute."""

    def __init__(self, column: int) -> None:
        self._column = column

    def __get__(self, state: StreamState, owner: type[StreamState]) -> int:
        return int(state.row[self._column])

    def __set__(self, state: StreamState, value: int) -> None:
        state.row[self._column] = value


class StreamState:
    """How far one stream is; the last worker writes `finished`, capture the rest."""

    next_sequence = _Column(0)
    """The number that the next packet gets."""
    frames_read = _Column(1)
    """Frames that the source has delivered: what a restarted file skips."""
    _last_pts_ns = _Column(2)
    finished = _Column(3)
    """All packets before this number have left the pipeline."""
    _end_number = _Column(4)
    last_captured_at_ns = _Column(5)
    """When the newest frame was captured."""

    def __init__(self, row: np.ndarray) -> None:
        self.row = row

    @property
    def last_pts(self) -> float:
        """Presentation time of the newest frame in seconds."""
        return self._last_pts_ns / 1e9

    @last_pts.setter
    def last_pts(self, value: float) -> None:
        self._last_pts_ns = round(value * 1e9)

    @property
    def end_sequence(self) -> int | None:
        """The number of the packet that says the stream has ended, once that is decided."""
        return self._end_number - 1 if self._end_number else None

    @end_sequence.setter
    def end_sequence(self, value: int) -> None:
        self._end_number = value + 1


class RunState:
    """The streams' states of a run; the supervisor makes it first, so that no two processes name a row."""

    def __init__(self, folder: Path | None, streams: Sequence[str]) -> None:
        self._table = SharedTable(folder / "streams" if folder else None, columns=6, rows=len(streams) + 1)
        self._states = {name: StreamState(self._table[name]) for name in streams}

    def stream(self, name: str) -> StreamState:
        return self._states[name]

    def frames_read(self) -> dict[str, int]:
        """Frames that each stream's source has delivered."""
        return {name: state.frames_read for name, state in self._states.items()}


def _map(path: Path | None, size: int) -> mmap.mmap:
    if path is None:
        return mmap.mmap(-1, size)
    try:
        with path.open("a+b") as file:
            # Really written: memory that has no place on the disk would end the process at its first use.
            file.write(bytes(max(0, size - file.seek(0, 2))))
            file.flush()
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise cannot_write(path.parent, error) from error


def cannot_write(folder: Path, error: OSError) -> UserError:
    """What to say where the run's folder, or a file in it, cannot be made."""
    return UserError(
        f"cannot write to {folder}: {error.strerror}; make room, or name another folder in TMPDIR, and in "
        "XDG_RUNTIME_DIR where that is set"
    )
