"""Counts what leaves the pipeline: rates, losses by reason, latency overall and by stage.

Counters and histograms lie in shared tables (`engine.state`): the last worker adds to them with every packet, the
supervisor reads them, and a restart of the last worker loses nothing. Histograms add up, so two of them (of two runs,
or of two moments of one) are merged or subtracted as plain arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from engine.packet import Packet
from engine.state import SharedTable

_LOWEST_NS = 1_000
_STEP = math.log(1.01)
"""Bins grow by 1 %: that is how exact a percentile is."""
_BINS = math.ceil(math.log(1e9) / _STEP)
"""From 1 microsecond to 1000 seconds."""
_MAXIMUM = _BINS
HISTOGRAM_COLUMNS = _BINS + 1
_COUNTER_ROWS = 256
_TOTAL = "total"


class Percentiles(msgspec.Struct, frozen=True):
    """Of one duration, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


def add_duration(row: np.ndarray, duration_ns: int) -> None:
    """Count one duration in a histogram, int64 (bins + 1,): counts by bin, then the longest in nanoseconds."""
    index = int(math.log(max(duration_ns, _LOWEST_NS) / _LOWEST_NS) / _STEP)
    row[min(index, _BINS - 1)] += 1
    row[_MAXIMUM] = max(int(row[_MAXIMUM]), duration_ns)


def percentiles(row: np.ndarray) -> Percentiles | None:
    """Read a histogram; None when it is empty."""
    cumulated = np.cumsum(row[:_BINS])
    count = int(cumulated[-1])
    if count == 0:
        return None
    # A histogram that is a difference still has the longest of the whole run: its highest bin bounds it.
    highest_ns = _LOWEST_NS * math.exp((int(np.flatnonzero(row[:_BINS])[-1]) + 1) * _STEP)
    longest_ms = min(highest_ns, int(row[_MAXIMUM])) / NS_PER_MS

    def at(share: float) -> float:
        index = int(np.searchsorted(cumulated, share * count))
        return round(min(_LOWEST_NS * math.exp((index + 0.5) * _STEP) / NS_PER_MS, longest_ms), 3)

    return Percentiles(count, at(0.5), at(0.95), at(0.99), round(longest_ms, 3))


class Meter:
    """The account of one run. One process counts, others may look."""

    def __init__(
        self, folder: Path | None, stages: int, entry_stages: Iterable[str] = (), warm_up_frames: int = 0
    ) -> None:
        """`folder` None keeps it in this process. Waiting is accounted before `entry_stages`, the first of each worker.
        The first `warm_up_frames` of a stream count, but their latency does not."""
        self._counters = SharedTable(folder / "counters" if folder else None, 1, _COUNTER_ROWS)
        self._durations = SharedTable(folder / "durations" if folder else None, HISTOGRAM_COLUMNS, 2 * stages + 4)
        self.entry_stages = tuple(entry_stages)
        self._warm_up_frames = warm_up_frames

    def count(self, packet: Packet) -> None:
        """A packet leaves the pipeline."""
        if packet.status == "end":
            return
        now = now_ns()
        self._add(f"status:{packet.status}")
        if packet.status == "source_lost":
            return
        self._add("frames")
        if packet.ended:
            self._add(f"dropped:{packet.reason}")
            return
        self._add("results")
        if packet.sequence >= self._warm_up_frames:
            self._add_durations(packet, now)

    def counters(self) -> dict[str, int]:
        """All counters: `frames`, `results`, `dropped:<reason>`, `status:<status>`."""
        return {name: int(self._counters[name][0]) for name in self._counters.names()}

    def durations(self) -> dict[str, np.ndarray]:
        """Copies of the histograms: `total`, `stage:<stage>`, `wait:<stage>`."""
        return {name: self._durations[name].copy() for name in self._durations.names()}

    def _add(self, name: str) -> None:
        self._counters[name][0] += 1

    def _add_durations(self, packet: Packet, now: int) -> None:
        add_duration(self._durations[_TOTAL], now - packet.captured_at_ns)
        left = packet.captured_at_ns
        for span in packet.spans:
            if span.stage in self.entry_stages:
                add_duration(self._durations[f"wait:{span.stage}"], span.entered_ns - left)
            add_duration(self._durations[f"stage:{span.stage}"], span.left_ns - span.entered_ns)
            left = span.left_ns


def latency_report(durations: Mapping[str, np.ndarray]) -> dict[str, object]:
    """JSON-ready percentiles: `latency_ms` overall, `stages_ms` and `waits_ms` by stage."""
    found = {name: percentiles(row) for name, row in durations.items()}
    ready = {name: msgspec.to_builtins(values) for name, values in found.items() if values is not None}

    def group(prefix: str) -> dict[str, object]:
        return {name.removeprefix(prefix): values for name, values in ready.items() if name.startswith(prefix)}

    return {"latency_ms": ready.get(_TOTAL), "stages_ms": group("stage:"), "waits_ms": group("wait:")}


def drops(counters: Mapping[str, int]) -> dict[str, int]:
    """Dropped frames by reason."""
    prefix = "dropped:"
    return {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}


def rate(count: int, duration_ns: int) -> float:
    """Events per second."""
    return round(count * NS_PER_S / duration_ns, 2) if duration_ns > 0 else 0.0
