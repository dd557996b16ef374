"""The parts' own logic, without a clock or a device."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks import app as app_module
from benchmarks import latency, program
from benchmarks import tune as tune_module
from benchmarks.app import PARTS, file_name
from benchmarks.chart import draw_charts
from benchmarks.devices import try_devices
from benchmarks.figures import Chart, Part, Session, ratio
from benchmarks.latency import flip_times
from benchmarks.machine import Machine
from benchmarks.overload import memory_growth_mb
from benchmarks.program import STREAMS, STREAMS_S, WARM_UP_FRAMES, median_latency_ms, program_row, slowest_share
from benchmarks.report import as_markdown, make_report, table
from benchmarks.running import Run
from benchmarks.tune import Candidate, Score, groupings, tune
from engine.clock import NS_PER_S
from engine.config import Config, load_config
from engine.errors import UserError
from engine.stage import SourceInfo
from stages import devices
from stages.app import default_config
from stages.sessions import How, Network, Place
from stages.sources.live import FeedLost

PERIOD_NS = 40_000_000


def make_machine(load: float) -> Machine:
    loads = (load, load, load)
    return Machine(cpu="Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", cores=2, memory_gb=8.0, system="Linux",
                   versions={}, load_before=loads, load_after=loads)  # fmt: skip


def result(sequence: int, reason: str | None, latency_ms: float | None, stream: str = "0") -> dict[str, Any]:
    status, person = ("dropped", None) if latency_ms is None else ("ok", {"age_frames": 0})
    return {"stream": stream, "sequence": sequence, "status": status, "reason": reason, "latency_ms": latency_ms,
            "person": person}  # fmt: skip


def test_latencies_of_skipped_and_detected_frames_and_the_slowest_stream_are_read_from_the_results() -> None:
    results = [result(n, None, 900.0) for n in range(WARM_UP_FRAMES)]
    results += [result(20 + n, "still" if n % 2 else None, 4.0 if n % 2 else 40.0) for n in range(6)]
    results += [result(40, "replaced", None), *(result(n, None, 40.0, "1") for n in range(8))]
    run = Run(stats={"streams": ["0", "1"], "dropped": {"replaced": 1, "too_old": 2}, "latency_ms": {}, "fps_out": 30.0,
                     "frames_in": 25}, results=results, cpu_s=0.5)  # fmt: skip
    assert median_latency_ms(run, skipped=True) == 4.0 and median_latency_ms(run, skipped=False) == 40.0
    doubt = {"status": "unsure", "person": {"age_frames": 1}}
    repeated = [result(50 + n, "no_stick", 4.0) | doubt for n in range(16)]
    assert median_latency_ms(replace(run, results=results + repeated), skipped=False) == 40.0
    assert slowest_share(run) == pytest.approx(8 / ((WARM_UP_FRAMES + 6 + 8) / 2), abs=0.01)
    row = program_row("30 fps", run)
    assert (row["dropped"], row["cpu_ms_per_frame"]) == (3, 20.0)


def test_memory_that_grows_is_seen_and_memory_that_is_not_known_is_no_figure() -> None:
    growing = [(float(second), 100.0 + second) for second in range(40)]
    assert memory_growth_mb(Run(stats={"duration_s": 60.0}, results=[], memory=growing)) == 20.0
    assert memory_growth_mb(Run(stats={"duration_s": 60.0}, results=[], memory=[])) is None


def test_a_device_that_fails_is_listed_with_the_reason() -> None:
    def fail(place: Place, data: bytes, how: How) -> Network:
        raise RuntimeError("driver is too old")

    cuda, npu = (next(p for p in devices.ORDER if p.device == name) for name in ("cuda", "openvino-npu"))
    candidates = [devices.Candidate(cuda), devices.Candidate(npu, "no {} here", "install its driver")]
    rows = try_devices(candidates, devices.Machine(load=fail), print).rows
    assert {(row["device"], row["runs"], row["reason"], row.get("mend")) for row in rows} == {
        ("CUDA", "no", "driver is too old", None),
        ("NPU", "no", "no NPU here", "install its driver"),
    }


def test_a_camera_that_sees_the_flips_is_timed() -> None:
    shown = [False]
    taken = flip_times(lambda is_white: shown.__setitem__(0, is_white), lambda: 200.0 if shown[0] else 20.0, 5)
    assert len(taken) == 5


def test_flips_come_at_any_moment_between_two_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera with a picture each 40 ms; the clock is the test's own."""
    clock, flipped = [0], [False]
    monkeypatch.setattr(latency, "now_ns", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + int(seconds * NS_PER_S)))

    def look() -> float:
        clock[0] += PERIOD_NS - clock[0] % PERIOD_NS
        return 200.0 if flipped[0] else 20.0

    taken = flip_times(lambda is_white: flipped.__setitem__(0, is_white), look, 60, PERIOD_NS / NS_PER_S)
    assert min(taken) < 0.2 * PERIOD_NS and max(taken) > 0.8 * PERIOD_NS


