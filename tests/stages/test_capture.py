"""Sources: what a user can point the program at, and what they are told when it does not work."""

from __future__ import annotations

import errno
import http.server
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from engine.errors import UserError
from engine.stage import Captured, SourceInfo, SourceLost
from stages.capture import Capture
from stages.sources import Allocate, CaptureSettings, camera, redact_url
from stages.sources.camera import camera_device, captured_at
from stages.sources.images import natural_key
from stages.sources.live import FeedLost, Live, RetryDelays

Frames = list[tuple[Captured, np.ndarray]]


def read_all(source: str, skip: int = 0, settings: CaptureSettings | None = None) -> tuple[SourceInfo, Frames]:
    """Every frame of a source that ends, with its pixels."""
    capture = Capture(settings or CaptureSettings(), source)
    info = capture.open(skip)
    frames: Frames = []
    while (event := read_one(capture)) is not None:
        assert not isinstance(event, SourceLost)
        frames.append(event)
    capture.close()
    return info, frames


def read_one(capture: Capture) -> tuple[Captured, np.ndarray] | SourceLost | None:
    taken: list[np.ndarray] = []

    def allocate(height: int, width: int) -> np.ndarray:
        taken.append(np.full((height, width, 3), 7, np.uint8))
        return taken[-1]

    event = capture.read(allocate)
    return (event, taken[-1]) if isinstance(event, Captured) else event


