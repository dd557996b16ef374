"""The policies at the pipeline's entry and exit: mailboxes, packets under way, order, restarts."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from engine.clock import NS_PER_MS, NS_PER_S
from engine.config import EngineSettings
from engine.finish import Finisher
from engine.flow import InFlight
from engine.mailbox import EveryMailbox, LatestMailbox
from engine.meter import Meter
from engine.packet import Packet
from engine.reorder import ReorderBuffer
from engine.restart import RestartBudget
from engine.state import RunState


def packet(sequence: int, at_ns: int | None = None) -> Packet:
    at_ns = sequence if at_ns is None else at_ns
    return Packet(stream="0", sequence=sequence, pts=sequence / 30, captured_at_ns=at_ns)


def put_all(mailbox: LatestMailbox, sequences: range) -> list[int]:
    """Put packets 33 ms apart and return the numbers of those that were replaced."""
    replaced = [mailbox.put(packet(n, at_ns=n * 33 * NS_PER_MS)) for n in sequences]
    return [found.sequence for found in replaced if found]


def take_all(mailbox: LatestMailbox) -> list[int]:
    taken = iter(mailbox.take, None)
    return [found.sequence for found in taken]


def test_a_hiccup_costs_no_frame_but_a_longer_one_does() -> None:
    mailbox = LatestMailbox()
    assert put_all(mailbox, range(2)) == []
    assert take_all(mailbox) == [0, 1]
    assert put_all(mailbox, range(100, 103)) == [100]
    assert take_all(mailbox) == [101, 102]


def test_of_a_source_that_gives_a_frame_every_two_seconds_no_more_than_two_wait() -> None:
    mailbox = LatestMailbox()
    replaced = [mailbox.put(packet(n, at_ns=2 * n * NS_PER_S)) for n in range(4)]
    assert [found and found.sequence for found in replaced] == [None, None, 0, 1]


def test_behind_a_slow_pipeline_only_the_newest_packet_waits() -> None:
    mailbox = LatestMailbox()
    ages = []
    for n in range(300):  # 33 ms a packet; one is asked for every 66 ms
        put_all(mailbox, range(n, n + 1))
        if n % 2:
            taken = mailbox.take()
            assert taken is not None
            ages.append(n - taken.sequence)
    assert ages[0] == 1  # the first could still be a hiccup
    assert set(ages[2:]) == {0}


def test_a_mailbox_for_every_packet_makes_the_source_wait() -> None:
    mailbox = EveryMailbox()
    source = threading.Thread(target=lambda: [mailbox.put(packet(n)) for n in range(20)])
    source.start()
    taken: list[int] = []
    while len(taken) < 20:
        found = mailbox.take()
        taken += [found.sequence] if found else []
    source.join(10)
    assert taken == list(range(20))


def test_a_closed_mailbox_gives_back_what_comes_and_keeps_what_waits() -> None:
    for mailbox in (LatestMailbox(), EveryMailbox()):
        mailbox.put(packet(0))
        mailbox.close()
        late = packet(1)
        assert mailbox.put(late) is late
        assert [found.sequence for found in iter(mailbox.take, None)] == [0]


def test_closing_a_mailbox_frees_the_source_that_waits() -> None:
    mailbox = EveryMailbox()
    mailbox.put(packet(0))
    handed_back: list[Packet | None] = []
    source = threading.Thread(target=lambda: handed_back.append(mailbox.put(packet(1))))
    source.start()
    mailbox.close()
    source.join(10)
    assert [found.sequence for found in handed_back if found] == [1]
    assert mailbox.take() is not None


def test_only_so_many_frames_are_under_way() -> None:
    in_flight = InFlight(2, write_off_ms=1000, silent_ms=10_000)
    in_flight.send(packet(0), 0)
    assert in_flight.has_room
    in_flight.send(packet(1), 0)
    assert not in_flight.has_room
    in_flight.finished(1)
    assert in_flight.has_room
    assert in_flight.frames() == {1} and not in_flight.empty


def test_after_a_workers_death_its_frames_are_written_off_and_said_to_be_lost() -> None:
    in_flight = InFlight(2, write_off_ms=1000, silent_ms=10_000)
    sent = packet(3, at_ns=700)
    sent.picture = "IMG_1.jpg"
    in_flight.send(sent, 0)
    assert in_flight.take_notices(5 * NS_PER_S) == []
    in_flight.worker_lost(5 * NS_PER_S)
    assert in_flight.take_notices(5 * NS_PER_S + 999 * NS_PER_MS) == []
    (lost,) = in_flight.take_notices(6 * NS_PER_S)
    assert (lost.status, lost.reason, lost.picture) == ("dropped", "worker_lost", "IMG_1.jpg")
    assert (lost.sequence, lost.pts, lost.captured_at_ns) == (3, 0.1, 700)
    assert in_flight.has_room
    assert in_flight.take_notices(6 * NS_PER_S + NS_PER_MS) == [], "said once"


def test_a_second_death_does_not_prolong_the_wait_after_the_first() -> None:
    in_flight = InFlight(2, write_off_ms=1000, silent_ms=10_000)
    in_flight.send(packet(0), 0)
    for death_s in (5.0, 5.9):
        in_flight.worker_lost(int(death_s * NS_PER_S))
    assert [lost.sequence for lost in in_flight.take_notices(6 * NS_PER_S)] == [0]


def test_a_slow_pipeline_in_which_nobody_died_keeps_its_frames() -> None:
    in_flight = InFlight(2, write_off_ms=1000, silent_ms=10_000)
    in_flight.send(packet(0), 0)
    assert not in_flight.due(10 * NS_PER_S + 999 * NS_PER_MS)
    assert in_flight.due(11 * NS_PER_S)


def test_a_notice_is_sent_again_until_it_is_acknowledged() -> None:
    in_flight = InFlight(2, write_off_ms=1000, silent_ms=10_000)
    for sequence in (1, 0):
        in_flight.notify(packet(sequence), 0)
    assert [notice.sequence for notice in in_flight.take_notices(0)] == [0, 1]
    assert in_flight.take_notices(NS_PER_MS) == []
    assert len(in_flight.take_notices(2 * NS_PER_S)) == 2 and not in_flight.empty
    in_flight.finished(2)
    assert in_flight.empty
    assert in_flight.take_notices(9 * NS_PER_S) == []


@given(st.permutations(range(12)), st.lists(st.integers(0, 11)))
def test_any_order_with_any_duplicates_comes_out_once_and_in_order(order: list[int], again: list[int]) -> None:
    buffer = ReorderBuffer(0)
    out: list[Packet | int] = []
    refused = 0
    for sequence in [*order, *again]:
        refused += not buffer.push(packet(sequence), NS_PER_S)
        out += buffer.pop(0)
    assert [found.sequence for found in out if isinstance(found, Packet)] == list(range(12))
    assert len(out) == 12
    assert refused == len(again)


def test_a_missing_packet_is_given_up_at_the_deadline_and_then_comes_too_late() -> None:
    buffer = ReorderBuffer(3)
    buffer.push(packet(5), 100)
    assert buffer.pop(99) == []
    first, second, third = buffer.pop(100)
    assert (first, second) == (3, 4)
    assert isinstance(third, Packet)
    assert not buffer.push(packet(4), 200)


def test_a_missing_packet_is_given_up_for_any_that_waits_too_long_and_the_first_of_equal_ones_counts() -> None:
    buffer, found = ReorderBuffer(0), packet(1)
    assert buffer.push(packet(2), 200) and buffer.push(found, 100)
    assert not buffer.push(packet(1), 300)
    given_up, first, _ = buffer.pop(100)
    assert given_up == 0 and first is found


def test_what_a_live_stream_gave_up_waiting_for_is_reported_as_late() -> None:
    state = RunState(None, ["0"])
    finisher = Finisher(["0"], Packet, state, Meter(None, stages=0), EngineSettings(reorder_ms=0.0))
    overtaking = packet(1)
    overtaking.expires_at_ns = 1
    out = finisher.arrange([overtaking]) or finisher.arrange([])
    assert [(found.sequence, found.status, found.reason) for found in out] == [(0, "dropped", "late"), (1, "ok", None)]
    assert finisher.arrange([packet(0)]) == [], "its turn is over"
    for found in out:
        finisher.finish(found)
    assert state.stream("0").finished == 2


def test_of_a_file_nothing_is_given_up_for_being_slow() -> None:
    finisher = Finisher(["0"], Packet, RunState(None, ["0"]), Meter(None, stages=0), EngineSettings(reorder_ms=0.0))
    assert finisher.arrange([packet(1)]) == [] and finisher.arrange([]) == []
    assert [found.sequence for found in finisher.arrange([packet(0)])] == [0, 1]


def test_the_first_restart_comes_at_once_the_next_ones_ever_later_and_then_none() -> None:
    budget = RestartBudget(restarts=7, within_s=60)
    delays = [budget.spend(0) for _ in range(8)]
    assert delays == [0, NS_PER_S // 2, *(n * NS_PER_S for n in (1, 2, 4, 8, 8)), None]


def test_failures_of_long_ago_are_forgiven() -> None:
    budget = RestartBudget(restarts=1, within_s=10)
    assert budget.spend(0) == 0
    assert budget.spend(11 * NS_PER_S) == 11 * NS_PER_S
    assert budget.spend(12 * NS_PER_S) is None
