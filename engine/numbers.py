"""Numbers on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MOST = 1_000_000
"""Seconds or frames, some ten days of either; `poll` of ZeroMQ takes no more than 25 days."""


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """An argparse type: a number above 0 and up to `MOST`."""

    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value <= MOST:
            wanted = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} makes no sense; give {wanted} above 0, at most {MOST:,}")
        return value

    return number
