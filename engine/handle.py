"""The supervisor's view of one worker process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import msgspec

from engine import process
from engine.clock import NS_PER_S, now_ns
from engine.control import ToSupervisor, ToWorker, receive, send
from engine.layout import WorkerSpec
from engine.restart import RestartBudget
from engine.signals import signals_blocked
from engine.spawn import safe_path

# Fork would copy sockets, threads and locks in whatever state they are.
_spawn = multiprocessing.get_context("spawn")
_JOIN_S = 5.0


class WorkerHandle:
    """Starts a worker, talks to it, ends it. `ended`: it has done its work; its exit is no failure."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.budget = RestartBudget(spec.engine.restarts, spec.engine.restarts_within_s)
        self.connection: Connection | None = None
        self.ready = False
        self.ended = False
        self.closing = False
        """It has said that it closes: its silence means work."""
        self.closed = False
        """It has closed and given its account."""
        self.restarts = 0
        self.restart_at_ns: int | None = None
        self.last_failure: str | None = None
        self._process: SpawnProcess | None = None
        self._heard_at_ns = 0
        self._resumes = False
        """Whether one before it was ready."""

    @property
    def started(self) -> bool:
        """Whether there is a process, alive or not yet buried."""
        return self._process is not None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def sentinel(self) -> int:
        """Becomes ready for `multiprocessing.connection.wait` when the process ends."""
        assert self._process is not None
        return self._process.sentinel

    def start(self) -> None:
        """Raises OSError where the system has no room for another process or its files."""
        mine, theirs = _spawn.Pipe()
        spec = msgspec.structs.replace(self.spec, restarts=self.restarts, resumes=self._resumes)
        started = _spawn.Process(
            target=process.main, args=(msgspec.msgpack.encode(spec), theirs), name=spec.name, daemon=True
        )
        with theirs:  # the worker has its own copy; with ours open we would not see it close
            try:
                with safe_path():
                    if os.name == "posix":
                        resource_tracker.ensure_running()  # else it starts later, and lets signals through when it has
                    with signals_blocked():
                        started.start()
            except OSError:
                mine.close()
                raise
        self._process, self.connection = started, mine
        self.ready = self.closing = self.closed = False
        self.restart_at_ns = None
        self._heard_at_ns = now_ns()

    def restart(self) -> None:
        self.restarts += 1
        self._resumes |= self.ready
        self.last_failure = None
        self.start()

    def send(self, message: ToWorker) -> None:
        """To a worker that is gone: nothing happens, its end is noticed elsewhere."""
        if self.connection is not None:
            send(self.connection, message)

    def receive(self) -> ToSupervisor | None:
        """What the worker has said, if anything."""
        message = receive(self.connection) if self.connection is not None else None
        if message is not None:
            self._heard_at_ns = now_ns()
        return message

    def silent_for_s(self, now: int) -> float:
        return (now - self._heard_at_ns) / NS_PER_S

    def excuse(self, now: int) -> None:
        """Do not count its silence up to now."""
        self._heard_at_ns = now

    def kill(self) -> None:
        """End it now; it gets no chance to close anything."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_JOIN_S)

    def bury(self) -> str:
        """Release what is left of a process that has ended; returns why it ended, as far as known."""
        assert self._process is not None
        self._process.join(_JOIN_S)
        code = self._process.exitcode
        self._process = None
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self.last_failure is not None:
            return self.last_failure
        if code is not None and code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it ended with exit code {code}"
