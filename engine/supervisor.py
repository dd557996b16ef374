"""Starts the worker processes, watches them, starts dead ones again, and ends them all in good order.

| what happens                       | what the supervisor does                                                  |
|------------------------------------|---------------------------------------------------------------------------|
| a worker dies                      | tells the captures (they write off its frames), starts it again           |
| a worker is silent for `silent_s`  | ends it, then as above (`starting_s` while it starts, 60 s as it closes)  |
| it fails too often                 | gives up: ends the run with a sentence                                    |
| it dies while the run ends         | says so; exit code 1                                                      |
| a worker reports a user's mistake  | the workers close; raises UserError if no frame has flowed yet            |
| Ctrl-C, SIGTERM, a stage's request | captures stop, what is under way finishes, writers close; all within 3 s  |
| a second signal                    | ends everything at once                                                   |
| all streams have ended             | the workers close                                                         |
| its own death                      | the workers notice, close, and remove what it would have removed          |
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from traceback import clear_frames

from engine.clock import ABSENCE_NS, NS_PER_S, now_ns
from engine.config import Config
from engine.control import (
    Beat,
    Begin,
    Closing,
    Described,
    Failed,
    GrantRing,
    HealthRecord,
    NeedRing,
    Ready,
    Stop,
    StopRequested,
    StreamEnded,
    ToSupervisor,
    WorkerLost,
)
from engine.errors import UserError
from engine.handle import WorkerHandle
from engine.health import Health, RunSummary
from engine.layout import RunFolder, WorkerSpec, count_stages, make_specs, stream_names
from engine.meter import Meter
from engine.ring import FrameRing, sweep_stale_rings
from engine.signals import StopFlag, stop_signals
from engine.state import RunState

_log = logging.getLogger(__name__)
_TICK_S = 0.1
_DRAIN_NS = int(1.8 * NS_PER_S)
_STOP_NS = int(2.8 * NS_PER_S)
_HURRY_NS = NS_PER_S
_CLOSE_NS = 60 * NS_PER_S
"""Where nobody waits for the end: writers may have much to close."""


def run(
    config: Config, sources: Sequence[str], *, duration_s: float | None, max_frames: int | None, log_level: str
) -> RunSummary:
    """See `engine.run.run_pipeline`."""
    sweep_stale_rings()
    folder = RunFolder(config.engine.links)
    try:
        specs = make_specs(config, sources, folder, max_frames, log_level)
        with stop_signals() as stop:
            return Supervisor(config, stream_names(sources), folder, specs, stop, duration_s).run()
    except UserError as error:
        clear_frames(error.__traceback__)  # they hold the tables, and Windows removes no file that is in use
        raise
    finally:
        folder.remove()


class Supervisor:
    """One run of a pipeline of processes."""

    def __init__(
        self,
        config: Config,
        streams: Sequence[str],
        folder: RunFolder,
        specs: Sequence[WorkerSpec],
        stop: StopFlag,
        duration_s: float | None,
    ) -> None:
        self._settings = config.engine
        self._stop = stop
        self._duration_ns = None if duration_s is None else int(duration_s * NS_PER_S)
        self._state = RunState(folder.path, streams)
        meter = Meter(folder.path, count_stages(config))
        self._health = Health(meter, self._state)
        self._health_at_ns = 0
        self._handles = [WorkerHandle(spec) for spec in specs]
        self._rings: dict[str, FrameRing] = {}
        """The ring that each stream's capture writes to."""
        self._old_rings: list[tuple[FrameRing, int]] = []
        """Replaced ones, whose frames before that sequence may still be asked for."""
        self._described: dict[str, dict[str, str]] = {}
        self._begun_at_ns: int | None = None
        self._stopped_at_ns: int | None = None
        self._closing_until_ns: int | None = None
        self._wanted_at_ns = 0
        """When somebody asked for the end of a run that was closing already; 0: nobody."""
        self._ended_at_ns = 0
        self._watched_at_ns = 0
        self._user_error: str | None = None
        self._failure: str | None = None

    def run(self) -> RunSummary:
        """Blocks until the end. Raises UserError for a mistake that is found before frames flow."""
        with self._released_at_the_end():
            self._start_all()
            while self._closing_until_ns is None or any(handle.started for handle in self._handles):
                self._wait()
                self._watch()
                self._remove_old_rings()
                self._direct()
        if self._user_error is not None and self._begun_at_ns is None:
            raise UserError(self._user_error)
        stats = self._health.summary(self._restarts(), self._described, self._ended_at_ns)
        return RunSummary.of(stats, user_error=self._user_error, failure=self._failure)

    def _start_all(self) -> None:
        for handle in self._handles:
            try:
                handle.start()
            except OSError as error:
                raise UserError(
                    f"process {handle.spec.name} cannot be started: {error.strerror}; raise what the system allows "
                    "(ulimit -n, ulimit -u), or give fewer sources, or --workers 1"
                ) from error

    @property
    def _captures(self) -> list[WorkerHandle]:
        return [handle for handle in self._handles if handle.spec.kind == "capture"]

    @contextmanager
    def _released_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            for handle in self._handles:
                handle.kill()
            for ring in [*self._rings.values(), *(ring for ring, _ in self._old_rings)]:
                ring.close(unlink=True)

    def _wait(self) -> None:
        """Sleep until a worker says something or dies, or the tick is over; answer what was said."""
        by_connection = {handle.connection: handle for handle in self._handles if handle.connection is not None}
        sentinels = [handle.sentinel for handle in self._handles if handle.alive]
        for ready in wait([*by_connection, *sentinels], _TICK_S):
            handle = by_connection.get(ready)  # type: ignore[call-overload]  # sentinels are looked at by _watch
            if handle is not None and (message := handle.receive()) is not None:
                self._answer(handle, message)

    def _answer(self, handle: WorkerHandle, message: ToSupervisor) -> None:
        match message:
            case Beat():
                pass  # that it came is all it says
            case Ready(described):
                handle.ready = True
                self._described.update(described)
                if self._begun_at_ns is not None and handle.spec.kind == "capture":
                    handle.send(Begin())
            case Closing():
                handle.closing = True
            case Described(described):
                handle.closed = True
                self._described.update(described)
            case NeedRing(frame_bytes):
                self._grant_ring(handle, frame_bytes)
            case StreamEnded():
                handle.ended = True
            case StopRequested():
                self._stop.want()
            case Failed(sentence, by_user):
                handle.last_failure, handle.closing = sentence, True
                if by_user:
                    self._user_error = self._user_error or sentence

    def _grant_ring(self, handle: WorkerHandle, frame_bytes: int) -> None:
        """A ring replaces the one that the stream had, which stays until its last frame has left the pipeline."""
        stream = handle.spec.stream
        try:
            ring = FrameRing.create(stream, self._settings.slots, frame_bytes)
        except UserError as error:
            self._user_error = self._user_error or str(error)
            return
        if stream in self._rings:
            self._old_rings.append((self._rings[stream], self._state.stream(stream).next_sequence))
        self._rings[stream] = ring
        handle.send(GrantRing(ring.name))

    def _remove_old_rings(self) -> None:
        done = [(ring, end) for ring, end in self._old_rings if self._state.stream(ring.stream).finished >= end]
        for ring, end in done:
            ring.close(unlink=True)
            self._old_rings.remove((ring, end))

    def _watch(self) -> None:
        """Find dead and silent workers; start again those whose time has come."""
        now = now_ns()
        absent = now - self._watched_at_ns > ABSENCE_NS
        self._watched_at_ns = now
        for handle in self._handles:
            if absent:
                handle.excuse(now)
            patience_s = self._patience_s(handle)
            if handle.alive and handle.silent_for_s(now) > patience_s:
                handle.last_failure = f"it gave no sign of life for {patience_s:.0f} s"
                if handle.ready or not self._ending:  # who still starts at the end is not expected to answer
                    _log.error("worker %s is silent and is ended", handle.spec.name)
                handle.kill()
            if handle.started and not handle.alive and handle.restart_at_ns is None:
                self._take_leave(handle, now)
            if handle.restart_at_ns is not None and now >= handle.restart_at_ns and not self._ending:
                _log.warning("worker %s is started again", handle.spec.name)
                try:
                    handle.restart()
                except OSError as error:
                    self._fail(handle, f"it cannot be started: {error.strerror}", now)

    def _patience_s(self, handle: WorkerHandle) -> float:
        """How long a worker may be silent."""
        if handle.closing:
            return _CLOSE_NS / NS_PER_S
        if self._closing_until_ns is not None:
            return self._beat_patience_s  # told to stop, it neither beats nor closes
        return self._settings.silent_s if handle.ready else self._settings.starting_s

    @property
    def _ending(self) -> bool:
        return self._stopped_at_ns is not None or self._closing_until_ns is not None

    def _take_leave(self, handle: WorkerHandle, now: int) -> None:
        """A worker has ended; unless it was to end, that is a failure."""
        while (message := handle.receive()) is not None:
            self._answer(handle, message)  # its last words may lie in the pipe
        reason = handle.bury()
        if handle.ended or self._user_error is not None:
            return
        if self._ending:
            in_time = self._closing_until_ns is None or now < self._closing_until_ns
            broken = handle.last_failure is not None or not handle.closed
            if handle.spec.kind == "stages" and handle.ready and broken and in_time:
                died = f"worker {handle.spec.name} died while the run ended: {reason}"
                self._failure = self._failure or died
            return
        if handle.spec.kind == "stages":
            for capture in self._captures:
                capture.send(WorkerLost(handle.spec.name))
        self._fail(handle, reason, now)

    def _fail(self, handle: WorkerHandle, reason: str, now: int) -> None:
        """A worker has failed: it is started again later, or, where that has happened too often, all ends."""
        _log.error("worker %s ended: %s", handle.spec.name, reason)
        handle.restart_at_ns = handle.budget.spend(now)
        if handle.restart_at_ns is None:
            self._failure = (
                f"worker {handle.spec.name} failed {handle.budget.failures} times within "
                f"{self._settings.restarts_within_s:.0f} s, at last because: {reason}"
            )

    def _direct(self) -> None:
        """Move the run on: begin, stop, close."""
        now = now_ns()
        failed = self._failure is not None and self._stopped_at_ns is None  # else what is under way may still finish
        if self._user_error is not None or failed or self._stop.urgent:
            self._close(now)
        elif self._begun_at_ns is None and all(handle.ready for handle in self._handles) and not self._stop.wanted:
            self._begin(now)
        elif self._stop.wanted or self._time_is_up(now):
            self._stop_captures(now)
        if self._closing_until_ns is None and all(capture.ended for capture in self._captures):
            self._close(now)
        if self._closing_until_ns is not None and self._stop.wanted:
            self._wanted_at_ns = self._wanted_at_ns or now
            self._closing_until_ns = min(self._closing_until_ns, self._wanted_at_ns + _STOP_NS)
        if self._closing_until_ns is not None and now >= self._closing_until_ns:
            for handle in self._handles:
                handle.kill()
        if now >= self._health_at_ns and self._begun_at_ns is not None:
            self._tell_health(now)

    def _time_is_up(self, now: int) -> bool:
        return (
            self._duration_ns is not None
            and self._begun_at_ns is not None
            and now - self._begun_at_ns >= self._duration_ns
        )

    def _begin(self, now: int) -> None:
        self._begun_at_ns = now
        self._health.begin()
        for capture in self._captures:
            capture.send(Begin())

    def _stop_captures(self, now: int) -> None:
        if self._stopped_at_ns is None:
            self._stopped_at_ns = now
            for capture in self._captures:
                capture.send(Stop())
        if self._begun_at_ns is None or now - self._stopped_at_ns > _DRAIN_NS:
            self._close(now)

    def _close(self, now: int) -> None:
        """All that will come has come: the workers close. Captures that still hang have lost their chance."""
        if self._closing_until_ns is not None:
            if self._stop.urgent:
                self._closing_until_ns = min(self._closing_until_ns, now)
            return
        self._closing_until_ns = self._patience_until_ns(now)
        self._ended_at_ns = now
        for handle in self._handles:
            if handle.spec.kind == "stages":
                handle.send(Stop())
            elif not handle.ended:
                handle.kill()

    @property
    def _beat_patience_s(self) -> float:
        """Who gave no beat for so long may not be reading."""
        return 2 + self._settings.heartbeat_s

    def _patience_until_ns(self, now: int) -> int:
        """Until when the workers may close."""
        if self._begun_at_ns is None or self._stop.urgent:
            return now + _HURRY_NS
        return now + _CLOSE_NS if self._stopped_at_ns is None else self._stopped_at_ns + _STOP_NS

    def _tell_health(self, now: int) -> None:
        self._health_at_ns = now + NS_PER_S
        pids = {handle.spec.name: handle.pid for handle in self._handles if handle.pid is not None}
        record = self._health.record(self._restarts(), pids)
        # Never to one that may not be reading: a full pipe would hold the supervisor up.
        for handle in self._handles:
            if handle.ready and handle.spec.kind == "stages" and handle.silent_for_s(now) < self._beat_patience_s:
                handle.send(HealthRecord(record))

    def _restarts(self) -> dict[str, int]:
        return {handle.spec.name: handle.restarts for handle in self._handles}
