"""Whole pipelines of real processes: what goes in comes out, once, in order, and unmixed."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
from bench import Bench
from bench_parts import lines_of

from engine.errors import UserError
from engine.handle import WorkerHandle
from engine.layout import RunFolder


def outcome(bench: Bench, stream: str = "0") -> list[tuple[int, str, int | None]]:
    return [(line["sequence"], line["status"], line["number"]) for line in lines_of(bench.results, stream)]


def all_numbers(count: int) -> list[tuple[int, str, int | None]]:
    return [*((n, "ok", n % 251) for n in range(count)), (count, "end", None)]


@pytest.mark.parametrize("workers", [1, 2, None])
def test_a_file_gives_every_frame_once_and_in_order_with_any_number_of_workers(
    tmp_path: Path, workers: int | None
) -> None:
    bench = Bench(tmp_path)
    summary = bench.run(["200"], workers=workers)
    assert outcome(bench) == all_numbers(200)
    assert summary.exit_code == 0
    assert summary.stats["frames_in"] == summary.stats["results_out"] == 200
    assert summary.stats["dropped"] == {}
    assert summary.stats["latency_ms"]["count"] == 190
    assert summary.stats["stages"]["read"] == {"device": "test bench"}


@pytest.mark.parametrize("option", ["engine.transport=copy", "engine.links=tcp", "engine.in_flight=1"])
def test_other_ways_of_moving_frames_give_the_same_results(tmp_path: Path, option: str) -> None:
    bench = Bench(tmp_path)
    bench.run(["100"], option)
    assert outcome(bench) == all_numbers(100)


def test_a_runtime_folder_that_is_a_file_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bench.file))
    bench.run(["20"])
    assert outcome(bench) == all_numbers(20)


def test_a_source_that_ends_early_does_not_disturb_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    summary = bench.run(["5", "150", "0"], "numbers.fps=100")
    assert outcome(bench, "0") == all_numbers(5)
    assert outcome(bench, "1") == all_numbers(150)
    assert outcome(bench, "2") == all_numbers(0)
    assert summary.stats["streams"] == {name: {"frames_in": n} for name, n in (("0", 5), ("1", 150), ("2", 0))}


def test_a_slow_pipeline_drops_old_frames_of_a_live_source_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    summary = bench.run(["100"], "numbers.fps=200", "numbers.live=true", "read.delay_ms=30")
    lines = lines_of(bench.results)
    assert [line["sequence"] for line in lines] == list(range(101))
    dropped = [line for line in lines if line["status"] == "dropped"]
    assert {line["reason"] for line in dropped} == {"replaced"}
    assert summary.stats["dropped"] == {"replaced": len(dropped)}
    assert 0 < len(dropped) < 100
    seen = [line for line in lines if line["status"] == "ok"]
    assert all(line["number"] == line["sequence"] % 251 for line in seen)


def test_a_live_frame_that_has_become_too_old_is_ended_early(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    summary = bench.run(["30"], "numbers.fps=50", "numbers.live=true", "engine.max_age_ms=20", "read.delay_ms=40")
    assert summary.stats["dropped"]["too_old"] > 0
    assert summary.stats["frames_in"] == 30


def test_policy_every_makes_even_a_live_source_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(["60"], "numbers.live=true", "read.delay_ms=5", "engine.policy=every")
    assert outcome(bench) == all_numbers(60)


def test_replicas_share_the_work_and_the_order_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    text = bench.file.read_text().replace('["bench_parts:Read"]', '["bench_parts:Read"]\nreplicas = 2')
    bench.file.write_text(text.replace('["bench_parts:Middle"]', '["bench_parts:Middle"]\nreplicas = 2'))
    summary = bench.run(["150", "150"], "read.delay_ms=3", "middle.delay_ms=3")
    assert outcome(bench, "0") == outcome(bench, "1") == all_numbers(150)
    assert set(summary.stats["restarts"]) >= {"detect-0", "detect-1", "classify-0", "classify-1", "output"}


def test_a_batching_stage_gets_what_waits_of_all_streams(tmp_path: Path) -> None:
    bench = Bench(tmp_path, middle="Batched")
    bench.run(["100", "100", "100"], "middle.delay_ms=10", "middle.max_batch=4")
    lines = [line for line in lines_of(bench.results) if line["status"] == "ok"]
    assert len(lines) == 300
    assert max(line["batch"] for line in lines) > 1
    assert all(line["batch"] <= 4 for line in lines)
    assert outcome(bench, "2") == all_numbers(100)


def test_a_stage_that_fails_on_one_packet_loses_only_that(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    summary = bench.run(["50"], "middle.fail_every=10")
    lines = lines_of(bench.results)
    assert [line["sequence"] for line in lines if line["status"] == "dropped"] == [0, 10, 20, 30, 40]
    assert summary.stats["dropped"] == {"error:middle": 5}
    assert summary.stats["restarts"]["classify"] == 0


@pytest.mark.parametrize("middle", ["Mistyping", "Unsendable"])
def test_a_packet_that_a_stage_gave_what_its_type_forbids_is_lost_alone_and_at_once(
    tmp_path: Path, middle: str
) -> None:
    bench = Bench(tmp_path, middle=middle)
    summary = bench.run(["30"])
    assert [(n["sequence"], n["reason"]) for n in lines_of(bench.results) if n["status"] == "dropped"] == [
        (7, "malformed")
    ]
    assert (summary.stats["results_out"], summary.stats["dropped"]) == (29, {"malformed": 1})


def test_frames_may_grow_in_mid_stream(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(["60"], "numbers.grow_from=30", "read.delay_ms=5")
    assert outcome(bench) == all_numbers(60)


@pytest.mark.parametrize("workers", [1, None])
def test_a_limit_of_frames_or_time_ends_the_run_in_good_order(tmp_path: Path, workers: int | None) -> None:
    bench = Bench(tmp_path)
    bench.run(["100000"], "numbers.fps=100", workers=workers, max_frames=20)
    assert outcome(bench) == all_numbers(20)
    bench.results.unlink()
    started = time.monotonic()
    bench.run(["100000"], "numbers.fps=100", workers=workers, duration_s=0.5)
    assert time.monotonic() - started < 30
    assert lines_of(bench.results)[-1]["status"] == "end"


@pytest.mark.parametrize("workers", [1, None])
def test_a_stage_may_ask_for_the_end(tmp_path: Path, workers: int | None) -> None:
    bench = Bench(tmp_path)
    bench.run(["100000"], "numbers.fps=100", "write.stop_after=10", workers=workers)
    lines = lines_of(bench.results)
    assert lines[-1]["status"] == "end"
    assert 10 < len(lines) < 5000


@pytest.mark.parametrize("workers", [1, None])
def test_health_tells_rates_losses_latency_and_memory_while_it_runs(tmp_path: Path, workers: int | None) -> None:
    bench = Bench(tmp_path)
    health_path = tmp_path / "health.json"
    bench.run(["150"], "numbers.fps=60", f"write.health_path={health_path}", workers=workers)
    health = json.loads(health_path.read_text())
    assert health["frames_in"] > 0
    assert health["fps_out"] > 0
    assert health["dropped"] == {}
    assert set(health["stages_ms"]) == {"read", "middle", "write"}
    assert all(memory is None or memory > 1 for memory in health["memory_mb"].values())


@pytest.mark.parametrize("workers", [1, None])
@pytest.mark.parametrize(
    ("sources", "option", "sentence"),
    [
        (["none"], "read.delay_ms=0", "no number of frames"),
        (["5"], "read.missing_file=model.onnx", "there is no model model.onnx"),
    ],
)
def test_a_users_mistake_is_one_sentence_whichever_process_finds_it(
    tmp_path: Path, workers: int | None, sources: list[str], option: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Bench(tmp_path).run(sources, option, workers=workers)


def test_a_mistake_is_all_that_is_said_though_workers_still_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match="no number of frames"):
        Bench(tmp_path).run(["none"], "numbers.open_s=3", "read.open_s=60", "engine.heartbeat_s=0.05")
    assert not caplog.records


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_nothing_is_in_use_in_the_folder_that_a_mistake_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows would keep the folder."""
    in_use = []

    def remove(folder: RunFolder) -> None:
        in_use.append(str(folder.path) in Path("/proc/self/maps").read_text())
        removed(folder)

    removed = RunFolder.remove
    monkeypatch.setattr(RunFolder, "remove", remove)
    with pytest.raises(UserError):
        Bench(tmp_path).run(["none"])
    assert in_use == [False]