def error_of(source: Path | str) -> str:
    """The sentence that a user gets for a source that cannot be opened."""
    capture = Capture(CaptureSettings(timeout_s=1.0), str(source))
    with pytest.raises(UserError) as error:
        capture.open()
    return str(error.value)


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey of a brightness that tells the frame's number, with a white left upper corner."""
    image = np.full((height, width, 3), 10 + number * 8, np.uint8)
    image[: height // 4, : width // 4] = 255
    return image


def make_video(path: Path, times_ms: list[int], options: dict[str, str] | None = None, sound_s: int = 0) -> Path:
    """A video whose frames come at the given times, with so many seconds of silence beside them."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=30)
        sound = container.add_stream("pcm_s16le", rate=8000) if sound_s else None
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.gop_size = 5
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(picture(number), format="bgr24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for second in range(sound_s):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts = 8000, 8000 * second
            assert sound is not None
            container.mux(sound.encode(silence))
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "clip.mp4", [0, 40, 100, 110, 300, 340, 380, 420, 460, 500])


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


def test_a_matroska_file_that_was_cut_off_says_so_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = make_video(tmp_path / "whole.mkv", list(range(0, 1200, 40))).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    read_all(str(tmp_path / "cut.mkv"))
    assert "cut.mkv is cut off" in caplog.text


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


def test_a_damaged_picture_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    (tmp_path / "b.png").write_bytes(b"not a picture")
    (tmp_path / "b2.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b3.png").mkdir()
    cv2.imwrite(str(tmp_path / "c.png"), picture(2))
    _, frames = read_all(str(tmp_path))
    assert len(frames) == 2
    assert "b.png is damaged" in caplog.text
    assert "b2.png cannot be read" in caplog.text


def test_a_missing_file_is_named() -> None:
    assert "clips/none.mp4 does not exist" in error_of("clips/none.mp4")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "empty.mp4 is empty" in error_of(tmp_path / "empty.mp4")


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


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.path.exists("/dev/video9"), reason="needs no camera 9")
def test_a_camera_that_is_not_there_is_one_sentence_without_noise() -> None:
    code = (
        "from stages.capture import Capture, UserError\nfrom stages.sources import CaptureSettings\n"
        "try: Capture(CaptureSettings(), '9').open()\nexcept UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("camera 9 is not there")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "url", ["rtsp://me:secret@127.0.0.1:9/cam?token=abc", "http://me:secret@127.0.0.1:9/a.mp4?token=abc"]
)
def test_an_unreachable_stream_is_named_without_its_password(url: str) -> None:
    message = error_of(url)
    assert "***@127.0.0.1:9" in message and "connection refused" in message
    assert "secret" not in message and "abc" not in message


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_never_answers_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        message = error_of(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/live")
    assert "does not answer" in message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:pa@ss@host:554/a", "rtsp://***@host:554/a"),
        ("http://host/a?key=1", "http://host/a?***"),
        ("clips/a@b.mp4", "clips/a@b.mp4"),
    ],
)
def test_urls_are_shown_without_credentials(url: str, shown: str) -> None:
    assert redact_url(url) == shown


class _Server:
    """An HTTP camera: pictures as multipart JPEG, as cheap network cameras send them; and files."""

    def __init__(self, folder: Path) -> None:
        self.pictures_per_visit = 20
        self.pause_s = 0.0
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/camera":
                    super().do_GET()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
                self.end_headers()
                for number in range(outer.pictures_per_visit):
                    data = cv2.imencode(".jpg", picture(number % 20))[1].tobytes()
                    head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
                    time.sleep(outer.pause_s)

            def log_message(self, format: str, *args: object) -> None:
                logging.getLogger(__name__).debug(format, *args)

        def handler(*args: object) -> Handler:
            return Handler(*args, directory=str(folder))  # type: ignore[arg-type]

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], _Server]]:
    servers: list[_Server] = []

    def start() -> _Server:
        servers.append(_Server(tmp_path))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_lost_stream_is_reported_once_and_comes_back(serve: Callable[[], _Server]) -> None:
    capture = Capture(CaptureSettings(timeout_s=3, retry_s=0.05), serve().url + "/camera")
    assert capture.open().live
    events = [read_one(capture) for _ in range(60)]
    capture.close()
    losses = [i for i, event in enumerate(events) if isinstance(event, SourceLost)]
    assert losses, "the server ends each visit after 20 pictures"
    assert all(b - a > 1 for a, b in pairwise(losses)), "between two losses there are pictures"
    times = [event[0].pts for event in events if isinstance(event, tuple)]
    assert all(a < b for a, b in pairwise(times)), "time goes on over a loss"


def test_a_stream_without_times_of_its_own_gets_those_of_arrival(serve: Callable[[], _Server]) -> None:
    server = serve()
    server.pause_s = 0.1
    capture = Capture(CaptureSettings(timeout_s=3), server.url + "/camera")
    capture.open()
    times = [event[0].pts for event in (read_one(capture) for _ in range(12)) if isinstance(event, tuple)]
    capture.close()
    assert times[-1] - times[1] > 0.6, "ten pictures a second, not the 25 that FFmpeg makes up"


def test_closing_ends_the_wait_for_a_lost_stream(serve: Callable[[], _Server]) -> None:
    server = serve()
    capture = Capture(CaptureSettings(timeout_s=3, retry_s=60), server.url + "/camera")
    capture.open()
    while not isinstance(read_one(capture), SourceLost):
        pass
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(read_one(capture)))
    thread.start()
    capture.close()
    thread.join(5)
    assert found == [None]


def test_a_file_behind_a_url_is_read_to_its_end(video: Path, serve: Callable[[], _Server]) -> None:
    info, frames = read_all(f"{serve().url}/{video.name}")
    assert not info.live
    assert len(frames) == 10


class Feed:
    """A camera whose pictures come with these times, and which is then lost."""

    captured_at_ns = 0

    def __init__(self, times: list[float]) -> None:
        self.info = SourceInfo(4, 2, 30.0, live=True)
        self._times = times

    def read(self, allocate: Allocate) -> Captured:
        if not self._times:
            raise FeedLost("no picture came")
        allocate(2, 4)
        return Captured(self._times.pop(0), now_ns())

    def close(self) -> None:
        """Nothing to release."""


def test_a_cameras_time_grows_whatever_its_driver_says_also_when_it_comes_back() -> None:
    feeds = [Feed([0.0, -0.01, 0.02]), Feed([0.0, -0.3, -0.2])]
    live = Live(lambda: feeds.pop(0), "camera 0", RetryDelays(0.001, 0.001))
    live.open(0)
    events = [live.read(lambda height, width: np.empty((height, width, 3), np.uint8)) for _ in range(7)]
    live.close()
    assert isinstance(events[3], SourceLost)
    times = [event.pts for event in events if isinstance(event, Captured)]
    assert len(times) == 6 and times[0] == 0.0
    assert all(a < b for a, b in pairwise(times))


def test_waiting_times_grow_to_a_limit_and_start_anew() -> None:
    delays = RetryDelays(0.5, 3)
    assert [delays.next_s() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    delays.reset()
    assert delays.next_s() == 0.5


def test_the_waits_for_a_lost_stream_can_be_set(serve: Callable[[], _Server], monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    class Noted(RetryDelays):
        def next_s(self) -> float:
            waited.append(super().next_s())
            return 0.001

    monkeypatch.setattr("stages.capture.RetryDelays", Noted)
    server = serve()
    capture = Capture(CaptureSettings(timeout_s=3, retry_s=0.2, longest_retry_s=0.5), server.url + "/camera")
    capture.open()
    while not isinstance(read_one(capture), SourceLost):
        pass
    server.pictures_per_visit = 0
    thread = threading.Thread(target=lambda: read_one(capture))
    thread.start()
    until = time.monotonic() + 10
    while len(waited) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    capture.close()
    thread.join(10)
    assert waited[:4] == [0.2, 0.4, 0.5, 0.5]


def test_cameras_are_named_by_number_or_device() -> None:
    assert camera_device("0") == 0
    assert camera_device("/dev/video12") == 12
    assert camera_device("2.mp4") is None
    assert camera_device("/dev/videocam") is None


def test_a_camera_gives_pictures_until_it_is_lost(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)  # behaves as a camera that is pulled out after ten pictures
    if not device.isOpened():
        pytest.skip("this OpenCV reads no video")
    monkeypatch.setattr(camera, "_require_device", lambda index: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda index, kind: device)
    capture = Capture(CaptureSettings(), "0")
    info = capture.open()
    assert (info.width, info.height, info.live) == (64, 48, True)
    events = [read_one(capture) for _ in range(11)]
    capture.close()
    frames = [event for event in events if isinstance(event, tuple)]
    assert len(frames) == 10 and isinstance(events[-1], SourceLost)
    assert frames[9][1][-8:].mean() - frames[0][1][-8:].mean() == pytest.approx(72, abs=10)
    assert all(a.pts < b.pts for (a, _), (b, _) in pairwise(frames))


def test_a_drivers_time_is_believed_only_when_it_fits_the_clock() -> None:
    now = 5000 * NS_PER_MS
    assert captured_at(4980.0, now) == 4980 * NS_PER_MS
    assert captured_at(0.0, now) == now
    assert captured_at(9999.0, now) == now
