"""Recordings, read back by the library that players use."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engine.clock import now_ns
from engine.errors import UserError
from engine.packet import FrameRef
from engine.stage import Context
from stages.outputs import owned
from stages.packets import ArnisPacket
from stages.record import (
    Record,
    Recorder,
    RecordSettings,
    VideoWriter,
    files_of,
    finish_recordings,
    raw_path,
    recording_path,
)


class NoFrames:
    @contextmanager
    def read(self, ref: FrameRef) -> Any:
        yield np.full((48, 64, 3), 30, np.uint8)


def context(streams: Sequence[str] = ("0",), restarts: int = 0) -> Context:
    return Context(streams=list(streams), frames=NoFrames(), restarts=restarts,
                   request_stop=lambda: None, health=dict)  # fmt: skip


def packet(pts: float, canvas: np.ndarray | None, stream: str = "0", live: bool = False) -> ArnisPacket:
    expires = now_ns() + 10**12 if live else None
    return ArnisPacket(stream=stream, sequence=0, pts=pts, captured_at_ns=now_ns(), canvas=canvas,
                       expires_at_ns=expires, frame=FrameRef("s", 0, 2, 64, 48))  # fmt: skip


def picture(level: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def record(path: Path, times: Sequence[float], *, restarts: int = 0, **settings: Any) -> None:
    stage = Record(RecordSettings(path=str(path), when_slow="wait", **settings))
    stage.open(context(restarts=restarts))
    for i, pts in enumerate(times):
        stage.process(packet(pts, picture(40 + 5 * i)))
    stage.close()


def finish(path: Path, restarts: int = 0) -> dict[str, str]:
    """As the program does at its end."""
    return finish_recordings(RecordSettings(path=str(path)), ["0"], restarts)


def read_back(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times in seconds and uint8 BGR pictures."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(frame.time) for frame in frames], [frame.to_ndarray(format="bgr24") for frame in frames]


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.033, 0.5, 0.51, 2.0]
    record(tmp_path / "out.mkv", times)
    found, pictures = read_back(tmp_path / "out.mkv")
    assert found == pytest.approx(times, abs=1e-3)
    assert [round(float(shown.mean()) / 5) * 5 for shown in pictures] == [40, 45, 50, 55, 60]


def test_an_mp4_is_made_at_the_end_and_nothing_else_is_left(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.7]
    record(tmp_path / "out.mp4", times)
    other = tmp_path / "out.part"
    other.write_text("somebody's")
    assert finish(tmp_path / "out.mp4") == {}
    assert other.read_text() == "somebody's"
    other.unlink()
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    assert read_back(tmp_path / "out.mp4")[0] == pytest.approx(times, abs=2e-3)


@pytest.mark.skipif(sys.platform == "win32", reason="names have no colon there")
def test_a_recording_may_be_called_by_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record(Path("10:30.mp4"), [0.0, 0.1])
    assert finish(Path("10:30.mp4")) == {}
    assert len(read_back(tmp_path / "10:30.mp4")[0]) == 2


@pytest.mark.parametrize("number", [1, 6, 7, 8])
def test_an_mp4_of_a_few_pictures_has_them_all(tmp_path: Path, number: int) -> None:
    record(tmp_path / "out.mp4", [5.0 * i for i in range(number)])
    assert finish(tmp_path / "out.mp4") == {}
    assert len(read_back(tmp_path / "out.mp4")[0]) == number


def test_of_what_never_got_a_picture_no_mp4_is_made(tmp_path: Path) -> None:
    with owned([("record.path", tmp_path / "out.recording.mkv")], []):
        assert finish(tmp_path / "out.mp4") == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_of_a_worker_that_died_in_its_first_second_no_head_is_left(tmp_path: Path, name: str) -> None:
    raw = raw_path(tmp_path / name)
    dies_early = KILLED.replace("range(200)", "range(1)").replace("time.sleep(60)", "import os; os._exit(1)")
    subprocess.run([sys.executable, "-c", dies_early, str(raw)], cwd=Path(__file__).parents[2])
    assert raw.stat().st_size
    record(tmp_path / name, [0.3, 0.4], restarts=1)
    assert finish(tmp_path / name, restarts=1) == {}
    assert [file.name for file in tmp_path.iterdir()] == [f"out.1.{name[-3:]}"]


def test_who_does_not_wait_for_the_mp4_is_told_where_the_recording_is(tmp_path: Path) -> None:
    record(tmp_path / "out.mp4", [0.0, 0.1])
    raw = tmp_path / "out.recording.mkv"
    left = finish_recordings(RecordSettings(path=str(tmp_path / "out.mp4")), ["0"], 0, goes_on=lambda: False)
    assert left == {str(raw): f"cannot make {tmp_path / 'out.mp4'}: it was interrupted; the recording is in {raw}"}
    assert [file.name for file in tmp_path.iterdir()] == ["out.recording.mkv"]


def test_a_restarted_worker_keeps_what_was_recorded(tmp_path: Path) -> None:
    record(tmp_path / "out.mkv", [0.0, 0.1])
    record(tmp_path / "out.mkv", [0.3, 0.4, 0.5], restarts=1)
    assert len(read_back(tmp_path / "out.mkv")[0]) == 2
    assert len(read_back(tmp_path / "out.1.mkv")[0]) == 3


def test_the_mp4_of_a_dead_worker_is_finished_too(tmp_path: Path) -> None:
    record(tmp_path / "out.recording.mkv", [0.0, 0.1])
    record(tmp_path / "out.mp4", [0.3, 0.4, 0.5], restarts=1)
    finish(tmp_path / "out.mp4", restarts=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.1.mp4", "out.mp4"]
    assert len(read_back(tmp_path / "out.mp4")[0]) == 2


@pytest.mark.parametrize(("name", "left"), [("out.mkv", "out.mkv"), ("out.mp4", "out.recording.mkv")])
def test_the_account_of_a_restarted_worker_names_what_dead_ones_recorded(tmp_path: Path, name: str, left: str) -> None:
    record(tmp_path / left, [0.0, 0.1])
    stage = Record(RecordSettings(path=str(tmp_path / name), when_slow="wait"))
    stage.open(context(restarts=2))
    stage.process(packet(0.2, picture(90)))
    stage.close()
    newest = str(recording_path(tmp_path / name, "0", ["0"], 2))
    assert stage.describe() == {
        str(tmp_path / name): "kept from before a restart",
        newest: "1 frames, 0 left out",
    }


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_earlier_lessons_are_kept_and_not_taken_for_parts_of_todays(tmp_path: Path, name: str) -> None:
    path, ending = tmp_path / name, Path(name).suffix
    record(path, [0.0, 0.1])
    record(path, [0.3], restarts=1)
    finish(path, restarts=1)
    written, later = ([("record.path", file) for file in files] for files in files_of(path, ["0"]))
    with owned(written, later):
        stage = Record(RecordSettings(path=str(path), when_slow="wait"))
        stage.open(context())  # and dies before its first picture
        stage = Record(RecordSettings(path=str(path), when_slow="wait"))
        stage.open(context(restarts=1))
        for pts in (0.2, 0.3, 0.4):
            stage.process(packet(pts, picture(90)))
        stage.close()
        finish(path, restarts=1)
        assert stage.describe() == {str(tmp_path / f"out.1{ending}"): "3 frames, 0 left out"}, "what is there of today"
    frames = {file.name: len(read_back(file)[0]) for file in tmp_path.iterdir()}
    assert frames == {name: 2, f"out.1{ending}": 3, f"out.1.earlier-1{ending}": 1}, "the first part never came to be"


@pytest.mark.parametrize("name", ["out.2.mkv", "out.2.mp4", "out.2.recording.mkv"])
def test_a_later_part_of_an_earlier_lesson_is_put_aside_though_the_first_is_gone(tmp_path: Path, name: str) -> None:
    (tmp_path / "a[1]").mkdir()
    for folder, start in ((tmp_path, "out"), (tmp_path / "a[1]", "out[2]")):
        file = folder / name.replace("out", start)
        file.write_bytes(b"yesterday's")
        path = folder / f"{start}{'.mkv' if name == 'out.2.mkv' else '.mp4'}"
        with owned([], [("record.path", part) for part in files_of(path, ["0"])[1]]):
            assert not file.exists()
            file.write_bytes(b"today's")
        assert file.read_bytes() == b"today's"
        assert file.with_name(f"{file.stem}.earlier-1{file.suffix}").read_bytes() == b"yesterday's"


def test_what_only_looks_like_a_part_is_left_alone(tmp_path: Path) -> None:
    for name in ("out.2024.mkv", "out.0.mkv", "out.1.mkv"):
        (tmp_path / name).write_bytes(b"somebody's")
    assert files_of(tmp_path / "out.mkv", ["0"])[1] == [tmp_path / "out.1.mkv"]


def test_each_of_several_streams_has_its_file(tmp_path: Path) -> None:
    stage = Record(RecordSettings(path=str(tmp_path / "out.mkv"), when_slow="wait"))
    stage.open(context(streams=("0", "1")))
    for stream in ("0", "1", "1"):
        stage.process(packet(time.monotonic(), picture(90), stream))
    stage.close()
    assert len(read_back(tmp_path / "out-0.mkv")[0]) == 1
    assert len(read_back(tmp_path / "out-1.mkv")[0]) == 2


def test_a_change_of_size_is_fitted_into_the_first_size(tmp_path: Path) -> None:
    stage = Record(RecordSettings(path=str(tmp_path / "out.mkv"), when_slow="wait"))
    stage.open(context())
    stage.process(packet(0.0, picture(200, 65, 47)))
    stage.process(packet(0.1, picture(200, 30, 90)))
    stage.close()
    _, pictures = read_back(tmp_path / "out.mkv")
    assert [shown.shape for shown in pictures] == [(48, 66, 3)] * 2
    assert pictures[1][:, :15].mean() < 30 < 150 < pictures[1][:, 30:36].mean()


def test_times_that_run_backwards_do_not_break_the_file(tmp_path: Path) -> None:
    record(tmp_path / "out.mkv", [1.0, 1.0, 0.2, 2.0])
    assert read_back(tmp_path / "out.mkv")[0] == pytest.approx([1.0, 1.001, 1.002, 2.0], abs=1e-3)


def test_the_bare_source_can_be_recorded(tmp_path: Path) -> None:
    record(tmp_path / "out.mkv", [0.0], picture="source")
    assert read_back(tmp_path / "out.mkv")[1][0].mean() == pytest.approx(30, abs=3)


def test_a_picture_that_could_not_be_drawn_is_left_out_and_not_recorded_bare(tmp_path: Path) -> None:
    stage = Record(RecordSettings(path=str(tmp_path / "out.mkv"), when_slow="wait"))
    stage.open(context())
    stage.process(packet(0.0, picture(90)))
    stage.process(packet(0.1, None))
    stage.close()
    assert stage.describe() == {str(tmp_path / "out.mkv"): "1 frames, 1 left out"}


def test_what_is_left_out_follows_when_slow(tmp_path: Path) -> None:
    """Of a picture that takes long to encode; `auto` waits for a file, also beside a camera."""
    noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    written = {}
    for when_slow, live in (("drop", False), ("wait", True), ("auto", False), ("auto", True)):
        path = tmp_path / f"{when_slow}-{live}.mkv"
        stage = Record(RecordSettings(path=str(path), when_slow=when_slow, preset="medium"))
        stage.open(context())
        for i in range(20):
            stage.process(packet(i / 30, noise, live=live))
        stage.close()
        (account,) = stage.describe().values()
        times, _ = read_back(path)
        assert account == f"{len(times)} frames, {20 - len(times)} left out"
        written[when_slow, live] = len(times)
    assert written["wait", True] == written["auto", False] == 20
    assert written["drop", False] < 20 and written["auto", True] < 20


def test_quality_and_preset_can_be_set(tmp_path: Path) -> None:
    rng, sizes = np.random.default_rng(0), {}
    film = [rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(10)]
    for name, settings in {"usual": {}, "coarse": {"crf": 40}, "slow": {"preset": "medium"}}.items():
        stage = Record(RecordSettings(path=str(tmp_path / f"{name}.mkv"), when_slow="wait", **settings))
        stage.open(context())
        for i, shown in enumerate(film):
            stage.process(packet(i / 30, shown))
        stage.close()
        sizes[name] = (tmp_path / f"{name}.mkv").stat().st_size
    assert sizes["coarse"] < sizes["usual"] / 2
    assert sizes["slow"] != sizes["usual"]


def test_a_full_disk_ends_the_recording_and_not_the_program() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    recorder = Recorder(full, RecordSettings(), waits=True)
    for i in range(60):
        recorder.put(picture(i), i / 30)
    recorder.close()
    assert recorder.error is not None


@pytest.mark.parametrize("broken", ["write", "close"])
def test_an_error_that_nobody_foresaw_ends_the_recording_and_not_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("a surprise")

    monkeypatch.setattr(VideoWriter, broken, fail)
    recorder = Recorder(tmp_path / "out.mkv", RecordSettings(), waits=True)

    def work() -> None:
        for i in range(10):
            recorder.put(picture(i), i / 30)
        recorder.close()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(30)
    assert not worker.is_alive()
    assert str(recorder.error) == "a surprise"


@pytest.mark.parametrize("name", ["out.avi", "missing/out.mkv"])
def test_a_file_that_cannot_be_recorded_to_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"record\.path"):
        Record(RecordSettings(path=str(tmp_path / name))).open(context())


def test_names_of_streams_and_parts() -> None:
    assert recording_path(Path("a/out.mkv"), "1", ["0", "1"], 2) == Path("a/out-1.2.mkv")


KILLED = """
import sys, time
import numpy as np
from pathlib import Path
from stages.record import RecordSettings, VideoWriter
writer = VideoWriter(Path(sys.argv[1]), RecordSettings(), 320, 240)
noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
for i in range(200):
    writer.write(np.roll(noise, i, axis=1), i / 25)
print("written", flush=True)
time.sleep(60)
"""


def test_a_recording_survives_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "out.mkv"
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", KILLED, str(file)], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    times, _ = read_back(file)
    assert times[-1] > 200 / 25 - 1.1
