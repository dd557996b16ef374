"""Deaths: of any worker, of the supervisor, of a consumer; and orderly ends by signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench import Bench, children_of, summary_of, wait_until
from bench_parts import lines_of

from engine.health import memory_mb
from engine.leftovers import own_names

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and /dev/shm")


def sequences_and_wrong(bench: Bench, stream: str = "0") -> tuple[list[int], list[int]]:
    lines = lines_of(bench.results, stream)
    wrong = [n["sequence"] for n in lines if n["status"] == "ok" and n["number"] != n["sequence"] % 251]
    return [line["sequence"] for line in lines], wrong


def capture_pid(bench: Bench, process: subprocess.Popen[str]) -> int:
    """The worker that runs none of the stages which say their process id, and reads no module of theirs."""
    for pid in children_of(process.pid) - set(bench.pids().values()):
        threads = [path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")]
        links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").glob("*") if path.exists()]
        if len(threads) > 2 and any("streams" in link for link in links):
            return pid
    raise AssertionError("there is no capture process")


def leftovers(pid: int) -> list[str]:
    """Files in shared memory and in the temporary folders that carry a supervisor's process id."""
    folders = [Path("/dev/shm"), Path("/tmp"), Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")]
    return [str(path) for folder in folders for path in folder.glob(f"*-{pid}-*")]


@pytest.mark.parametrize(
    ("victim", "policy"),
    [("Read", "latest"), ("Middle", "latest"), ("Write", "latest"), ("Read", "every"), ("Write", "every")],
)
def test_a_killed_worker_is_replaced_and_each_frame_still_gives_exactly_one_result(
    tmp_path: Path, victim: str, policy: str
) -> None:
    bench = Bench(tmp_path)
    live, count = ("true", 350) if policy == "latest" else ("false", 150)
    process = bench.start([str(count)], "numbers.fps=60", f"numbers.live={live}", "read.delay_ms=5", "write.delay_ms=2")
    wait_until(lambda: bench.line_count() > 40)
    before = bench.pids()[victim]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: bench.pids()[victim] != before)
    summary = summary_of(process)
    sequences, wrong = sequences_and_wrong(bench)
    assert sequences == list(range(count + 1))
    assert wrong == []
    assert sum(summary["stats"]["restarts"].values()) == 1
    lost = summary["stats"]["dropped"].get("worker_lost", 0)
    assert lost <= 3
    assert summary["stats"]["frames_in"] == count
    assert lines_of(bench.results)[-2]["status"] == "ok"


def test_a_killed_capture_goes_on_with_the_next_frame_of_the_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["150"], "numbers.fps=60")
    wait_until(lambda: bench.line_count() > 40)
    os.kill(capture_pid(bench, process), signal.SIGKILL)
    summary = summary_of(process)
    sequences, wrong = sequences_and_wrong(bench)
    assert summary["stats"]["restarts"]["capture-0"] == 1
    assert sequences == list(range(151))
    assert wrong == []
    assert sum(line["status"] == "ok" for line in lines_of(bench.results)) >= 140


def test_the_time_of_a_live_stream_goes_on_after_its_capture_was_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["150"], "numbers.fps=60", "numbers.live=true")
    wait_until(lambda: bench.line_count() > 40)
    os.kill(capture_pid(bench, process), signal.SIGKILL)
    assert summary_of(process)["stats"]["restarts"]["capture-0"] == 1
    times = [line["pts"] for line in lines_of(bench.results) if line["status"] == "ok"]
    assert times == sorted(set(times))
    assert times[-1] > 150 / 30  # and the time that it was away


def test_killing_everybody_again_and_again_loses_and_doubles_no_result(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(
        ["300", "300"], "numbers.fps=60", "read.delay_ms=3", "engine.restarts=20", "engine.write_off_ms=300"
    )
    for victim in ("Read", "Write", "Read", "Write"):
        count = bench.line_count()
        wait_until(lambda count=count: bench.line_count() > count + 40)  # type: ignore[misc]
        before = bench.pids()[victim]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda victim=victim, before=before: bench.pids()[victim] != before)  # type: ignore[misc]
    summary_of(process)
    for stream in ("0", "1"):
        sequences, wrong = sequences_and_wrong(bench, stream)
        assert sequences == list(range(301))
        assert wrong == []


