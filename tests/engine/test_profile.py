"""The trace of a run: one event for each stage of each frame, and a file that is whole at any moment."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench import Bench

from engine.packet import Packet, Span
from engine.profile import Profile


def events_of(file: Path) -> list[dict[str, Any]]:
    return [event for event in json.loads(file.read_text()) if event["ph"] == "X"]


def packet(sequence: int, begins_us: int) -> Packet:
    spans = [Span("read", (begins_us + 1) * 1000, (begins_us + 3) * 1000)]
    return Packet(stream="0", sequence=sequence, pts=0.0, captured_at_ns=begins_us * 1000, spans=spans)


@pytest.mark.parametrize(("workers", "processes"), [(None, [1, 2, 3]), (1, [1, 1, 1])])
def test_every_stage_of_every_frame_is_an_event_of_its_worker(
    tmp_path: Path, workers: int | None, processes: list[int]
) -> None:
    trace = tmp_path / "trace.json"
    trace.write_text("of an earlier run")
    Bench(tmp_path).run(["40"], f"engine.profile={trace}", workers=workers)
    events = events_of(trace)
    stages = dict(zip(["read", "middle", "write"], processes, strict=True))
    assert Counter((e["name"], e["pid"]) for e in events if e["pid"]) == {item: 40 for item in stages.items()}
    lives = {e["name"]: e for e in events if not e["pid"]}
    assert list(lives) == [f"0:{number}" for number in range(40)]
    for event in events:
        assert event["dur"] >= 0
        life = lives[f"0:{event['args'].get('sequence', 0)}"]
        if event["pid"]:
            assert life["ts"] <= event["ts"] <= event["ts"] + event["dur"] <= life["ts"] + life["dur"] + 1e-3


def test_frames_that_overlap_are_drawn_beside_each_other(tmp_path: Path) -> None:
    profile = Profile(tmp_path / "trace.json", ["0"], ["read"], fresh=True)
    for sequence, (begins_us, ends_us) in enumerate([(0, 10), (5, 15), (12, 20)]):
        profile.add(packet(sequence, begins_us), ends_us * 1000)
    assert [e["tid"] for e in events_of(tmp_path / "trace.json") if not e["pid"]] == [0, 1, 0]


def test_a_restarted_worker_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for sequence in range(2):
        Profile(tmp_path / "trace.json", ["0"], ["read"], fresh=sequence == 0).add(packet(sequence, 0), 10_000)
    assert [e["name"] for e in events_of(tmp_path / "trace.json")] == ["0:0", "read", "0:1", "read"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_trace_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("engine.profile._log.warning", lambda text, *values: said.append(text % values))
    profile = Profile(Path("/dev/full"), ["0"], ["read"], fresh=True)
    profile.add(packet(0, 0), 10_000)
    assert len(said) == 1 and "engine.profile: cannot write /dev/full any more: No space left" in said[0]


def test_a_disk_that_fills_up_in_the_middle_of_an_event_leaves_a_trace_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.profile._log.warning", lambda text, *values: None)
    trace = tmp_path / "trace.json"
    profile = Profile(trace, ["0"], ["read"], fresh=True)
    profile.add(packet(0, 0), 10_000)
    assert profile._file is not None
    whole = profile._file

    class Full:
        """Has room for ten more bytes."""

        def write(self, data: bytes) -> int:
            return whole.write(data[:10])

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

    profile._file = Full()  # type: ignore[assignment]
    profile.add(packet(1, 20), 30_000)
    profile.add(packet(2, 40), 50_000)
    assert [event["name"] for event in events_of(trace) if not event["pid"]] == ["0:0"]
