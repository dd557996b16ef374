"""The helper processes of a command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from engine.spawn import safe_path


@contextmanager
def helpers(count: int, start: Callable[..., None], arguments: tuple[Any, ...] = ()) -> Iterator[ProcessPoolExecutor]:
    """Processes that begin with `start`. When the work with them is broken off, they end at once and without a word."""
    with safe_path():
        # A fork of a process that already runs torch's or OpenCV's threads inherits their locks and can hang.
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), start, arguments)
        # A terminal sends Ctrl-C to all; only the command is to answer. They inherit that, also while they start.
        ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            pool.submit(os.getpid)  # starts all
        finally:
            signal.signal(signal.SIGINT, ours)
        with pool:
            try:
                yield pool
            except BaseException:
                for process in multiprocessing.active_children():
                    process.terminate()
                raise


def end_with_parent() -> None:
    """End this process when its parent is gone: the workers of an executor would wait for ever if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
