"""The entries of `arnis-stream`, also as `python -m stages`, and of `arnis-listen`: Ctrl-C ends both quietly even while
their parts are being imported."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType

INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C has ended."""


def main() -> int:
    """Entry point; exit codes as of `stages.app.main`."""
    return _run("stages.app")


def listen() -> int:
    """Entry point; exit codes as of `stages.listen.main`."""
    return _run("stages.listen")


def _run(module: str) -> int:
    try:
        _open_standard_streams()
        return int(_loaded(module).main())
    except KeyboardInterrupt:
        return INTERRUPTED


def _loaded(module: str) -> ModuleType:
    """The module; where Ctrl-C comes while a library in C loads, its KeyboardInterrupt would become an ImportError."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, in a background job
        return import_module(module)
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        return import_module(module)
    finally:
        signal.signal(signal.SIGINT, before)


def _open_standard_streams() -> None:
    """Where a service has closed them, something else would get their numbers. What is piped is UTF-8, as results are:
    in a code page of Windows the name of a file may have no place."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
