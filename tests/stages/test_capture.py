"""Files and folders: what a user can point the program at, and what they are told when it does not work."""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePath

import av
import cv2
import numpy as np
import pytest
from reading import error_of, make_video, picture, read_all, read_one

from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from stages.capture import Capture
from stages.sources import CaptureSettings
from stages.sources.images import natural_key


def test_a_video_of_variable_rate_keeps_its_timestamps(video: Path) -> None:
    info, frames = read_all(str(video))
    assert (info.width, info.height, info.live) == (64, 48, False)
    times = [event.pts for event, _ in frames]
    assert times == pytest.approx([0, 0.04, 0.1, 0.11, 0.3, 0.34, 0.38, 0.42, 0.46, 0.5])


def test_the_pictures_come_in_order_and_in_bgr(tmp_path: Path) -> None:
    path = tmp_path / "blue.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(3):
            blue = np.zeros((48, 64, 3), np.uint8)
            blue[..., 0] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(blue, format="bgr24")))
        container.mux(stream.encode(None))
    _, frames = read_all(str(path))
    assert len(frames) == 3
    assert frames[0][1].mean(axis=(0, 1)) == pytest.approx([250, 0, 0], abs=8)


def test_after_a_restart_the_video_goes_on_where_it_was(video: Path) -> None:
    _, whole = read_all(str(video))
    _, rest = read_all(str(video), skip=4)
    assert [event.pts for event, _ in rest] == pytest.approx([event.pts for event, _ in whole[4:]])
    assert np.array_equal(rest[0][1], whole[4][1])


def test_a_video_filmed_upright_is_turned(video: Path) -> None:
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    video.write_bytes(data)
    info, frames = read_all(str(video))
    assert (info.width, info.height) == (48, 64)
    upright = frames[0][1]
    assert upright[:8, -8:].mean() > 200, "the corner that was top left is top right after a turn to the right"
    assert upright[-8:, :8].mean() < 100


def test_a_paced_file_is_live_and_keeps_time(video: Path) -> None:
    started = now_ns()
    info, frames = read_all(str(video), settings=CaptureSettings(realtime=True))
    assert info.live and info.paced
    assert now_ns() - started >= 0.45 * NS_PER_S
    gaps = [(b.captured_at_ns - a.captured_at_ns) / NS_PER_MS for (a, _), (b, _) in pairwise(frames)]
    assert gaps[3] > 100, "the fourth gap of the clip is 190 ms"


def test_the_demo_is_paced_unless_told_otherwise() -> None:
    capture = Capture(CaptureSettings(), "demo")
    assert capture.open().live
    capture.close()
    capture = Capture(CaptureSettings(realtime=False), "demo")
    assert not capture.open().live
    capture.close()


def test_closing_ends_a_paced_read(tmp_path: Path) -> None:
    path = make_video(tmp_path / "slow.mp4", [0, 60_000])
    capture = Capture(CaptureSettings(realtime=True), str(path))
    capture.open()
    read_one(capture)
    thread = threading.Thread(target=read_one, args=(capture,))
    thread.start()
    capture.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_video_that_was_cut_off_gives_what_it_has_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make_video(tmp_path / "whole.mp4", list(range(0, 1200, 40)), {"movflags": "faststart"}).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    _, frames = read_all(str(path))
    assert 5 < len(frames) < 30
    assert "cut off" in caplog.text and str(path) in caplog.text


@pytest.mark.parametrize("name", ["cut.mkv", "cut.avi"])
def test_files_of_other_kinds_that_were_cut_off_say_so_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    whole = make_video(tmp_path / f"whole_{name}", list(range(0, 1200, 40))).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 3])
    read_all(str(tmp_path / name))
    assert f"{name} is cut off" in caplog.text


