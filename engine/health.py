"""The health record of a running pipeline, and the summary of a finished one; both are plain JSON-ready dicts."""

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

_WINDOW = 5
"""Health speaks of the last five records, about five seconds."""
_PAGE_MB = (os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096) / 1e6


class _Moment(msgspec.Struct):
    at_ns: int
    counters: dict[str, int]
    durations: dict[str, np.ndarray]


class Health:
    """Turns the meter's totals into rates and percentiles of the recent past."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._started_ns = now_ns()
        self._moments: deque[_Moment] = deque([_Moment(self._started_ns, {}, {})], maxlen=_WINDOW + 1)

    def begin(self) -> None:
        """Frames flow from now on: loading models is no part of the rates."""
        self._started_ns = now_ns()
        self._moments.clear()
        self._moments.append(_Moment(self._started_ns, self._meter.counters(), self._meter.durations()))

    def record(self, restarts: Mapping[str, int], pids: Mapping[str, int]) -> dict[str, Any]:
        """FPS and latency of the last seconds, losses of the whole run, restarts, memory by worker."""
        moment = _Moment(now_ns(), self._meter.counters(), self._meter.durations())
        self._moments.append(moment)
        before = self._moments[0]
        elapsed = moment.at_ns - before.at_ns
        recent = {name: _since(row, before.durations.get(name)) for name, row in moment.durations.items()}
        return {
            "uptime_s": round((moment.at_ns - self._started_ns) / NS_PER_S, 1),
            "fps_in": rate(_gain(moment, before, "frames"), elapsed),
            "fps_out": rate(_gain(moment, before, "results"), elapsed),
            "frames_in": moment.counters.get("frames", 0),
            "results_out": moment.counters.get("results", 0),
            "dropped": drops(moment.counters),
            **latency_report(recent),
            "restarts": dict(restarts),
            "memory_mb": {name: memory_mb(pid) for name, pid in pids.items()},
        }

    def summary(self, restarts: Mapping[str, int], described: Mapping[str, Any], ended_ns: int) -> dict[str, Any]:
        """The whole run, for `--stats`. `described`: what the stages said of themselves."""
        counters = self._meter.counters()
        elapsed = ended_ns - self._started_ns
        prefix = "stream:"
        return {
            "frames_in": counters.get("frames", 0),
            "results_out": counters.get("results", 0),
            "dropped": drops(counters),
            "statuses": {k.removeprefix("status:"): n for k, n in counters.items() if k.startswith("status:")},
            "streams": {k.removeprefix(prefix): {"frames_in": n} for k, n in counters.items() if k.startswith(prefix)},
            "duration_s": round(elapsed / NS_PER_S, 3),
            "fps_in": rate(counters.get("frames", 0), elapsed),
            "fps_out": rate(counters.get("results", 0), elapsed),
            **latency_report(self._meter.durations()),
            "restarts": dict(restarts),
            "stages": dict(described),
            "versions": versions(),
        }


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


def _gain(moment: _Moment, before: _Moment, name: str) -> int:
    return moment.counters.get(name, 0) - before.counters.get(name, 0)


def _since(row: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """The part of a histogram that came after `before`."""
    if before is None:
        return row
    recent = row - before
    recent[-1] = row[-1]
    return np.asarray(recent)
