"""Stages that share a worker: what one packet's failure costs, and what is released."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from engine.chain import Chain, WorkerBroken
from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from engine.frames import OwnedFrames
from engine.packet import Packet
from engine.stage import Context, FrameOverrun, stage_label


class Plain:
    name: ClassVar[str] = "plain"
    settings_type: ClassVar[type[msgspec.Struct]] = msgspec.Struct

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.closed = 0

    def open(self, context: Context) -> None:
        """Nothing to load."""

    def process(self, packet: Any) -> Packet | None:
        self.seen.append(packet.sequence)
        return self.treat(packet)

    def treat(self, packet: Packet) -> Packet | None:
        return packet

    def close(self) -> None:
        self.closed += 1


class Refusing(Plain):
    def treat(self, packet: Packet) -> Packet | None:
        return None


class Failing(Plain):
    def treat(self, packet: Packet) -> Packet | None:
        raise ZeroDivisionError("by zero")


class Overrun(Plain):
    def treat(self, packet: Packet) -> Packet | None:
        raise FrameOverrun("gone")


class DiskFull(Plain):
    def treat(self, packet: Packet) -> Packet | None:
        raise UserError("the disk is full: make room")


class SeesEnded(Plain):
    sees_ended: ClassVar[bool] = True


def packet(sequence: int = 0) -> Packet:
    return Packet(stream="0", sequence=sequence, pts=0.0, captured_at_ns=0)


def context() -> Context:
    return Context(streams=["0"], frames=OwnedFrames(), request_stop=lambda: None, health=lambda: {})


@pytest.mark.parametrize(
    ("stage", "reason"), [(Refusing(), "refused:refusing"), (Failing(), "error:failing"), (Overrun(), "overrun")]
)
def test_a_packet_that_a_stage_does_not_give_back_is_ended_with_the_reason(stage: Plain, reason: str) -> None:
    after, writer = Plain(), SeesEnded()
    ended = packet()
    Chain([stage, after, writer], errors_in_a_row=3).run([ended])
    assert (ended.status, ended.reason) == ("dropped", reason)
    assert (after.seen, writer.seen) == ([], [0])


def test_a_stage_must_give_back_the_packets_that_it_got_in_their_order() -> None:
    class Sorting(Plain):
        def process_batch(self, packets: list[Packet]) -> list[Packet]:
            return packets[::-1]

    class Copying(Plain):
        def treat(self, given: Packet) -> Packet:
            return packet(given.sequence)

    for stage, reason in ((Sorting(), "error:sorting"), (Copying(), "error:copying")):
        group = [packet(0), packet(1)]
        Chain([stage], errors_in_a_row=3).run(group)
        assert [each.reason for each in group] == [reason, reason]


def test_failures_in_a_row_break_the_worker_even_if_its_other_stages_are_well() -> None:
    chain = Chain([Plain(), Failing(), SeesEnded()], errors_in_a_row=3)
    chain.run([packet(0)])
    chain.run([packet(1)])
    with pytest.raises(WorkerBroken, match="failing failed 3 times in a row: by zero"):
        chain.run([packet(2)])


def test_a_packet_that_goes_well_forgives_the_failures_before_it() -> None:
    class Moody(Plain):
        def treat(self, packet: Packet) -> Packet | None:
            if packet.sequence % 3 == 2:
                return packet
            raise ZeroDivisionError("by zero")

    chain = Chain([Moody()], errors_in_a_row=3)
    packets = [packet(sequence) for sequence in range(9)]
    for each in packets:
        chain.run([each])
    assert [each.status for each in packets] == ["dropped", "dropped", "ok"] * 3


def test_a_packet_that_a_stage_only_passes_through_forgives_nothing() -> None:
    class Gated(Failing):
        def has_work(self, packet: Packet) -> bool:
            return packet.sequence % 6 == 0

        def treat(self, packet: Packet) -> Packet | None:
            return super().treat(packet) if self.has_work(packet) else packet

    chain = Chain([Gated()], errors_in_a_row=3)
    with pytest.raises(WorkerBroken):
        for sequence in range(13):
            chain.run([packet(sequence)])


def test_what_had_ended_keeps_its_own_reason_when_a_stage_fails_on_it() -> None:
    class Reporting(Failing):
        sees_ended: ClassVar[bool] = True

    ended = packet()
    ended.end("source_lost", "camera 0 was pulled out")
    Chain([Reporting()], errors_in_a_row=3).run([ended])
    assert (ended.status, ended.reason) == ("source_lost", "camera 0 was pulled out")


def test_a_packet_that_has_grown_too_old_is_not_worked_on() -> None:
    stage, old, fresh = Plain(), packet(0), packet(1)
    old.expires_at_ns, fresh.expires_at_ns = now_ns() - 1, now_ns() + NS_PER_S
    Chain([stage], errors_in_a_row=3).run([old, fresh])
    assert (old.status, old.reason, stage.seen) == ("dropped", "too_old", [1])


def test_a_users_mistake_ends_the_run_and_not_the_packet() -> None:
    with pytest.raises(UserError, match="make room"):
        Chain([DiskFull()], errors_in_a_row=3).run([packet()])


def test_a_stage_whose_opening_failed_is_closed_too_and_only_once() -> None:
    class Unopenable(Plain):
        def open(self, context: Context) -> None:
            raise UserError("no such device")

    first, second, third = Plain(), Unopenable(), Plain()
    chain = Chain([first, second, third], errors_in_a_row=3)
    with pytest.raises(UserError):
        chain.open(context())
    chain.close()
    chain.close()
    assert (first.closed, second.closed, third.closed) == (1, 1, 0)


def test_every_stage_leaves_its_span() -> None:
    worked_on = packet()
    Chain([Plain(), SeesEnded()], errors_in_a_row=3).run([worked_on])
    assert [span.stage for span in worked_on.spans] == ["plain", "sees_ended"]
    assert all(span.left_ns >= span.entered_ns for span in worked_on.spans)


def test_stages_are_called_by_their_class_because_sections_may_be_shared() -> None:
    assert stage_label(SeesEnded) == "sees_ended"
