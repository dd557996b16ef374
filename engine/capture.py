"""The capture process of one stream: its source in a thread, its requests answered in the main loop."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import zmq

from engine.config import import_name
from engine.control import Begin, Ready, Stop, StreamEnded, SupervisorLine, WorkerLost
from engine.errors import UserError
from engine.frames import OwnedFrames
from engine.intake import Intake
from engine.layout import WorkerSpec
from engine.links import EntryServer, Parcel
from engine.packet import PacketCodec
from engine.ring import FrameRing, FrameWriter
from engine.stage import Source, SourceInfo
from engine.state import RunState, StreamState

_POLL_MS = 50


def make_source(dotted: str, sections: dict[str, Any], source: str) -> Source:
    """The source class that `engine.source` names, with its settings."""
    source_type = import_name(dotted, "engine.source")
    settings = msgspec.convert(sections.get(source_type.name, {}), source_type.settings_type)
    made: Source = source_type(settings, source)
    return made


def run(spec: WorkerSpec, line: SupervisorLine) -> None:
    """Serve one stream until its end has been acknowledged. Raises UserError when the source cannot be opened."""
    source = make_source(spec.engine.source, spec.sections, spec.source)
    state = RunState(Path(spec.folder), spec.streams).stream(spec.stream)
    try:
        info = source.open(state.frames_read)
    except UserError as error:
        if spec.restarts:
            # It could be opened before, so that the device may need a moment: the budget for restarts decides.
            raise ConnectionError(str(error)) from error
        raise
    capture = _Capture(spec, line, source, info, state)
    try:
        capture.run()
    finally:
        capture.close()


class _Capture:
    """Answers the workers' requests from an intake."""

    def __init__(
        self, spec: WorkerSpec, line: SupervisorLine, source: Source, info: SourceInfo, state: StreamState
    ) -> None:
        self._spec = spec
        self._line = line
        self._context: zmq.Context[Any] = zmq.Context()
        self._server = EntryServer(self._context, spec.entry_endpoints[spec.stream])
        # The reading thread wakes the main loop through a pair of sockets, because a poll cannot wait for a lock.
        self._bell = self._context.socket(zmq.PAIR)
        self._bell.bind("inproc://bell")
        self._clapper = self._context.socket(zmq.PAIR)
        self._clapper.connect("inproc://bell")
        packet_type = import_name(spec.engine.packet, "engine.packet")
        self._owned = OwnedFrames(spec.stream) if spec.engine.transport == "copy" else None
        self._parcel = Parcel(PacketCodec(packet_type), self._owned)
        self._intake = Intake(
            spec.stream,
            source,
            info,
            packet_type,
            spec.engine,
            state,
            self._new_writer,
            self._ring_bell,
            spec.max_frames,
        )

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._server.socket, zmq.POLLIN)
        poller.register(self._bell, zmq.POLLIN)
        self._line.send(Ready())
        while not (self._intake.ended or self._line.orphaned):
            poller.poll(_POLL_MS)
            self._quiet_bell()
            asked = self._server.requests()
            # Between asking and answering: who has died meanwhile must not be sent a frame.
            lost = self._handle_messages()
            self._serve([peer for peer in asked if peer not in lost])
        if self._intake.ended:
            self._line.send(StreamEnded())

    def close(self) -> None:
        """Release the source; the sockets go with the process, whose reading thread may still ring the bell."""
        self._intake.stop()
        self._intake.close()

    def _serve(self, asked: list[bytes]) -> None:
        for peer in asked:
            self._answer(peer)
        self._intake.tick()
        if self._intake.error is not None:
            raise self._intake.error
        while self._intake.ready() and (waiting := self._server.next_waiting()) is not None:
            self._answer(waiting)
        if self._intake.ready():
            self._server.announce()

    def _answer(self, peer: bytes) -> None:
        notices, packet = self._intake.take()
        for notice in notices:
            self._server.note(peer, self._parcel.pack(notice)[0])
        self._server.answer(peer, self._parcel.pack(packet) if packet else None)

    def _handle_messages(self) -> list[bytes]:
        """Returns the workers that are said to have died, as they are called on the entry link."""
        lost = []
        while (message := self._line.poll()) is not None:
            if isinstance(message, Begin):
                self._intake.start()
            elif isinstance(message, Stop):
                self._intake.stop()
            elif isinstance(message, WorkerLost):
                lost.append(self._server.forget(message.worker))
                self._intake.worker_lost()
        self._line.beat()
        return lost

    def _new_writer(self, frame_bytes: int) -> FrameWriter:
        """Room for larger frames than before; also called by the reading thread."""
        if self._owned is not None:
            return self._owned
        return FrameRing.attach(self._line.ask_for_ring(frame_bytes), self._spec.engine.slots)

    def _ring_bell(self) -> None:
        with suppress(zmq.Again):
            self._clapper.send(b"", zmq.NOBLOCK)

    def _quiet_bell(self) -> None:
        with suppress(zmq.Again):
            while True:
                self._bell.recv(zmq.NOBLOCK)