def test_a_camera_that_is_lost_meanwhile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class Lost:
        info = SourceInfo(640, 480, 30.0, live=True)

        def read(self, allocate: object) -> object:
            raise FeedLost("no picture came")

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(latency, "has_display", lambda: True)
    monkeypatch.setattr(latency, "_open_camera", lambda index: Lost())
    monkeypatch.setattr(latency, "_window", lambda: lambda is_white: None)
    with pytest.raises(UserError, match="camera 3 was lost"):
        latency.measure(quiet_session(tmp_path), 3)
    assert closed


def test_a_camera_that_looks_elsewhere_is_refused() -> None:
    with pytest.raises(UserError, match="no difference"):
        flip_times(lambda is_white: None, lambda: 90.0, 5)


def test_a_faster_candidate_that_loses_a_pose_is_not_better() -> None:
    assert Score(80.0, 10.0, 11).beats(Score(50.0, 10.0, 11), needed=11)
    assert not Score(80.0, 10.0, 10).beats(Score(50.0, 10.0, 11), needed=11)
    assert Score(80.0, 10.0, 10).beats(Score(50.0, 10.0, 11), needed=10), "where a pose may be lost"
    assert not Score(51.0, 10.0, 11).beats(Score(50.0, 10.0, 11), needed=11)


