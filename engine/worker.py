"""A worker process that runs stages: takes packets from its inlet, through its chain, to its outlet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from engine.chain import Chain
from engine.clock import NS_PER_MS, now_ns
from engine.config import import_name
from engine.control import Closing, Described, Failed, HealthRecord, Ready, Stop, StopRequested, SupervisorLine
from engine.finish import Finisher
from engine.frames import OwnedFrames
from engine.layout import WorkerSpec
from engine.links import DoneOutlet, Parcel, PullInlet, PushOutlet, TakeInlet
from engine.meter import Meter
from engine.packet import FrameRef, Packet, PacketCodec
from engine.ring import RingReader
from engine.stage import Context
from engine.state import RunState

_log = logging.getLogger(__name__)
_IDLE_MS = 50


def run(spec: WorkerSpec, line: SupervisorLine) -> None:
    """Work until the supervisor says stop. Raises UserError when a stage does, WorkerBroken when too much fails."""
    packet_type = import_name(spec.engine.packet, "engine.packet")
    chain = Chain.load(spec.stages, spec.sections, spec.engine.errors_in_a_row)
    owned = OwnedFrames() if spec.engine.transport == "copy" else None
    rings = RingReader(spec.engine.slots)
    loop = _Loop(spec, line, chain, packet_type, owned)
    context = Context(
        streams=spec.streams,
        frames=owned or rings,
        sections=spec.sections,
        restarts=spec.restarts,
        resumes=spec.resumes,
        request_stop=lambda: line.send(StopRequested()),
        alive=loop.beat,
        health=lambda: loop.health,
    )
    try:
        chain.open(context)
        _work(loop, chain, line)
    finally:
        chain.close()
        rings.close()


def _work(loop: _Loop, chain: Chain, line: SupervisorLine) -> None:
    """Run the loop to its end; whatever ended it, the stages close and give their account."""
    try:
        loop.run()
    except Exception as error:
        line.send(Failed.of(error))
        raise
    else:
        line.send(Closing())
    finally:
        chain.close()
        line.send(Described(chain.describe()))


class _Loop:
    """The main loop of one worker."""

    def __init__(
        self, spec: WorkerSpec, line: SupervisorLine, chain: Chain, packet_type: type[Packet], owned: OwnedFrames | None
    ) -> None:
        self.health: dict[str, Any] = {}
        self._spec = spec
        self._line = line
        self._chain = chain
        self._packet_type = packet_type
        self._owned = owned
        self._parcel = Parcel(PacketCodec(packet_type), owned)
        self._finisher = self._make_finisher() if spec.last else None
        self._stopping = False
        self._idle_at_ns = 0

    def run(self) -> None:
        spec = self._spec
        context: zmq.Context[Any] = zmq.Context()
        inlet = (
            TakeInlet(context, spec.entry_endpoints, spec.name, self._parcel)
            if spec.first
            else PullInlet(context, spec.pull_endpoint, self._parcel)
        )
        push = None if spec.last else PushOutlet(context, spec.push_endpoints, self._parcel)
        done = DoneOutlet(context, spec.entry_endpoints, spec.name) if spec.last else None
        self._line.send(Ready(self._chain.describe()))
        try:
            while self._look_after():
                packets = inlet.receive(_IDLE_MS, self._chain.max_batch, self._chain.max_wait_ms)
                if done is not None:
                    self._finish(packets, done)
                elif push is not None:
                    self._pass_on(packets, push)
        finally:
            for end in (inlet, push, done):
                if end is not None:
                    end.close()
            context.term()

    def _make_finisher(self) -> Finisher:
        spec, folder = self._spec, Path(self._spec.folder)
        meter = Meter(folder, spec.all_stages, spec.entry_stages, spec.engine.warm_up_frames)
        return Finisher(spec.streams, self._packet_type, RunState(folder, spec.streams), meter, spec.engine)

    def _pass_on(self, packets: list[Packet], push: PushOutlet) -> None:
        for group in self._chain.groups(packets):
            frames = [packet.frame for packet in group]
            self._chain.run(group)
            for packet in group:
                push.send(packet, keep_waiting=self._look_after)
            self._forget(frames)

    def _finish(self, packets: list[Packet], done: DoneOutlet) -> None:
        assert self._finisher is not None
        streams = {packet.stream for packet in packets if packet.stream in self._spec.entry_endpoints}
        arranged = self._finisher.arrange(packets)
        self._forget(self._finisher.take_refused())
        for group in self._chain.groups(arranged):
            frames = [packet.frame for packet in group]
            self._chain.run(group)
            for packet in group:
                self._finisher.finish(packet)
                streams.add(packet.stream)
            self._forget(frames)
        for stream in streams:
            done.done(stream)

    def _forget(self, frames: Sequence[FrameRef | None]) -> None:
        if self._owned is not None:
            for frame in frames:
                if frame is not None:
                    self._owned.drop(frame)

    def _look_after(self) -> bool:
        """Messages, heartbeat and the stages' own affairs; False when it is time to stop."""
        goes_on = self.beat()
        now = now_ns()
        if now >= self._idle_at_ns:
            self._idle_at_ns = now + _IDLE_MS * NS_PER_MS
            self._chain.idle()
        return goes_on

    def beat(self) -> bool:
        """Hear what the supervisor says and tell it that the worker lives; False when it was told to stop."""
        while (message := self._line.poll()) is not None:
            if isinstance(message, Stop):
                self._stopping = True
            elif isinstance(message, HealthRecord):
                self.health = message.record
        self._line.beat()
        return not self._stopping
