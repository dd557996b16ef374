"""Numbers on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from typing import Any

MOST = 1_000_000
"""Seconds or frames, some ten days of either; `poll` of ZeroMQ takes no more than 25 days."""


def positive(kind: type[int] | type[float]) -> Callable[[str], Any]:
    """An argparse type: a number above 0 and up to `MOST`."""
    wanted = "a whole number" if kind is int else "a number"
    return _number(kind, lambda n: 0 < n <= MOST, f"makes no sense; give {wanted} above 0, at most {MOST:,}")


def at_least(least: int, most: int | None = None) -> Callable[[str], Any]:
    """An argparse type: a whole number from `least` on, to `most` where there is one."""
    wanted = f"{least} or more" if most is None else f"from {least} to {most:,}"
    return _number(
        int, lambda n: n >= least and (most is None or n <= most), f"makes no sense; give a whole number, {wanted}"
    )


def _number(kind: type[int] | type[float], fits: Callable[[float], bool], complaint: str) -> Callable[[str], Any]:
    def number(text: str) -> int | float:
        with suppress(ValueError):
            if fits(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} {complaint}")

    return number


share = _number(float, lambda n: 0 <= n <= 1, "is no share; give one from 0 to 1")
"""An argparse type: a number from 0 to 1."""
