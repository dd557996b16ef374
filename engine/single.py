"""The whole pipeline in this process: the same stages, mailboxes and accounts, without sockets and shared memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np

from engine.capture import make_source
from engine.chain import Chain, WorkerBroken
from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from engine.config import Config, import_name
from engine.errors import UserError
from engine.finish import Finisher
from engine.frames import OwnedFrames
from engine.health import Health, RunSummary
from engine.intake import Intake
from engine.layout import count_stages, entry_stages, sections_of, stream_names
from engine.meter import Meter
from engine.packet import FrameRef, Packet
from engine.signals import StopFlag, stop_signals
from engine.stage import Context
from engine.state import RunState

_IDLE_S = 0.05
_DRAIN_NS = 2 * NS_PER_S
_NAME = "single"


def run(config: Config, sources: Sequence[str], *, duration_s: float | None, max_frames: int | None) -> RunSummary:
    """See `engine.run.run_pipeline`; `config` has one worker."""
    with stop_signals() as stop:
        pipeline = _Pipeline(config, sources, stop, max_frames)
        duration_ns = None if duration_s is None else int(duration_s * NS_PER_S)
        return pipeline.run(duration_ns)


class _SourceBroken(Exception):
    """A source failed in a way that is no user's mistake; with more processes it would be opened anew."""


def _check(intake: Intake) -> None:
    """Let it look after its affairs; raises UserError, or _SourceBroken with a sentence."""
    try:
        intake.tick()
    except TimeoutError as error:
        raise _SourceBroken(str(error)) from error
    if isinstance(intake.error, UserError):
        raise intake.error
    if intake.error is not None:
        raise _SourceBroken(f"a source failed: {type(intake.error).__name__}: {intake.error}") from intake.error


class _AllFrames(dict[str, OwnedFrames]):
    """The streams' stores by their segment."""

    def read(self, ref: FrameRef) -> AbstractContextManager[np.ndarray]:
        return self[ref.segment].read(ref)


class _Pipeline:
    def __init__(self, config: Config, sources: Sequence[str], stop: StopFlag, max_frames: int | None) -> None:
        self._config = config
        self._stop = stop
        self._max_frames = max_frames
        self._streams = stream_names(sources)
        self._sources = dict(zip(self._streams, sources, strict=True))
        self._bell = threading.Event()
        self._packet_type: type[Packet] = import_name(config.engine.packet, "engine.packet")
        self._sections = sections_of(config)
        self._state = RunState(None, self._streams)
        meter = Meter(None, count_stages(config), entry_stages(config), config.engine.warm_up_frames)
        self._health = Health(meter, self._state)
        self._record: dict[str, Any] = {}
        self._health_at_ns = 0
        self._idle_at_ns = 0
        self._finisher = Finisher(self._streams, self._packet_type, self._state, meter, config.engine)
        self._chain = Chain.load(config.workers[0].stages, self._sections, config.engine.errors_in_a_row)
        self._frames = _AllFrames()
        self._intakes: list[Intake] = []
        self._until_ns: int | None = None

    def run(self, duration_ns: int | None) -> RunSummary:
        mistake: str | None = None
        failure: str | None = None
        with self._opened():
            self._health.begin()
            self._until_ns = None if duration_ns is None else now_ns() + duration_ns
            for intake in self._intakes:
                intake.start()
            try:
                self._loop()
            except UserError as error:
                mistake = str(error)
            except (WorkerBroken, _SourceBroken) as error:
                failure = str(error)
            ended = now_ns()
        stats = self._health.summary({}, self._chain.describe(), ended)
        return RunSummary.of(stats, user_error=mistake, failure=failure)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with ExitStack() as stack:
            for stream in self._streams:
                intake = self._open_intake(stream)
                stack.callback(intake.close)
                stack.callback(intake.stop)
                self._intakes.append(intake)
            context = Context(
                streams=self._streams,
                frames=self._frames,
                sections=self._sections,
                request_stop=self._stop.want,
                alive=self._goes_on,
                health=lambda: self._record,
            )
            stack.callback(self._chain.close)
            self._chain.open(context)
            yield

    def _open_intake(self, stream: str) -> Intake:
        source = make_source(self._config.engine.source, self._sections, self._sources[stream])
        info = source.open(0)
        store = OwnedFrames(stream)
        self._frames[store.segment] = store
        return Intake(
            stream,
            source,
            info,
            self._packet_type,
            self._config.engine,
            self._state.stream(stream),
            lambda _bytes: store,
            self._bell.set,
            self._max_frames,
        )

    def _loop(self) -> None:
        stop_by: int | None = None
        while not all(intake.ended for intake in self._intakes):
            now = now_ns()
            if stop_by is None and not self._goes_on():
                stop_by = now + _DRAIN_NS
                for intake in self._intakes:
                    intake.stop()
            if self._stop.urgent or (stop_by is not None and now >= stop_by):
                return
            if not self._serve_all():
                self._bell.wait(_IDLE_S)
            self._bell.clear()
            self._look_after(now)

    def _goes_on(self) -> bool:
        """False when it is time to stop."""
        return not self._stop.wanted and (self._until_ns is None or now_ns() < self._until_ns)

    def _serve_all(self) -> bool:
        """One packet of each stream in turn; False when there was nothing to do."""
        busy = False
        for intake in self._intakes:
            _check(intake)
            if intake.ready():
                busy = True
                notices, packet = intake.take()
                self._process([*notices, packet] if packet is not None else notices)
        return busy

    def _process(self, packets: Sequence[Packet]) -> None:
        for group in self._chain.groups(self._finisher.arrange(packets)):
            self._chain.run(group)
            for packet in group:
                self._finisher.finish(packet)

    def _look_after(self, now: int) -> None:
        if now >= self._idle_at_ns:
            self._idle_at_ns = now + int(_IDLE_S * 1000) * NS_PER_MS
            self._chain.idle()
        if now >= self._health_at_ns:
            self._health_at_ns = now + NS_PER_S
            self._record = self._health.record({}, {_NAME: os.getpid()})
