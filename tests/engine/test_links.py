"""The entry links, both ends in one process over real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.frames import OwnedFrames
from engine.links import EntryServer, Parcel, PullInlet, PushOutlet, TakeInlet
from engine.packet import FrameRef, Packet, PacketCodec

PARCEL = Parcel(PacketCodec(Packet), None)
MAX_BATCH = 8
"""A worker may take several frames at once, but only one of each stream."""


class Link:
    """A capture with a pile of frames, and a worker."""

    def __init__(self, context: zmq.Context[Any], folder: Path) -> None:
        endpoint = f"ipc://{folder / 'entry'}"
        self.server = EntryServer(context, endpoint)
        self.inlet = TakeInlet(context, {"0": endpoint}, "worker", PARCEL)

    def serve(self, sequence: int) -> bool:
        """Hand one frame to who waits; whether anybody did."""
        assert self.server.requests() == []
        peer = self.server.next_waiting()
        if peer is not None:
            packet = Packet(stream="0", sequence=sequence, pts=0.0, captured_at_ns=0)
            self.server.answer(peer, PARCEL.pack(packet))
        return peer is not None

    def serve_soon(self, sequence: int) -> None:
        until = time.monotonic() + 5
        while not self.serve(sequence):
            assert time.monotonic() < until, "nobody asked"
            self.receive(10)

    def receive(self, timeout_ms: float = 2000) -> list[int]:
        return [packet.sequence for packet in self.inlet.receive(timeout_ms, MAX_BATCH, 0)]


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    with zmq.Context() as context:
        made = Link(context, tmp_path)
        yield made
        made.inlet.close()
        made.server.socket.close()


def test_a_frame_whose_pixels_are_gone_is_sent_as_dropped() -> None:
    frames, codec = OwnedFrames("0"), PacketCodec(Packet)
    frames.begin(4, 4, busy=())[:] = 7
    packet = Packet(stream="0", sequence=3, pts=0.0, captured_at_ns=0, frame=frames.commit(3))
    assert len(Parcel(codec, frames).pack(packet)) == 2
    assert packet.frame is not None
    frames.drop(packet.frame)
    (message,) = Parcel(codec, frames).pack(packet)
    sent = codec.decode(message)
    assert (sent.sequence, sent.status, sent.reason) == (3, "dropped", "overrun")


def test_a_mistake_that_comes_with_every_frame_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    parcel, codec = Parcel(PacketCodec(Packet), None), PacketCodec(Packet)

    def send(reason: Any) -> Packet:
        return codec.decode(parcel.pack(Packet(stream="0", sequence=3, pts=0.0, captured_at_ns=0, reason=reason))[0])

    for reason in (object(), object(), 1 + 2j):
        assert send(reason).status == "dropped"
    assert [record.message.count("cannot be sent") for record in caplog.records] == [1, 1], "two kinds of mistake"


def test_a_request_stands_until_there_is_a_frame_and_a_busy_worker_gets_none(link: Link) -> None:
    assert link.receive(50) == []
    link.serve_soon(7)
    assert link.receive() == [7]
    time.sleep(0.05)  # it works on 7
    assert not link.serve(8)


def test_a_stream_that_does_not_answer_holds_up_no_other(tmp_path: Path) -> None:
    with zmq.Context() as context:
        endpoints = {name: f"ipc://{tmp_path / name}" for name in "ab"}
        servers = {name: EntryServer(context, endpoint) for name, endpoint in endpoints.items()}
        inlet = TakeInlet(context, endpoints, "worker", PARCEL)
        asked: dict[str, list[bytes]] = {"a": [], "b": []}
        until = time.monotonic() + 5
        while not (asked["a"] and asked["b"]) and time.monotonic() < until:
            inlet.receive(10, 1, 0)
            for name, server in servers.items():
                asked[name] += server.requests()
                server.announce()
        taken = time.monotonic() - until + 5
        assert asked["a"] and asked["b"] and taken < 0.9, "before the first request counts as lost"
        for end in (inlet, *(server.socket for server in servers.values())):
            end.close()


def test_a_receiver_that_goes_while_it_is_sent_to_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zmq.Context() as context:
        endpoint = f"ipc://{tmp_path / 'queue'}"
        inlet, outlet = PullInlet(context, endpoint, PARCEL), PushOutlet(context, [endpoint], PARCEL)
        calls: list[int] = []
        send = outlet._socket.send_multipart

        class Leaving:
            def send_multipart(self, parts: list[bytes], flags: int) -> None:
                calls.append(1)
                if len(calls) == 1:
                    raise zmq.Again
                send(parts, flags)

            def __getattr__(self, name: str) -> Any:
                return getattr(socket, name)

        socket = outlet._socket
        monkeypatch.setattr(outlet, "_socket", Leaving())
        outlet.send(Packet(stream="0", sequence=3, pts=0.0, captured_at_ns=0), lambda: True)
        assert [packet.sequence for packet in inlet.receive(2000, 1, 0)] == [3] and len(calls) == 2
        inlet.close()
        socket.close()


def test_a_batch_is_waited_for_though_it_be_less_than_a_millisecond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polled: list[int] = []

    class OnePacket:
        def poll(self, timeout_ms: int) -> bool:
            polled.append(timeout_ms)
            return len(polled) == 1

        def recv_multipart(self) -> list[Any]:
            return PARCEL.pack(Packet(stream="0", sequence=3, pts=0.0, captured_at_ns=0))

    with zmq.Context() as context:
        inlet = PullInlet(context, f"ipc://{tmp_path / 'queue'}", PARCEL)
        inlet.close()
        monkeypatch.setattr(inlet, "_socket", OnePacket())
        monkeypatch.setattr("engine.links.now_ns", lambda: 0)
        assert len(inlet.receive(50, 2, max_wait_ms=0.5)) == 1
    assert polled == [50, 1]


def test_a_frame_that_has_come_is_taken_before_another_is_asked_for(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.links._ASK_AGAIN_NS", 0)
    link.receive(10)
    link.serve_soon(1)
    time.sleep(0.05)  # the frame has come, and the request counts as lost
    assert link.receive() == [1]
    time.sleep(0.05)  # it works on 1
    assert not link.serve(2)


def test_a_worker_that_died_is_sent_nothing_and_its_successor_asks_again(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.links._ASK_AGAIN_NS", 3_600_000_000_000)
    link.receive(50)
    assert link.server.requests() == []
    link.server.forget("worker")
    assert not link.serve(1)
    link.server.announce()
    link.serve_soon(2)
    assert link.receive() == [2]


def test_a_large_picture_fits_into_a_message(tmp_path: Path) -> None:
    """ZeroMQ would close the connection without a word, and the frame be sent again and again."""
    large = FrameRef("copy-0", 0, 0, 9500, 9500)

    class Pixels:
        def pixels(self, ref: FrameRef) -> memoryview:
            return memoryview(bytes(3 * ref.width * ref.height))

        def put(self, ref: FrameRef, pixels: bytes) -> None:
            assert len(pixels) == 3 * ref.width * ref.height

    parcel = Parcel(PacketCodec(Packet), Pixels())  # type: ignore[arg-type]
    endpoint = f"ipc://{tmp_path / 'pull'}"
    with zmq.Context() as context:
        inlet, outlet = PullInlet(context, endpoint, parcel), PushOutlet(context, [endpoint], parcel)
        packet = Packet(stream="0", sequence=5, pts=0.0, captured_at_ns=0, frame=large)
        outlet.send(packet, keep_waiting=lambda: True)
        assert [came.sequence for came in inlet.receive(30_000, 1, 0)] == [5]
        outlet.close()
        inlet.close()