def test_a_worker_that_hangs_is_ended_and_replaced(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    summary = bench.run(["60"], "middle.hang_at=20", "engine.silent_s=2", "engine.heartbeat_s=0.2")
    assert summary.stats["restarts"]["classify"] == 1
    assert [line["sequence"] for line in lines_of(bench.results)] == list(range(61))
    assert summary.stats["dropped"]["worker_lost"] >= 1


def test_the_frame_of_a_killed_worker_is_written_off_soon_however_long_workers_may_be_silent(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["60"], "middle.hang_at=20", "engine.silent_s=600")
    wait_until(lambda: bench.line_count() >= 20)
    time.sleep(0.5)  # it hangs
    os.kill(bench.pids()["Middle"], signal.SIGKILL)
    dropped = summary_of(process)["stats"]["dropped"]
    assert sequences_and_wrong(bench) == (list(range(61)), []) and dropped["worker_lost"] >= 1


def test_a_worker_that_has_much_to_close_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    summary = Bench(tmp_path).run(["5"], "write.close_s=4", "engine.silent_s=2", "engine.heartbeat_s=0.2")
    assert summary.stats["stages"]["write"] == {"file": "closed"}


def test_the_death_of_a_worker_that_closes_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["5"], "write.close_s=50")
    wait_until(lambda: bench.line_count() == 6 and bench.pids()["Read"] not in children_of(process.pid))
    os.kill(bench.pids()["Write"], signal.SIGKILL)
    summary = summary_of(process)
    assert summary["exit_code"] == 1 and "worker output died while the run ended" in summary["error"]


def test_where_a_worker_dies_while_the_run_ends_what_is_under_way_still_comes_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["1000"], "numbers.fps=30", "write.delay_ms=150")
    wait_until(lambda: bench.line_count() > 15)
    first = bench.pids()["Read"]
    process.send_signal(signal.SIGINT)
    time.sleep(0.4)  # what is under way takes a second, and the first worker has passed it on long since
    os.kill(first, signal.SIGKILL)
    summary = summary_of(process)
    assert summary["exit_code"] == 1 and "died while the run ended" in summary["error"]
    assert "unfinished" not in summary["stats"]["dropped"]


def test_a_worker_that_breaks_while_the_run_ends_is_told(tmp_path: Path) -> None:
    bench, failing = Bench(tmp_path), tmp_path / "failing"
    slow = ["numbers.fps=30", "write.delay_ms=150", "engine.errors_in_a_row=1", f"write.failing_file={failing}"]
    process = bench.start(["1000"], *slow)
    wait_until(lambda: bench.line_count() > 15)
    process.send_signal(signal.SIGINT)
    time.sleep(0.15)  # what is under way takes a second
    failing.touch()
    summary = summary_of(process)
    assert summary["exit_code"] == 1 and "the encoder is lost" in summary["error"]


def test_a_worker_that_breaks_may_close_for_long_too_and_says_why_it_broke(tmp_path: Path) -> None:
    patience = ["engine.silent_s=2", "engine.heartbeat_s=0.2", "engine.restarts=0", "engine.errors_in_a_row=3"]
    summary = Bench(tmp_path).run(["50"], "write.failing_from=20", "write.close_s=4", *patience)
    assert summary.error is not None and "the encoder is lost" in summary.error
    assert summary.stats["stages"]["write"] == {"file": "closed"}


def test_a_worker_that_hangs_does_not_hold_up_an_end_by_a_mistake(tmp_path: Path) -> None:
    options = ["numbers.fps=30", "numbers.live=true", "middle.hang_at=20", "numbers.broken_at=60"]
    summary = summary_of(Bench(tmp_path).start(["5000"], *options), timeout_s=30)
    assert (summary["exit_code"], summary["error"]) == (2, "frame 60 is broken")


def test_one_ctrl_c_ends_a_run_that_closes_for_long(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["5000"], "numbers.fps=60", "write.broken_at=20", "write.close_s=50")
    wait_until(lambda: bench.line_count() >= 20)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert summary_of(process, timeout_s=30)["error"] == "the disk is full"


