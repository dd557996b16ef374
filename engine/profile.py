"""A run as a Chrome trace: what each worker did when, and how long each frame lived; readable in ui.perfetto.dev.

Process 0 holds the frames, from capture to the end of the pipeline; every other process is a worker, and its threads
are the streams. The file is a valid JSON array at any moment, whatever happens to the program.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from engine.packet import Packet, Span

_log = logging.getLogger(__name__)
_END = b"\n]\n"
_FRAMES = 0


class Profile:
    """Writes one complete event for each stage of each packet, and one for each packet."""

    def __init__(self, path: Path, streams: Sequence[str], entry_stages: Sequence[str], fresh: bool) -> None:
        """`entry_stages` are the first of each worker; without `fresh`, go on in the file that a predecessor left."""
        self._threads = {name: number for number, name in enumerate(streams)}
        self._processes = {stage: number for number, stage in enumerate(entry_stages, _FRAMES + 1)}
        self._busy_until_ns: list[int] = []
        self._path = path
        fresh = fresh or not path.exists()
        self._file: FileIO | None = path.open("w+b" if fresh else "r+b", buffering=0)
        self._file.seek(0, 2)
        if fresh:
            names = [_name(_FRAMES, "frames")]
            for stage, number in self._processes.items():
                names.append(_name(number, f"worker of {stage}"))
                names += [_name(number, stream, thread) for stream, thread in self._threads.items()]
            self._write(b"[" + b",\n".join(map(msgspec.json.encode, names)))

    def add(self, packet: Packet, left_ns: int) -> None:
        """The packet leaves the pipeline at `left_ns`."""
        if self._file is None or packet.status in ("end", "source_lost"):
            return
        events = [self._frame(packet, left_ns)]
        process = _FRAMES + 1
        for span in packet.spans:
            process = self._processes.get(span.stage, process)
            events.append(_event(span, process, self._threads[packet.stream], {"sequence": packet.sequence}))
        self._file.seek(-len(_END), 2)
        self._write(b"".join(b",\n" + msgspec.json.encode(event) for event in events))

    def _write(self, events: bytes) -> None:
        """And the end behind them. A full disk must not cost the session."""
        file, start = self._file, self._file.tell() if self._file else 0
        assert file is not None
        try:
            if file.write(events + _END) == len(events) + len(_END):
                return
            reason = "there is no room for it"
        except OSError as error:
            reason = str(error.strerror)
        _log.warning("engine.profile: cannot write %s any more: %s; the run goes on without it", self._path, reason)
        with suppress(OSError):
            file.truncate(start)
            file.seek(start)
            file.write(_END)  # which had its room there before
        file.close()
        self._file = None

    def _frame(self, packet: Packet, left_ns: int) -> dict[str, Any]:
        """Frames overlap, and a thread of a trace can't: each goes to the first that is free."""
        began_ns = min(packet.captured_at_ns, left_ns)
        free = (lane for lane, until_ns in enumerate(self._busy_until_ns) if until_ns <= began_ns)
        lane = next(free, len(self._busy_until_ns))
        self._busy_until_ns[lane : lane + 1] = [left_ns]
        life = Span(f"{packet.stream}:{packet.sequence}", began_ns, left_ns)
        return _event(life, _FRAMES, lane, {"status": packet.status, "reason": packet.reason, "pts": packet.pts})


def _event(span: Span, process: int, thread: int, more: dict[str, Any]) -> dict[str, Any]:
    """A complete event; times in microseconds."""
    times = {"ts": span.entered_ns / 1000, "dur": (span.left_ns - span.entered_ns) / 1000}
    return {"name": span.stage, "ph": "X", **times, "pid": process, "tid": thread, "args": more}


def _name(process: int, name: str, thread: int | None = None) -> dict[str, Any]:
    """The name of a process, or of one of its threads."""
    kind, where = ("process_name", {}) if thread is None else ("thread_name", {"tid": thread})
    return {"name": kind, "ph": "M", "pid": process, **where, "args": {"name": name}}
