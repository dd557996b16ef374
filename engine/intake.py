"""The entry of one stream: reads its source in a thread, numbers the packets, and hands them over on request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np

from engine.clock import ABSENCE_NS, NS_PER_MS, NS_PER_S, now_ns
from engine.config import EngineSettings
from engine.flow import InFlight
from engine.mailbox import EveryMailbox, LatestMailbox, Mailbox
from engine.packet import Packet
from engine.ring import MAX_SIDE_PX, FrameWriter
from engine.stage import Captured, Source, SourceInfo, SourceLost
from engine.state import StreamState

_log = logging.getLogger(__name__)
_READ_GRACE_S = 0.3
_STOP_GRACE_NS = NS_PER_S


class Intake:
    """Everything between a source and the first worker, the same with and without sockets.

    `take`, `tick` and `stop` belong to one thread; the source is read in another.
    """

    def __init__(
        self,
        stream: str,
        source: Source,
        info: SourceInfo,
        packet_type: type[Packet],
        settings: EngineSettings,
        state: StreamState,
        new_writer: Callable[[int], FrameWriter],
        wake: Callable[[], None],
        max_frames: int | None = None,
    ) -> None:
        """`new_writer(frame_bytes)` gives room for frames of that size; `wake` is called from the reading thread
        when there is something to take."""
        self._stream = stream
        self._source = source
        self._packet_type = packet_type
        self._state = state
        self._new_writer = new_writer
        self._wake = wake
        self._max_frames = max_frames
        self.live = info.live if settings.policy == "auto" else settings.policy == "latest"
        self._mailbox: Mailbox = LatestMailbox() if self.live else EveryMailbox()
        self._max_age_ns = int(settings.max_age_ms * NS_PER_MS)
        self._stall_ns = int(settings.silent_s * NS_PER_S) if info.live and not info.paced else None
        most = settings.frames_in_flight(live=self.live)
        self._in_flight = InFlight(most, settings.write_off_ms, settings.silent_s * 1000)
        self._lock = threading.Lock()
        self._writer = new_writer(info.height * info.width * 3)
        self._thread = threading.Thread(target=self._read_all, name=f"source-{stream}", daemon=True)
        self._stop_at_ns: int | None = None
        self._closed = False
        self._reading_since_ns: int | None = None
        self._called_at_ns = now_ns()
        self._present_since_ns = self._called_at_ns
        self._anew = info.live and state.frames_read > 0
        self._pts_offset_s = 0.0
        self.error: Exception | None = None
        """What ended the reading thread, if it was no regular end."""
        self._resume(settings.write_off_ms)

    @property
    def ended(self) -> bool:
        """Whether the end of the stream has arrived at the other end of the pipeline."""
        end = self._state.end_sequence
        return end is not None and self._state.finished > end

    def start(self) -> None:
        """Begin to read, unless a process that has died since had read everything."""
        if self._state.end_sequence is None:
            self._thread.start()

    def ready(self) -> bool:
        """Whether `take` would give something."""
        with self._lock:
            return self._in_flight.due(self._now()) or (self._in_flight.has_room and bool(self._mailbox.waiting()))

    def take(self) -> tuple[list[Packet], Packet | None]:
        """Notices about frames that were dropped, and the next frame if there is one and room for it."""
        with self._lock:
            now = self._now()
            notices = self._in_flight.take_notices(now)
            # A frame that overtakes notices would wait at the other end, and they would count as late.
            behind = self._in_flight.due(now)
            packet = self._mailbox.take() if self._in_flight.has_room and not behind else None
            if packet is not None:
                self._in_flight.send(packet, now)
            return notices, packet

    def worker_lost(self) -> None:
        """A worker died, and with it perhaps frames of this stream."""
        with self._lock:
            self._in_flight.worker_lost(now_ns())

    def tick(self) -> None:
        """Account for what has left the pipeline, and send the end when all has; call it every now and then.

        Raises TimeoutError when a live source has not answered for too long.
        """
        with self._lock:
            now = self._now()
            self._in_flight.finished(self._state.finished)
            if self._stop_at_ns is not None:
                self._press_on(now)
            elif self._stall_ns and self._reading_for_ns(now) > self._stall_ns:
                raise TimeoutError(f"source {self._stream} has given nothing for {self._stall_ns / NS_PER_S:.0f} s")
            if self._state.end_sequence is None and self._drained(now):
                packet = self._packet(self._number())
                packet.end("end")
                self._state.end_sequence = packet.sequence
                self._in_flight.notify(packet, now)

    def stop(self) -> None:
        """Read no more; what was read still goes its way."""
        if self._stop_at_ns is None:
            self._stop_at_ns = now_ns()
            self._mailbox.close()

    def close(self) -> None:
        """Release the source."""
        if not self._closed:
            self._closed = True
            self._source.close()
        if self._thread.ident is not None:
            self._thread.join(_READ_GRACE_S)

    def _now(self) -> int:
        """The time; a pause of the whole program makes nothing late."""
        now = now_ns()
        absent_ns, self._called_at_ns = now - self._called_at_ns, now
        if absent_ns > ABSENCE_NS:
            self._present_since_ns = now
            self._in_flight.prolong(absent_ns)
        return now

    def _reading_for_ns(self, now: int) -> int:
        """How long the source has been asked for what it has not given yet."""
        since = self._reading_since_ns  # once: the reading thread sets it
        return 0 if since is None else now - max(since, self._present_since_ns)

    def _resume(self, write_off_ms: float) -> None:
        """After a restart: what the dead process had under way either comes out of the pipeline or is lost."""
        due = now_ns() + int(write_off_ms * NS_PER_MS)
        for sequence in range(self._state.finished, self._state.next_sequence):
            packet = self._packet(sequence)
            if sequence == self._state.end_sequence:
                packet.end("end")
            else:
                packet.end("dropped", "worker_lost")
            self._in_flight.notify(packet, due)

    def _drained(self, now: int) -> bool:
        hung = self._stop_at_ns is not None and now - self._stop_at_ns > _STOP_GRACE_NS
        reading = self._thread.ident is None or self._thread.is_alive()
        if (reading and not hung) or self.error is not None:
            return False
        return self._in_flight.empty and not self._mailbox.waiting()

    def _press_on(self, now: int) -> None:
        """Interrupt a read that did not come back by itself after the stop."""
        assert self._stop_at_ns is not None
        if not self._closed and self._thread.is_alive() and now - self._stop_at_ns > _READ_GRACE_S * NS_PER_S:
            self._closed = True
            threading.Thread(target=self._source.close, name="close-source", daemon=True).start()

    def _read_all(self) -> None:
        left = None if self._max_frames is None else self._max_frames - self._state.frames_read
        lost = False
        try:
            while self._stop_at_ns is None and (left is None or left > 0):
                # A source that has said that it is lost may take its time to come back.
                self._reading_since_ns = None if lost else now_ns()
                event = self._source.read(self._allocate)
                self._reading_since_ns = None
                lost = isinstance(event, SourceLost)
                if event is None:
                    break
                if isinstance(event, Captured):
                    left = None if left is None else left - 1
                self._accept(event)
        except Exception as error:
            if self._stop_at_ns is None:
                self.error = error
            else:
                _log.debug("source %s ended while it was being closed", self._stream, exc_info=True)
        finally:
            self._wake()

    def _allocate(self, height: int, width: int) -> np.ndarray:
        if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
            raise ValueError(f"a frame of {width}x{height} pixels is not possible")
        if not self._writer.fits(height, width):
            self._writer = self._new_writer(height * width * 3)
        with self._lock:
            busy = self._in_flight.frames() | {packet.sequence for packet in self._mailbox.waiting()}
        return self._writer.begin(height, width, busy)

    def _accept(self, event: Captured | SourceLost) -> None:
        with self._lock:
            if self._state.end_sequence is not None:
                return  # came back from a hanging read after the end was declared
            packet = self._packet(self._number())
            if isinstance(event, Captured):
                self._fill(packet, event)
        if isinstance(event, SourceLost):
            packet.end("source_lost", event.reason)
            displaced: Packet | None = packet
        else:
            displaced = self._mailbox.put(packet)
            if displaced is not None:
                displaced.end("dropped", "replaced" if self._stop_at_ns is None else "stopped")
        if displaced is not None:
            with self._lock:
                self._in_flight.notify(displaced, now_ns())
        self._wake()

    def _fill(self, packet: Packet, event: Captured) -> None:
        state = self._state
        captured_at_ns = int(event.captured_at_ns)  # a float, as sources of others may give, fits into no message
        if self._anew and event.pts <= state.last_pts:
            # The process before this one died with the time at which the stream began: a live source begins at 0 again.
            away_s = (captured_at_ns - state.last_captured_at_ns) / NS_PER_S
            self._pts_offset_s = state.last_pts + away_s - event.pts
        self._anew = False
        packet.pts, packet.captured_at_ns = event.pts + self._pts_offset_s, captured_at_ns
        packet.picture = event.picture
        state.frames_read += 1
        state.last_pts, state.last_captured_at_ns = packet.pts, captured_at_ns
        packet.frame = self._writer.commit(packet.sequence)
        if self.live:
            packet.expires_at_ns = captured_at_ns + self._max_age_ns

    def _packet(self, sequence: int) -> Packet:
        """A packet without a frame."""
        return self._packet_type(
            stream=self._stream, sequence=sequence, pts=self._state.last_pts, captured_at_ns=now_ns()
        )

    def _number(self) -> int:
        """The next sequence; counted before anything else happens, so that a death can't make it be used twice."""
        sequence = self._state.next_sequence
        self._state.next_sequence = sequence + 1
        return sequence