@pytest.mark.parametrize("workers", [1, None])
@pytest.mark.parametrize(
    ("option", "sentence"), [("numbers.broken_at=20", "frame 20 is broken"), ("write.broken_at=20", "the disk is full")]
)
def test_a_users_mistake_in_mid_run_ends_it_with_an_account_and_all_closed(
    tmp_path: Path, workers: int | None, option: str, sentence: str
) -> None:
    patience = ["write.close_s=3", "engine.silent_s=2", "engine.heartbeat_s=0.2"]
    summary = Bench(tmp_path).run(["50"], option, *patience, workers=workers)
    assert (summary.exit_code, summary.error) == (2, sentence)
    assert summary.stats["frames_in"] >= 10
    assert summary.stats["stages"]["write"] == {"file": "closed"}


def test_a_source_that_breaks_in_the_one_process_ends_the_run_with_a_sentence_and_an_account(tmp_path: Path) -> None:
    summary = Bench(tmp_path).run(["50"], "numbers.crash_at=20", workers=1)
    assert (summary.exit_code, summary.error) == (1, "a source failed: RuntimeError: the driver has hiccups")
    assert summary.stats["frames_in"] >= 10
    assert summary.stats["stages"]["write"] == {"file": "closed"}


def test_a_worker_that_cannot_start_makes_the_engine_give_up_with_a_reason(tmp_path: Path) -> None:
    summary = Bench(tmp_path).run(["5"], "middle.crash_in_open=true", "engine.restarts=1")
    assert summary.exit_code == 1
    assert summary.error is not None
    assert "classify failed 2 times" in summary.error
    assert "bad mood" in summary.error


