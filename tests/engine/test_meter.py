"""The account of a run: rates, percentiles, and that nothing of it dies with a process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from engine.health import Health
from engine.meter import HISTOGRAM_COLUMNS, Meter, add_duration, drops, percentiles
from engine.packet import Packet, Span
from engine.state import RunState, SharedTable


def row() -> np.ndarray:
    return SharedTable(None, HISTOGRAM_COLUMNS, 2)["any"]


def packet(sequence: int, age_ms: float = 10.0) -> Packet:
    now = now_ns()
    captured = now - int(age_ms * NS_PER_MS)
    spans = [Span("read", captured + 2 * NS_PER_MS, captured + 5 * NS_PER_MS)]
    return Packet(stream="0", sequence=sequence, pts=0.0, captured_at_ns=captured, spans=spans)


def one_stream() -> RunState:
    return RunState(None, ["0"])


def test_percentiles_are_within_a_percent_of_the_true_ones() -> None:
    durations_ms = np.random.default_rng(1).lognormal(3, 1, 5000)
    histogram = row()
    for duration_ms in durations_ms:
        add_duration(histogram, int(duration_ms * NS_PER_MS))
    found = percentiles(histogram)
    assert found is not None
    for share, value in ((50, found.p50), (95, found.p95), (99, found.p99), (100, found.max)):
        assert value == pytest.approx(np.percentile(durations_ms, share), rel=0.015)


def test_an_empty_histogram_says_nothing() -> None:
    assert percentiles(row()) is None


def test_a_restarted_last_worker_goes_on_counting_where_the_dead_one_was(tmp_path: Path) -> None:
    first = Meter(tmp_path, stages=1, entry_stages=["read"])
    for sequence in range(3):
        first.count(packet(sequence))
    second = Meter(tmp_path, stages=1, entry_stages=["read"])
    lost = packet(3)
    lost.end("dropped", "worker_lost")
    second.count(lost)
    second.count(packet(4))
    watching = Meter(tmp_path, stages=1)
    counters = watching.counters()
    assert (counters["frames"], counters["results"]) == (5, 4)
    assert drops(counters) == {"worker_lost": 1}
    total = percentiles(watching.durations()["total"])
    assert total is not None
    assert total.count == 4


def test_latency_is_accounted_by_stage_and_by_waiting_without_the_warm_up() -> None:
    meter = Meter(None, stages=1, entry_stages=["read"], warm_up_frames=2)
    for sequence in range(4):
        meter.count(packet(sequence, age_ms=1000.0 if sequence < 2 else 10.0))
    summary = Health(meter, one_stream()).summary({}, {}, now_ns())
    assert summary["results_out"] == 4
    assert summary["latency_ms"]["count"] == 2
    assert summary["latency_ms"]["max"] < 500
    assert summary["stages_ms"]["read"]["p50"] == pytest.approx(3, rel=0.02)
    assert summary["waits_ms"]["read"]["p50"] == pytest.approx(2, rel=0.02)


def test_health_speaks_of_the_recent_past_and_counts_losses_of_the_whole_run() -> None:
    meter = Meter(None, stages=1)
    health = Health(meter, one_stream())
    meter.count(packet(0, age_ms=5000.0))
    for _ in range(6):
        health.record({}, {})
    meter.count(packet(1, age_ms=10.0))
    record = health.record({"detect": 2}, {})
    assert record["latency_ms"]["count"] == 1
    assert record["latency_ms"]["max"] < 1000
    assert record["results_out"] == 2
    assert record["restarts"] == {"detect": 2}


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_memory_is_what_is_resident() -> None:
    told = Health(Meter(None, stages=1), one_stream()).record({}, {"here": os.getpid()})["memory_mb"]["here"]
    assert told == pytest.approx(psutil.Process().memory_info().rss / 1e6, rel=0.1)


def test_rates_are_those_of_the_last_records_without_the_time_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("engine.health.now_ns", lambda: int(clock[0] * NS_PER_S))
    meter = Meter(None, stages=1)
    state = one_stream()
    health = Health(meter, state)
    clock[0] = 20.0  # models were loaded
    health.begin()
    rates = []
    for second in range(8):
        for n in range(30 if second < 4 else 10):
            state.stream("0").frames_read += 1
            late = packet(n)
            if n % 10 == 9:
                late.end("dropped", "replaced")
            meter.count(late)
        clock[0] += 1.0
        record = health.record({}, {})
        rates.append((record["fps_in"], record["fps_out"]))
    assert rates[0] == rates[3] == (30.0, 27.0)
    assert rates[7] == (pytest.approx((30 + 4 * 10) / 5), pytest.approx((27 + 4 * 9) / 5))
    assert record["uptime_s"] == 8.0 and record["dropped"] == {"replaced": 16}
    whole = health.summary({}, {}, int(30.0 * NS_PER_S))
    assert (whole["duration_s"], whole["fps_in"], whole["fps_out"]) == (10.0, 16.0, 14.4)


def test_what_is_read_counts_as_in_even_while_nothing_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("engine.health.now_ns", lambda: int(clock[0] * NS_PER_S))
    meter, state = Meter(None, stages=1), RunState(None, ["0", "1"])
    health = Health(meter, state)
    meter.count(packet(0))
    clock[0] = 2.0
    state.stream("0").frames_read, state.stream("1").frames_read = 60, 20
    record = health.record({}, {})
    assert (record["frames_in"], record["fps_in"], record["results_out"], record["dropped"]) == (80, 40.0, 1, {})
    whole = health.summary({}, {}, int(2.0 * NS_PER_S))
    assert (whole["frames_in"], whole["fps_in"], whole["dropped"]) == (80, 40.0, {"unfinished": 79})
    assert whole["streams"] == {"0": {"frames_in": 60}, "1": {"frames_in": 20}}


def test_more_names_than_rows_share_the_last_row() -> None:
    table = SharedTable(None, columns=1, rows=3)
    for name in ("a", "b", "c", "d", "d"):
        table[name][0] += 1
    assert {name: int(table[name][0]) for name in table.names()} == {"a": 1, "b": 1, "other": 3}


def test_the_state_of_a_stream_is_the_same_for_all_who_look(tmp_path: Path) -> None:
    RunState(tmp_path, ["0", "1"]).stream("1").next_sequence = 5
    other = RunState(tmp_path, ["0", "1"])
    assert (other.stream("0").next_sequence, other.stream("1").next_sequence) == (0, 5)
