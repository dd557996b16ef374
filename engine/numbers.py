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


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` on, to `most` where there is one."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or most is not None and value > most:
            wanted = f"{least} or more" if most is None else f"from {least} to {most:,}"
            raise argparse.ArgumentTypeError(f"{text!r} makes no sense; give a whole number, {wanted}")
        return value

    return number


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give one from 0 to 1")
    return value
