"""Which of several ways to do the same is the quickest: by turns, and for longer while other work disturbs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from stages.outputs import try_lock

WARM_UPS = 2
RUNS = 10
LONGEST_MS = 1000.0
"""No further turn begins after so long, however unsteady the trial is."""
AGREEMENT = 1.1
"""So many times the least may the third least of the latest runs take: else the least was luck."""
QUIET = 1.5
"""So many times the least may the median of the latest runs take: else most of them were disturbed."""

LONGEST_WAIT_S = 10.0
"""After so long a trial begins beside another one: that process may hang."""


class Trial(msgspec.Struct, frozen=True):
    """What a trial found."""

    milliseconds: dict[str, float]
    """The least disturbed run of each."""
    steady: bool
    """Whether another trial would say the same; else it is good enough for now, and nothing to be remembered."""


def by_turns(ways: Mapping[str, Callable[[], object]], clock: Callable[[], int] = now_ns) -> Trial:
    """Time the ways by turns, so that a busy moment hits all alike, and compare the least disturbed run of each."""
    for way in WARM_UPS * list(ways.values()):
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    while not _is_enough(times):
        for name, way in ways.items():
            started = clock()
            way()
            times[name].append((clock() - started) / NS_PER_MS)
    steady = all(is_steady(values) for values in times.values())
    return Trial({name: round(min(values), 3) for name, values in times.items()}, steady)


def is_steady(milliseconds: Sequence[float]) -> bool:
    """Whether the latest runs were quiet, so that the least of all is what the work takes when nothing disturbs."""
    least, latest = min(milliseconds), sorted(milliseconds[-RUNS:])
    return latest[2] <= AGREEMENT * least and median(latest) <= QUIET * least


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here: at the first start all workers have trials, and would disturb each other.

    `folder` gets the lock's file; where that can't be, nobody waits.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / "trial.lock").open("ab")
    except OSError:
        yield
        return
    with stream:
        until = now_ns() + int(LONGEST_WAIT_S * NS_PER_S)
        while not try_lock(stream) and now_ns() < until:
            time.sleep(0.02)
        yield


def _is_enough(times: Mapping[str, Sequence[float]]) -> bool:
    runs = list(times.values())
    if len(runs[0]) < RUNS:
        return False
    return all(map(is_steady, runs)) or sum(map(sum, runs)) > LONGEST_MS