def test_a_process_for_which_there_is_no_room_is_tried_again_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: WorkerHandle) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(WorkerHandle, "restart", refuse)
    summary = Bench(tmp_path).run(["5"], "middle.crash_in_open=true", "engine.restarts=1")
    assert summary.exit_code == 1
    assert summary.error is not None and "classify failed 2 times" in summary.error
    assert f"it cannot be started: {os.strerror(errno.EAGAIN)}" in summary.error


def test_a_worker_may_have_any_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    text = bench.file.read_text().replace('name = "detect"', 'name = "entry"\nreplicas = 2')
    text = text.replace('name = "classify"', 'name = "streams"').replace('name = "output"', 'name = "counters"')
    bench.file.write_text(text)
    bench.run(["30"])
    assert outcome(bench) == all_numbers(30)


def test_a_single_worker_process_is_first_and_last(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    head = bench.file.read_text().split("[[worker]]")[0]
    stages = '["bench_parts:Read", "bench_parts:Middle", "bench_parts:Write"]'
    bench.file.write_text(f'{head}[[worker]]\nname = "all"\nstages = {stages}\n')
    summary = bench.run(["100", "100"])
    assert outcome(bench, "0") == outcome(bench, "1") == all_numbers(100)
    assert set(summary.stats["restarts"]) == {"all", "capture-0", "capture-1"}


@pytest.mark.parametrize("workers", [1, None])
def test_a_lost_source_is_reported_once_and_may_take_its_time_to_come_back(tmp_path: Path, workers: int | None) -> None:
    bench = Bench(tmp_path)
    options = [
        "engine.source=bench_parts:Flaky",
        "numbers.live=true",
        "numbers.fps=50",
        "engine.silent_s=2",
        "engine.heartbeat_s=0.2",
    ]
    summary = bench.run(["30"], *options, workers=workers)
    lines = lines_of(bench.results)
    assert [line["sequence"] for line in lines] == list(range(32))
    assert [(n["sequence"], n["reason"]) for n in lines if n["status"] == "source_lost"] == [(10, "the cable is out")]
    assert summary.stats["frames_in"] == 30
    assert sum(summary.stats["restarts"].values()) == 0


def test_a_live_source_that_hangs_is_opened_anew_in_a_new_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    options = [
        "engine.source=bench_parts:Hanging",
        "numbers.live=true",
        "numbers.fps=50",
        "engine.silent_s=2",
        "engine.heartbeat_s=0.2",
    ]
    summary = bench.run(["30"], *options)
    assert summary.stats["restarts"]["capture-0"] == 1
    assert [line["sequence"] for line in lines_of(bench.results)] == list(range(31))


def test_every_stream_gets_its_share_of_a_slow_detector(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    sources = ["200", "200", "200"]
    bench.run(sources, "numbers.live=true", "numbers.fps=50", "read.delay_ms=15", "engine.max_age_ms=5000")
    seen = [sum(line["status"] == "ok" for line in lines_of(bench.results, stream)) for stream in "012"]
    assert min(seen) > 0.6 * max(seen), seen
