"""The entry of a stream: what is read, numbered, handed over, and said to be lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import msgspec
import numpy as np
import pytest
from bench import wait_until

from engine.clock import NS_PER_S, now_ns
from engine.config import EngineSettings
from engine.frames import OwnedFrames
from engine.intake import Intake
from engine.packet import Packet, PacketCodec
from engine.stage import Captured, SourceInfo, SourceLost
from engine.state import RunState, StreamState


class Film:
    """A source of so many frames, or of the events of a list; it waits for nobody unless told to."""

    def __init__(self, count: int, *, first: int = 0, live: bool = False, hangs: bool = False) -> None:
        self.info = SourceInfo(4, 2, 30.0, live=live)
        self.events: list[SourceLost | int] = list(range(first, count))
        self._hangs = hangs
        self._closed = threading.Event()

    def open(self, skip: int = 0) -> SourceInfo:
        return self.info

    def read(self, allocate: Callable[[int, int], np.ndarray]) -> Captured | SourceLost | None:
        if not self.events:
            if self._hangs:
                self._closed.wait(10)
            return None
        event = self.events.pop(0)
        if isinstance(event, SourceLost):
            return event
        allocate(2, 4)[:] = event
        return Captured(event / 30, now_ns())

    def close(self) -> None:
        self._closed.set()


def stream_state() -> StreamState:
    return RunState(None, ["0"]).stream("0")


def opened(
    film: Film, state: StreamState, max_frames: int | None = None, **settings: float | str
) -> tuple[Intake, OwnedFrames]:
    store = OwnedFrames("0")
    made = Intake(
        "0", film, film.info, Packet, EngineSettings(**settings), state, lambda size: store, lambda: None, max_frames
    )
    made.start()
    return made, store


def all_of(intake: Intake, state: StreamState, taken: Sequence[Packet | None] = ()) -> list[Packet]:
    """What comes out when everything handed over is finished at once, after what was `taken` before."""
    packets = [packet for packet in taken if packet is not None]
    until = time.monotonic() + 10
    while not intake.ended and time.monotonic() < until:
        intake.tick()
        notices, packet = intake.take()
        packets += [*notices, packet] if packet is not None else notices
        while any(found.sequence == state.finished for found in packets):
            state.finished += 1
    intake.close()
    return packets


def told(packets: list[Packet]) -> list[tuple[int, str, str | None]]:
    return [(found.sequence, found.status, found.reason) for found in packets]


def test_every_frame_of_a_file_is_handed_over_and_then_the_end() -> None:
    state = stream_state()
    intake, _ = opened(Film(3), state)
    assert not intake.live
    assert told(all_of(intake, state)) == [(0, "ok", None), (1, "ok", None), (2, "ok", None), (3, "end", None)]
    assert state.frames_read == 3


@pytest.mark.parametrize(("policy", "live", "expected"), [
    ("auto", True, True), ("auto", False, False), ("latest", False, True), ("every", True, False),
])  # fmt: skip
def test_whether_a_newer_frame_replaces_a_waiting_one_follows_the_policy(
    policy: str, live: bool, expected: bool
) -> None:
    intake, _ = opened(Film(0, live=live), stream_state(), policy=policy)
    assert intake.live == expected
    intake.close()


def test_no_frame_overtakes_the_many_that_it_replaced() -> None:
    state = stream_state()
    intake, _ = opened(Film(250, live=True, hangs=True), state)
    wait_until(lambda: state.frames_read == 250)
    given: list[Packet] = []
    while not given or given[-1].ended:
        notices, packet = intake.take()
        given += [*notices, packet] if packet is not None else notices
    intake.close()
    assert [packet.sequence for packet in given] == list(range(len(given))) and len(given) >= 249


def test_only_so_many_frames_are_read_also_over_a_restart() -> None:
    state = stream_state()
    first, _ = opened(Film(100), state, max_frames=5)
    for _ in range(2):
        wait_until(first.ready)
        first.take()
    first.stop()
    first.close()
    read = state.frames_read
    assert 2 <= read < 5
    second, _ = opened(Film(100, first=read), state, max_frames=5, write_off_ms=1)
    packets = all_of(second, state)
    assert state.frames_read == 5
    found = {each.sequence: (each.status, each.reason) for each in packets}
    lost = {n: ("dropped", "worker_lost") for n in range(read)}
    assert found == lost | {n: ("ok", None) for n in range(read, 5)} | {5: ("end", None)}


def test_no_more_frames_are_handed_over_than_may_be_under_way() -> None:
    state = stream_state()
    intake, store = opened(Film(9), state, in_flight=2)
    kept, begin = list[set[int]](), store.begin
    store.begin = lambda height, width, busy: kept.append(busy) or begin(height, width, busy)  # type: ignore[method-assign]
    for _ in range(2):
        wait_until(intake.ready)
        intake.take()
    wait_until(lambda: state.frames_read == 4)
    assert not intake.ready() and intake.take() == ([], None)
    state.finished = 1
    intake.tick()
    intake.take()
    wait_until(lambda: state.frames_read == 5)
    assert kept[-1] == {1, 2, 3}, "what is under way or waits is not written over"
    intake.stop()
    intake.close()


def test_the_end_comes_after_a_frame_that_nobody_has_asked_for_yet() -> None:
    state = stream_state()
    intake, _ = opened(Film(1), state)
    wait_until(lambda: not intake._thread.is_alive())
    intake.tick()
    assert state.end_sequence is None
    assert told(all_of(intake, state)) == [(0, "ok", None), (1, "end", None)]


@pytest.mark.parametrize("size", [(2, 16_385), (16_385, 2), (0, 2)])
def test_a_source_that_asks_for_an_impossible_picture_fails_and_has_no_regular_end(size: tuple[int, int]) -> None:
    film, state = Film(1), stream_state()
    film.read = lambda allocate: allocate(*size)  # type: ignore[assignment, method-assign, return-value]
    intake, _ = opened(film, state)
    wait_until(lambda: not intake._thread.is_alive())
    intake.tick()
    assert "is not possible" in str(intake.error) and state.end_sequence is None
    intake.close()


def test_a_read_that_comes_back_after_the_end_was_declared_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, released, state = [now_ns()], threading.Event(), stream_state()
    monkeypatch.setattr("engine.intake.now_ns", lambda: clock[0])
    film = Film(0)
    film.read = lambda allocate: released.wait(10) and SourceLost("too late")  # type: ignore[assignment, method-assign, return-value]
    intake, _ = opened(film, state)
    intake.stop()
    clock[0] += 2 * NS_PER_S
    intake.tick()
    assert told(intake.take()[0]) == [(0, "end", None)]
    released.set()
    wait_until(lambda: not intake._thread.is_alive())
    assert intake.take() == ([], None) and state.next_sequence == 1
    intake.close()


def test_the_end_is_told_again_after_a_restart_and_nothing_is_read_anew() -> None:
    state = stream_state()
    film, state.next_sequence, state.finished, state.end_sequence = Film(9), 4, 3, 3
    intake, _ = opened(film, state, write_off_ms=0)
    assert not intake.ended
    assert told(all_of(intake, state)) == [(3, "end", None)] and intake.ended
    assert len(film.events) == 9


def test_the_time_of_a_live_source_goes_on_after_a_restart_and_that_of_a_file_is_its_own() -> None:
    for live in (True, False):
        state, until_s = stream_state(), 10 * NS_PER_S
        state.frames_read, state.last_pts, state.last_captured_at_ns = 1, 5.0, now_ns() - until_s
        intake, _ = opened(Film(2, live=live), state)
        times = [found.pts for found in all_of(intake, state) if found.status == "ok"]
        assert times == (pytest.approx([15.0, 15.0 + 1 / 30], abs=1.0) if live else [0.0, 1 / 30])


def test_a_source_that_is_lost_is_reported_in_its_place() -> None:
    film, state = Film(1), stream_state()
    film.events += [SourceLost("camera 0: pulled out"), 1]
    intake, _ = opened(film, state, max_frames=2)
    found = sorted(told(all_of(intake, state)))
    assert found == [(0, "ok", None), (1, "source_lost", "camera 0: pulled out"), (2, "ok", None), (3, "end", None)]


def test_after_a_stop_nothing_more_is_read_and_what_found_no_room_says_so() -> None:
    state = stream_state()
    intake, _ = opened(Film(100), state, in_flight=1)
    wait_until(intake.ready)
    _, first = intake.take()
    wait_until(lambda: state.frames_read == 3)  # one waits, and the next is read and finds no room
    intake.stop()
    found = sorted(set(told(all_of(intake, state, [first]))))
    assert found == [(0, "ok", None), (1, "ok", None), (2, "dropped", "stopped"), (3, "end", None)]
    assert state.frames_read == 3


def test_frames_of_a_live_source_grow_too_old_and_those_of_a_file_do_not() -> None:
    for live in (True, False):
        state = stream_state()
        intake, _ = opened(Film(1, live=live), state, max_age_ms=250.0)
        packet = next(found for found in all_of(intake, state) if found.status == "ok")
        lifetime = packet.expires_at_ns and packet.expires_at_ns - packet.captured_at_ns
        assert lifetime == (NS_PER_S // 4 if live else None)


def test_a_source_whose_clock_gives_floats_is_understood() -> None:
    class Floating(Film):
        def read(self, allocate: Callable[[int, int], np.ndarray]) -> Captured | SourceLost | None:
            event = super().read(allocate)
            return Captured(event.pts, float(event.captured_at_ns)) if isinstance(event, Captured) else event  # type: ignore[arg-type]

    state, codec = stream_state(), PacketCodec(Packet)
    intake, _ = opened(Floating(3, live=True), state)
    found = all_of(intake, state)
    assert [codec.decode(codec.encode(packet)) for packet in found] == found and len(found) == 4


def test_a_live_source_that_does_not_answer_is_noticed() -> None:
    intake, _ = opened(Film(0, live=True, hangs=True), stream_state(), silent_s=0.2)
    with pytest.raises(TimeoutError, match="source 0 has given nothing"):
        until = time.monotonic() + 5
        while time.monotonic() < until:
            intake.tick()
    intake.close()


def test_a_live_source_that_has_said_that_it_is_lost_may_be_silent_for_any_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, film, state = [now_ns()], Film(0, live=True, hangs=True), stream_state()
    monkeypatch.setattr("engine.intake.now_ns", lambda: clock[0])
    film.events = [SourceLost("pulled out")]
    intake, _ = opened(film, state, silent_s=2.0)
    wait_until(lambda: state.next_sequence == 1 and not film.events and intake.ready())
    for _ in range(9):
        clock[0] += NS_PER_S // 2
        intake.tick()
    intake.close()


def test_a_source_that_paces_itself_may_be_silent_for_any_time() -> None:
    film = Film(0, live=True, hangs=True)
    film.info = msgspec.structs.replace(film.info, paced=True)
    intake, _ = opened(film, stream_state(), silent_s=0.2)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        intake.tick()
    intake.close()


def test_a_pause_of_the_whole_program_is_not_counted_as_silence_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [now_ns()]
    monkeypatch.setattr("engine.intake.now_ns", lambda: clock[0])
    intake, _ = opened(Film(1, live=True, hangs=True), stream_state(), silent_s=10.0, write_off_ms=1000.0)
    wait_until(intake.ready)
    intake.take()
    wait_until(lambda: intake._reading_since_ns is not None)
    clock[0] += 3600 * NS_PER_S
    intake.tick()
    assert not intake.ready(), "what is under way is not written off"
    for _ in range(21):
        clock[0] += NS_PER_S // 2
        with pytest.raises(TimeoutError) if _ == 20 else nullcontext():
            intake.tick()
    intake.close()
