"""Trials are fair, last longer while other work disturbs, and say when they can't be trusted."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from itertools import chain, cycle, repeat
from pathlib import Path
from threading import Event, Thread

import pytest

from stages.trial import LONGEST_MS, RUNS, WARM_UPS, alone, by_turns, is_steady


class Stopwatch:
    """A clock that only moves when something is run."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.runs = 0

    def __call__(self) -> int:
        return round(self.now_ms * 1e6)

    def way(self, milliseconds: Iterator[float]) -> Callable[[], None]:
        """Something that takes these times, one after the other; the first ones are the warm-ups."""

        def run() -> None:
            self.runs += 1
            self.now_ms += next(milliseconds)

        return run


def test_the_least_disturbed_runs_are_compared() -> None:
    clock = Stopwatch()
    times = chain([70.0, 30.0], cycle([4.0, 4.1, 4.9]))
    trial = by_turns({"a": clock.way(times), "b": clock.way(repeat(5.0))}, clock)
    assert trial.milliseconds == {"a": 4.0, "b": 5.0}
    assert trial.steady
    assert clock.runs == 2 * (WARM_UPS + RUNS)


def test_a_disturbed_trial_goes_on_until_it_is_quiet() -> None:
    clock = Stopwatch()
    times = chain(repeat(9.0, WARM_UPS), [7.0, 4.0, 9.0, 7.0, 9.0, 8.0, 9.0, 7.0, 8.0, 9.0], repeat(3.0))
    trial = by_turns({"a": clock.way(times), "b": clock.way(repeat(5.0))}, clock)
    assert trial.steady
    assert trial.milliseconds["a"] == 3.0
    assert clock.runs > 2 * (WARM_UPS + RUNS)


def test_a_trial_that_stays_disturbed_ends_and_says_so() -> None:
    clock = Stopwatch()
    trial = by_turns({"a": clock.way(cycle([2.0, 9.0, 9.0, 9.0, 9.0])), "b": clock.way(repeat(5.0))}, clock)
    assert not trial.steady
    assert trial.milliseconds == {"a": 2.0, "b": 5.0}
    assert LONGEST_MS < clock.now_ms < LONGEST_MS + 50


@pytest.mark.parametrize(
    ("milliseconds", "steady"),
    [
        ([4.0, 4.1, 4.2, 5.0, 5.0], True),
        ([2.0, 4.0, 4.0, 4.0, 4.0], False),
        ([4.0, 4.0, 4.0, 9.0, 9.0, 9.0, 9.0], False),
    ],
)
def test_one_lucky_run_or_many_disturbed_ones_are_not_steady(milliseconds: list[float], steady: bool) -> None:
    assert is_steady(milliseconds) is steady


def test_trials_wait_for_each_other(tmp_path: Path) -> None:
    entered = Event()

    def other() -> None:
        with alone(tmp_path):
            entered.set()

    thread = Thread(target=other)
    with alone(tmp_path):
        thread.start()
        assert not entered.wait(0.3)
    thread.join()
    assert entered.is_set()


@pytest.mark.skipif(sys.platform == "win32", reason="locks otherwise")
def test_on_a_file_system_without_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited"))
    with alone(tmp_path):
        pass


def test_where_nothing_can_be_locked_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with alone(tmp_path / "file"), alone(tmp_path / "file"):
        pass
