"""The health record of a running pipeline, and the summary of a finished one; the figures of both are JSON-ready."""

from __future__ import annotations

import os
import platform
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq

from engine.clock import NS_PER_S, now_ns
from engine.meter import Meter, drops, latency_report, rate
from engine.state import RunState

_WINDOW = 5
"""Health speaks of the last five records, about five seconds."""
_PAGE_MB = (os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096) / 1e6


class RunSummary(msgspec.Struct, kw_only=True):
    """Result of `engine.run.run_pipeline`."""

    stats: dict[str, Any]
    """JSON-ready: frames in, results out, drops by reason, FPS, latency overall and by stage, restarts, versions."""
    exit_code: int
    """0: all sources ended or the user stopped the program; 1: the engine gave up, 2: a user's mistake, see `error`."""
    error: str | None = None
    """One sentence when the run was cut short."""

    @classmethod
    def of(cls, stats: dict[str, Any], *, user_error: str | None, failure: str | None) -> RunSummary:
        """`user_error`: what the user can mend, which then says more than the failure."""
        return cls(stats=stats, exit_code=2 if user_error else 1 if failure else 0, error=user_error or failure)


class _Moment(msgspec.Struct):
    at_ns: int
    frames_in: int
    counters: dict[str, int]
    durations: dict[str, np.ndarray]


class Health:
    """Turns what the streams have read and the meter has counted into rates and percentiles of the recent past."""

    def __init__(self, meter: Meter, state: RunState) -> None:
        self._meter = meter
        self._state = state
        self._started_ns = now_ns()
        self._moments: deque[_Moment] = deque([_Moment(self._started_ns, 0, {}, {})], maxlen=_WINDOW + 1)

    def begin(self) -> None:
        """Frames flow from now on: loading models is no part of the rates."""
        self._moments.clear()
        self._moments.append(self._moment())
        self._started_ns = self._moments[0].at_ns

    def record(self, restarts: Mapping[str, int], pids: Mapping[str, int]) -> dict[str, Any]:
        """FPS and latency of the last seconds, losses of the whole run, restarts, memory by worker."""
        moment = self._moment()
        self._moments.append(moment)
        before = self._moments[0]
        elapsed = moment.at_ns - before.at_ns
        recent = {name: _since(row, before.durations.get(name)) for name, row in moment.durations.items()}
        return {
            "uptime_s": round((moment.at_ns - self._started_ns) / NS_PER_S, 1),
            "fps_in": rate(moment.frames_in - before.frames_in, elapsed),
            "fps_out": rate(moment.counters.get("results", 0) - before.counters.get("results", 0), elapsed),
            "frames_in": moment.frames_in,
            "results_out": moment.counters.get("results", 0),
            "dropped": drops(moment.counters),
            **latency_report(recent),
            "restarts": dict(restarts),
            "memory_mb": {name: memory_mb(pid) for name, pid in pids.items()},
        }

    def summary(self, restarts: Mapping[str, int], described: Mapping[str, Any], ended_ns: int) -> dict[str, Any]:
        """The whole run, for `--stats`. `described`: what the stages said of themselves. Frames that were still under
        way when it was cut short are dropped as `unfinished`."""
        counters = self._meter.counters()
        elapsed = ended_ns - self._started_ns
        frames_read = self._state.frames_read()
        frames_in = sum(frames_read.values())
        unfinished = frames_in - counters.get("frames", 0)
        return {
            "frames_in": frames_in,
            "results_out": counters.get("results", 0),
            "dropped": drops(counters) | ({"unfinished": unfinished} if unfinished > 0 else {}),
            "statuses": {k.removeprefix("status:"): n for k, n in counters.items() if k.startswith("status:")},
            "streams": {stream: {"frames_in": n} for stream, n in frames_read.items()},
            "duration_s": round(elapsed / NS_PER_S, 3),
            "fps_in": rate(frames_in, elapsed),
            "fps_out": rate(counters.get("results", 0), elapsed),
            **latency_report(self._meter.durations()),
            "restarts": dict(restarts),
            "stages": dict(described),
            "versions": versions(),
        }

    def _moment(self) -> _Moment:
        frames_in = sum(self._state.frames_read().values())
        return _Moment(now_ns(), frames_in, self._meter.counters(), self._meter.durations())


def versions() -> dict[str, str]:
    """What the engine itself runs on."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "numpy": np.__version__,
        "zeromq": zmq.zmq_version(),
        "pyzmq": zmq.pyzmq_version(),
        "msgspec": msgspec.__version__,
    }


def memory_mb(pid: int) -> float | None:
    """Resident memory in megabytes (shared frames included); None where the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None  # the process has just ended
    return round(pages * _PAGE_MB, 1)


def _since(row: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """The part of a histogram that came after `before`."""
    if before is None:
        return row
    recent = row - before
    recent[-1] = row[-1]
    return np.asarray(recent)