def test_a_whole_video_ends_without_a_warning(
    video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uneven = [number * number for number in range(1, 30)]
    sparse = make_video(tmp_path / "sparse.avi", [0, 40, 80, 4000])  # an AVI counts the pictures that it leaves out too
    sound = make_video(tmp_path / "sound.mkv", list(range(0, 1200, 40)), sound_s=4)
    for path in (video, make_video(tmp_path / "uneven.mkv", uneven), sparse, sound):
        read_all(str(path))
    assert not caplog.records


def test_pictures_of_a_folder_come_in_counting_order_whatever_their_sizes(tmp_path: Path) -> None:
    for number, shape in ((10, (30, 20)), (2, (48, 64)), (1, (10, 100))):
        cv2.imwrite(str(tmp_path / f"frame_{number}.png"), np.full((*shape, 3), number, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    assert natural_key(Path("5²3.jpg")) == [(5, ""), (-1, "²"), (3, ""), (-1, ".jpg")]
    info, frames = read_all(str(tmp_path), settings=CaptureSettings(fps=10))
    assert (info.width, info.height, info.live) == (100, 10, False)
    assert [image.shape[:2] for _, image in frames] == [(10, 100), (48, 64), (30, 20)]
    assert [image.max() for _, image in frames] == [1, 2, 10]
    assert [event.picture for event, _ in frames] == ["frame_1.png", "frame_2.png", "frame_10.png"]
    assert [event.pts for event, _ in frames] == pytest.approx([0, 0.1, 0.2])


def test_in_a_large_folder_not_every_picture_is_compared_with_every_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), picture(1))
    for number in range(1, 300):
        (tmp_path / f"{number}.png").touch()
    compared, is_same = [0], PurePath.__eq__

    def count(path: PurePath, other: object) -> bool:
        compared[0] += 1
        return is_same(path, other)

    monkeypatch.setattr(PurePath, "__eq__", count)
    Capture(CaptureSettings(), str(tmp_path)).open()
    assert compared[0] < 300


def test_a_damaged_picture_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    (tmp_path / "b.png").write_bytes(b"not a picture")
    (tmp_path / "b2.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b3.png").mkdir()
    cv2.imwrite(str(tmp_path / "c.png"), picture(2))
    _, frames = read_all(str(tmp_path))
    assert len(frames) == 2
    assert "b.png' is damaged" in caplog.text
    assert "b2.png' cannot be read" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="pipes with names")
def test_a_pipe_among_the_pictures_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "c.png"), picture(1))
    frames: list[object] = []
    reading = threading.Thread(target=lambda: frames.extend(read_all(str(tmp_path))[1]), daemon=True)
    reading.start()
    reading.join(10)
    assert len(frames) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="names have no colon or escape there")
def test_a_name_in_a_warning_cannot_move_the_cursor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a\x1b[2J.png").write_bytes(b"x")
    (tmp_path / "b\x1b[2J.txt").touch()
    error_of(tmp_path)
    assert r"a\x1b[2J.png" in caplog.text and r"b\x1b[2J.txt" in caplog.text and "\x1b" not in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="names have no colon there")
def test_what_stands_before_a_colon_in_a_files_name_is_no_protocol(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("10:30.mp4", "concat:a.mp4"):
        Path(name).write_bytes(video.read_bytes())
        assert len(read_all(name)[1]) == 10


def test_a_missing_file_is_named() -> None:
    assert "clips/none.mp4 does not exist" in error_of("clips/none.mp4")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "empty.mp4 is empty" in error_of(tmp_path / "empty.mp4")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes with names")
def test_a_video_comes_through_a_pipe(tmp_path: Path, video: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with av.open(str(video)) as reader, av.open(str(tmp_path / "video.mkv"), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)
    writing = threading.Thread(target=lambda: pipe.write_bytes((tmp_path / "video.mkv").read_bytes()), daemon=True)
    writing.start()
    _, frames = read_all(str(pipe))
    assert len(frames) == 10


@pytest.mark.parametrize("content", [b"just some words\n" * 50, bytes(range(256)) * 20])
def test_a_file_that_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    for name in ("notes.txt", "notes.mp4"):
        (tmp_path / name).write_bytes(content)
        message = error_of(tmp_path / name)
        assert name in message and "video" in message


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    assert f"folder {tmp_path} holds no pictures" in error_of(tmp_path)


def test_a_folder_of_folders_of_pictures_names_one(tmp_path: Path) -> None:
    (tmp_path / "crown_thrust").mkdir()
    (tmp_path / "crown_thrust" / "a.JPG").touch()
    assert f"has pictures in subfolders only; give one, as {tmp_path / 'crown_thrust'}" in error_of(tmp_path)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_a_picture_whose_name_is_no_text_is_read_under_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    (tmp_path / "a.png").rename(tmp_path / "album" / "caf\udce9.png")
    _, frames = read_all(str(tmp_path / "album"))
    assert [event.picture for event, _ in frames] == ["caf\ufffd.png"]
    (tmp_path / "album").rename(tmp_path / "\udce9")
    assert error_of(tmp_path).endswith("give one, as " + str(tmp_path / "\ufffd"))


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> Iterator[Path]:  # as by its permissions, which do not stop root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert str(tmp_path) in error_of(tmp_path) and "Permission denied" in error_of(tmp_path)


def test_a_folder_of_damaged_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    assert "no picture that can be read" in error_of(tmp_path)
