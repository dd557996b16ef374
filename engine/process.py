"""How every worker process begins and ends."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from engine import capture, worker
from engine.control import Failed, SupervisorLine
from engine.errors import UserError
from engine.layout import WorkerSpec
from engine.ring import remove_rings_of
from engine.signals import stopping_signals

_log = logging.getLogger(__name__)
USER_ERROR_EXIT = 2


def main(spec_bytes: bytes, connection: Connection) -> None:
    """Entry point of a spawned process."""
    spec = msgspec.msgpack.decode(spec_bytes, type=WorkerSpec)
    _set_up_signals()
    logging.basicConfig(level=spec.log_level, format=f"%(levelname)s {spec.name}: %(message)s", force=True)
    line = SupervisorLine(connection, spec.engine.heartbeat_s, lambda: _clean_up_after_supervisor(spec))
    try:
        exit_code = _run(spec, line)
    finally:
        if line.orphaned:
            _clean_up_after_supervisor(spec)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or its reader has gone
            stream.flush()
    # Threads of drivers and runtimes must not keep a process from ending whose work is done.
    os._exit(exit_code)


def _run(spec: WorkerSpec, line: SupervisorLine) -> int:
    try:
        (capture if spec.kind == "capture" else worker).run(spec, line)
    except Exception as error:
        _log.debug("the worker fails", exc_info=True)
        line.send(Failed.of(error))
        return USER_ERROR_EXIT if isinstance(error, UserError) else 1
    return 0


def _set_up_signals() -> None:
    """The supervisor alone decides what a signal to the whole process group means."""
    numbers = stopping_signals()
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        # The supervisor spawns with them blocked, so that none arrives before this line.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _clean_up_after_supervisor(spec: WorkerSpec) -> None:
    """Remove what the supervisor would have removed; every orphan tries, the last one succeeds."""
    remove_rings_of(spec.supervisor_pid)
    with suppress(OSError):
        shutil.rmtree(Path(spec.folder))
