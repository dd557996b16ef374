"""What a part of the benchmark reports: rows of named values, the same for the JSON file, the table and the chart.

Names of columns end in their unit (`p95_ms`, `memory_mb`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from engine.clock import NS_PER_MS

Value = str | int | float | None
Row = dict[str, Value]


class Chart(msgspec.Struct, frozen=True):
    """Which columns are drawn: one bar for each row that has a value."""

    labels: tuple[str, ...]
    """Columns that together name a bar."""
    value: str
    """Column of its length."""
    panels: str = ""
    """Column for each value of which the bars have a panel, and so a scale, of their own; empty: one for all."""


class Part(msgspec.Struct, kw_only=True):
    """One part's figures."""

    name: str
    title: str
    rows: list[Row]
    notes: list[str] = []
    """Ratios and remarks, a sentence each."""
    chart: Chart | None = None
    devices: dict[str, str] = {}
    """Networks, after the row that they belong to, and what they really ran on."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure, and where to put what is needed meanwhile."""

    folder: Path
    """Emptied and removed at the end."""
    say: Callable[[str], None]
    """Tells the user what is being measured."""
    quick: bool = False
    """A short run, to see that all works."""
    long: bool = False
    """Ten minutes of overload."""


def percentiles_ms(durations_ns: Sequence[int]) -> Row:
    """p50, p95, p99 and the longest of some durations in nanoseconds, in milliseconds."""
    values = np.asarray(durations_ns, np.float64) / NS_PER_MS
    p50, p95, p99, longest = np.percentile(values, [50, 95, 99, 100]).tolist()
    return {"p50_ms": round(p50, 3), "p95_ms": round(p95, 3), "p99_ms": round(p99, 3), "max_ms": round(longest, 3)}


def of_row(row: str, devices: Mapping[str, str]) -> dict[str, str]:
    """Networks named after their row: with other processes, or another pace, they may run elsewhere."""
    return {f"{row}, {network}": device for network, device in devices.items()}


def ratio(value: Value, reference: Value, digits: int = 2) -> float | None:
    """`value / reference`, or None when one of them is missing or zero."""
    if not isinstance(value, int | float) or not isinstance(reference, int | float) or not reference:
        return None
    return round(value / reference, digits)


def as_cell(value: Value) -> str:
    """A value as people want to read it: three digits that count."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
