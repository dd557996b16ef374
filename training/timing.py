"""How long networks take, side by side."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from engine.clock import NS_PER_MS, now_ns

_WARM_UPS = 5

Name = TypeVar("Name", bound=Hashable)


def times_ms(ways: Mapping[Name, Callable[[], object]], runs: int) -> dict[Name, list[float]]:
    """Milliseconds of each of `runs` calls, by turns, so that a busy moment hits all ways alike."""
    times: dict[Name, list[float]] = {name: [] for name in ways}
    for turn in range(_WARM_UPS + runs):
        for name, way in ways.items():
            started = now_ns()
            way()
            if turn >= _WARM_UPS:
                times[name].append((now_ns() - started) / NS_PER_MS)
    return times
