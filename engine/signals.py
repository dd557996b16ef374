"""Ctrl-C and SIGTERM as a wish to end in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def stopping_signals() -> list[signal.Signals]:
    """Signals that ask for the end: also the closed terminal, unless (`nohup`) it is to be survived."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


class StopFlag:
    """Set by the first signal; `urgent` by the second."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def wanted(self) -> bool:
        return self.count > 0

    @property
    def urgent(self) -> bool:
        return self.count > 1

    def want(self) -> None:
        """Somebody asks for the end; asking again does not make it urgent."""
        self.count = max(self.count, 1)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn signals into a flag while inside; only the main thread can. Inside of another the flag is the same, so that
    no signal is lost between the two."""
    outer = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    flag = outer if isinstance(outer, StopFlag) else StopFlag()
    if flag is outer or threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before: dict[int, Any] = {number: signal.signal(number, flag._on_signal) for number in stopping_signals()}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold signals back: a process spawned inside starts with them blocked, until it has chosen to ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