class Machinery:
    """Stands for runs of the program: what a configuration gives is told by a rule, and the asking is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gives: Callable[[Config], tuple[float, int]]) -> None:
        self.asked: list[list[str]] = []
        self._gives = gives
        monkeypatch.setattr(tune_module, "run_program", self._run)
        monkeypatch.setattr(tune_module, "named_holds", lambda results: results[0]["named"])

    def _run(self, arguments: Sequence[str], folder: Path) -> Run:
        self.asked.append(list(arguments))
        fps, named = self._gives(load_config(default_config(), Path(arguments[arguments.index("--config") + 1])))
        return Run(stats={"fps_out": fps, "latency_ms": {"p95": 40.0}}, results=[{"named": named}])


def quiet_session(folder: Path) -> Session:
    return Session(folder=folder, say=lambda text: None)


@pytest.mark.parametrize(("loss", "threads"), [(0, 0), (1, 1)])
def test_tuning_keeps_what_is_worth_it_and_names_as_many_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: int, threads: int
) -> None:
    def gives(config: Config) -> tuple[float, int]:
        one_thread = config.sections["detect"].threads == 1  # faster, and costs a pose
        fps = 50.0 * (1.2 if len(config.workers) == 2 else 1.0) * (1.5 if one_thread else 1.0)
        return fps * (1.01 if config.engine.in_flight == 4 else 1.0), 10 if one_thread else 11

    Machinery(monkeypatch, gives)
    out = tmp_path / "tuned.toml"
    part = tune(quiet_session(tmp_path), out, loss)
    found = load_config(default_config(), out)
    assert (len(found.workers), found.sections["detect"].threads, found.engine.in_flight) == (2, threads, "auto")
    taken = [row for row in part.rows if row.get("taken")]
    assert len(taken) == 1 + loss and part.rows[-1]["fps"] == max(row["fps"] for row in taken)
    assert part.rows[-2]["tried"] == "as configured, again" and part.rows[-2]["fps"] == 50.0


def test_what_was_only_luck_while_tuning_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter(range(100))

    def gives(config: Config) -> tuple[float, int]:
        return (99.0 if next(runs) == 1 else 50.0), 11

    machinery = Machinery(monkeypatch, gives)
    part = tune(quiet_session(tmp_path), tmp_path / "tuned.toml")
    assert [row.get("taken") for row in part.rows].count("yes") == 1
    assert "nothing is worth changing" in part.notes[0]
    assert load_config(default_config(), tmp_path / "tuned.toml") == load_config(default_config())
    assert all("--fast" in arguments for arguments in machinery.asked)


def test_settings_that_do_not_run_here_are_told_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives(config: Config) -> tuple[float, int]:
        if len(config.workers) < 4:
            raise UserError("too little memory")
        if config.engine.in_flight == 4:
            raise KeyboardInterrupt
        return (80.0 if config.engine.in_flight == 2 else 50.0), 11

    Machinery(monkeypatch, gives)
    part = tune(quiet_session(tmp_path), tmp_path / "tuned.toml")
    assert sum("does not run" in str(row["tried"]) for row in part.rows) == len(
        groupings(load_config(default_config()).workers)
    )
    assert load_config(default_config(), tmp_path / "tuned.toml").engine.in_flight == 2, "found before it was stopped"


def test_a_search_that_found_nothing_before_it_was_stopped_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter(range(100))

    def gives(config: Config) -> tuple[float, int]:
        if next(runs) == 2:
            raise KeyboardInterrupt
        return 50.0, 11

    Machinery(monkeypatch, gives)
    out = tmp_path / "tuned.toml"
    out.write_text("# of last week\n")
    with pytest.raises(KeyboardInterrupt):
        tune(quiet_session(tmp_path), out)
    assert out.read_text() == "# of last week\n"


def test_an_earlier_searchs_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Machinery(monkeypatch, lambda config: (50.0, 11))
    out = tmp_path / "tuned.toml"
    out.write_text("# of last week\n")
    tune(quiet_session(tmp_path), out)
    assert load_config(default_config(), out) == load_config(default_config())
    assert (tmp_path / "tuned.earlier-1.toml").read_text() == "# of last week\n"


def test_the_best_that_does_not_run_a_second_time_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster = iter(range(100))

    def gives(config: Config) -> tuple[float, int]:
        if config.engine.in_flight != 2:
            return 50.0, 11
        if next(faster) == 0:
            return 80.0, 11
        raise UserError("too little memory")

    Machinery(monkeypatch, gives)
    part = tune(quiet_session(tmp_path), tmp_path / "tuned.toml")
    assert part.rows[-1]["tried"] == "the best, again (does not run)"
    assert load_config(default_config(), tmp_path / "tuned.toml") == load_config(default_config())


def test_several_streams_are_each_given_a_clip_of_ten_frames_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(arguments: Sequence[str], folder: Path) -> Run:
        streams = [str(n) for n in range(arguments.count("--source"))]
        assert arguments[arguments.index("--duration") + 1] == str(STREAMS_S) and "--realtime" in arguments
        results = [result(n, None, 40.0, stream) for stream in streams for n in range(100 if stream != "7" else 65)]
        return Run(stats={"streams": streams, "dropped": {}, "latency_ms": {"p95": 9.0}, "fps_out": 80.0,
                          "frames_in": len(results)}, results=results)  # fmt: skip

    monkeypatch.setattr(program, "run_program", run)
    monkeypatch.setattr(program, "every_third_frame", lambda path: path)
    rows = program._streams(quiet_session(tmp_path))
    assert [row["way"] for row in rows] == [f"{count} x 10 fps" for count in STREAMS]
    assert [row["slowest_stream"] for row in rows] == [1.0, 1.0, 1.0, ratio(65, (7 * 100 + 65) / 8)]


def test_the_program_accepts_what_tuning_writes(tmp_path: Path) -> None:
    workers = load_config(default_config()).workers
    stages = [stage for worker in workers for stage in worker.stages]
    for group in groupings(workers):
        file = tmp_path / "tuned.toml"
        candidate = Candidate({"detect.backend": "openvino", "detect.threads": 2, "engine.in_flight": 2}, group)
        file.write_text(candidate.as_toml())
        config = load_config(default_config(), file)
        assert config.engine.in_flight == 2
        assert [stage for worker in config.workers for stage in worker.stages] == stages
        assert len(config.workers) < len(workers)


@pytest.mark.parametrize(("stops_by", "code"), [(UserError("no model"), "no model"), (KeyboardInterrupt(), "stopped")])
def test_a_run_that_ends_early_reports_what_it_has_under_another_name(
    stops_by: BaseException,
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(session: Session) -> Part:
        raise stops_by

    hop = Part(name="hop", title="Hop", rows=[{"way": "ring", "p50_ms": 0.1}])
    parts = {name: (text, (lambda session: hop) if name == "hop" else stop) for name, (text, _) in PARTS.items()}
    monkeypatch.setattr(app_module, "PARTS", parts)
    assert app_module.main(["--out-dir", str(tmp_path)]) == 2
    assert code in capsys.readouterr().err
    names = {file.stem.rpartition("-cores-")[2] for file in tmp_path.iterdir()}
    assert names == {"hop"}


def test_a_part_of_the_set_never_replaces_the_whole(tmp_path: Path) -> None:
    slug = make_machine(0.0).slug
    assert slug == "intel-core-i5-8250u-1.60ghz-2-cores"
    newer = replace(make_machine(0.0), precisions=["f32", "bf16"])
    assert newer.slug == "intel-core-i5-8250u-1.60ghz-bf16-2-cores"
    session = quiet_session(tmp_path)
    assert file_name(slug, ["hop", "overload", "networks", "stages", "program"], session) == slug
    assert file_name(slug, ["hop"], replace(session, quick=True)) == f"{slug}-hop-quick"
    assert file_name(slug, ["hop"], replace(session, long=True)) == f"{slug}-hop"
    assert file_name(slug, ["overload"], replace(session, long=True)) == f"{slug}-overload-long"
    assert file_name(slug, ["peers"], session) == f"{slug}-peers"
    assert file_name(slug, ["peers"], session, 60) == f"{slug}-peers-60-frames"


def test_a_busy_machine_is_told() -> None:
    part = Part(name="hop", title="Hop", rows=[{"way": "ring", "p50_ms": 0.1234}], notes=["A note."])
    assert "don't trust" in as_markdown(make_report(make_machine(3.0), [part], quick=False))
    quiet = as_markdown(make_report(make_machine(0.1), [part], quick=False))
    assert "don't trust" not in quiet and "| ring | 0.123 |" in quiet and "- A note." in quiet


def test_columns_without_any_value_are_left_out() -> None:
    assert table([{"a": 1, "b": None}, {"a": None, "c": 2.0}]).splitlines()[0] == "| a | c |"


@pytest.mark.parametrize(("column", "better"), [("p50_ms", "p50 ms, less"), ("fps", "fps, more")])
def test_a_chart_says_whether_more_or_less_is_better(column: str, better: str) -> None:
    part = Part(name="hop", title="Hop", rows=[{"way": "ring", column: 2.0}], chart=Chart(("way",), column))
    assert f">Hop: {better} is better<" in draw_charts([part])


def test_a_network_that_is_a_hundred_times_as_fast_does_not_hide_the_others() -> None:
    rows = [{"network": name, "threads": 1, "fps": fps} for name, fps in (("a", 10.0), ("b", 9e5), ("b", 3e5))]
    part = Part(name="networks", title="Each", rows=rows, chart=Chart(("threads",), "fps", panels="network"))
    drawn = draw_charts([part])
    assert ">Each, a: fps, more is better<" in drawn and ">Each, b: fps, more is better<" in drawn
    a, b, c = (float(width) for width in re.findall(r'#3b7dd8" x="\d+" y="\d+" width="([\d.]+)"', drawn))
    assert a == b == pytest.approx(3 * c, abs=0.2)
    assert ">900000</text>" in drawn