def test_a_pause_of_the_whole_program_costs_no_worker_and_no_frame(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    patience = ["engine.silent_s=2", "engine.heartbeat_s=0.2", "engine.write_off_ms=100"]
    process = bench.start(["150"], "numbers.fps=60", "read.delay_ms=5", *patience)
    wait_until(lambda: bench.line_count() > 40)
    family = [process.pid, *children_of(process.pid)]  # the supervisor first, which then finds all others silent
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in family:
        os.kill(pid, signal.SIGCONT)
    summary = summary_of(process)
    assert sum(summary["stats"]["restarts"].values()) == 0
    assert [line["status"] for line in lines_of(bench.results)] == ["ok"] * 150 + ["end"]


def test_a_frozen_consumer_stops_neither_capture_nor_supervisor_and_memory_stays_bounded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["100000"], "numbers.fps=100", "numbers.live=true", "engine.silent_s=3")
    wait_until(lambda: bench.line_count() > 50)
    frozen = bench.pids()["Write"]
    others = (children_of(process.pid) | {process.pid}) - {frozen}
    before_mb = {pid: memory_mb(pid) for pid in others}
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: bench.pids()["Write"] != frozen)
    for pid in others & {process.pid, *children_of(process.pid)}:
        assert memory_mb(pid) < before_mb[pid] + 10, "some 300 frames of 230 KB came meanwhile"
    count = bench.line_count()
    wait_until(lambda: bench.line_count() > count + 100)
    process.send_signal(signal.SIGINT)
    summary = summary_of(process)
    sequences, wrong = sequences_and_wrong(bench)
    assert sequences == list(range(len(sequences)))
    assert wrong == []
    assert all(n == 0 or name == "output" for name, n in summary["stats"]["restarts"].items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_ends_in_good_order_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["100000"], "numbers.fps=100")
    wait_until(lambda: bench.line_count() > 50)
    workers = children_of(process.pid)
    started = time.monotonic()
    for pid in [*workers, process.pid]:
        os.kill(pid, number)
    summary = summary_of(process)
    assert time.monotonic() - started < 10
    assert process.returncode == 0
    lines = lines_of(bench.results)
    assert lines[-1]["status"] == "end"
    assert [line["sequence"] for line in lines] == list(range(len(lines)))
    assert "closed Write" in bench.pid_file.read_text()
    assert summary["stats"]["frames_in"] == len(lines) - 1
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert leftovers(process.pid) == []


def test_a_killed_supervisor_leaves_no_process_no_segment_and_no_socket_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["100000", "100000"], "numbers.fps=50")
    wait_until(lambda: bench.line_count() > 50)
    workers = children_of(process.pid)
    assert leftovers(process.pid) != []
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    wait_until(lambda: leftovers(process.pid) == [])
    assert "closed Write" in bench.pid_file.read_text()
    process.communicate()


def test_a_supervisor_killed_while_its_workers_start_leaves_nothing_that_the_next_does_not_remove(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["100000"], "numbers.fps=50")
    wait_until(lambda: len(children_of(process.pid)) >= 3)
    workers = children_of(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    bench.run(["3"])
    assert leftovers(process.pid) == []
    process.communicate()


def test_what_a_dead_program_left_behind_is_swept_by_the_next(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    stale = Path(f"/dev/shm/{own_names('frames')}-{dead.pid}-0-abcd")
    stale.write_bytes(b"x")
    Bench(tmp_path).run(["3"])
    assert not stale.exists()


@pytest.mark.parametrize("option", ["engine.transport=copy", "engine.links=tcp"])
def test_other_ways_of_moving_frames_survive_deaths_too(tmp_path: Path, option: str) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["150"], "numbers.fps=60", option)
    wait_until(lambda: bench.line_count() > 40)
    os.kill(bench.pids()["Read"], signal.SIGKILL)
    os.kill(capture_pid(bench, process), signal.SIGKILL)
    summary_of(process)
    sequences, wrong = sequences_and_wrong(bench)
    assert sequences == list(range(151))
    assert wrong == []


def test_the_end_of_a_stream_arrives_although_the_last_worker_is_dead_just_then(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["60"], "numbers.fps=60")
    wait_until(lambda: bench.line_count() > 50)
    os.kill(bench.pids()["Write"], signal.SIGKILL)
    summary_of(process)
    lines = lines_of(bench.results)
    assert [line["sequence"] for line in lines] == list(range(61))
    assert [line["status"] for line in lines].count("end") == 1


def test_a_hanging_worker_does_not_keep_the_program_from_ending(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.start(["100000"], "numbers.fps=100", "middle.hang_at=20")
    wait_until(lambda: bench.line_count() >= 20)
    workers = children_of(process.pid)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    stats = summary_of(process)["stats"]
    assert time.monotonic() - started < 10
    assert stats["frames_in"] == stats["results_out"] + sum(stats["dropped"].values())
    assert stats["dropped"]["unfinished"] > 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert leftovers(process.pid) == []
