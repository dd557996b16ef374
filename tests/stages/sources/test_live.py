"""Cameras, streams and addresses: they come and go, and what is said of them."""

from __future__ import annotations

import http.server
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from reading import error_of, make_video, picture, read_all, read_one

from engine.clock import NS_PER_MS, now_ns
from engine.stage import Captured, SourceInfo, SourceLost
from stages.capture import Capture
from stages.sources import Allocate, CaptureSettings, camera, redact_url
from stages.sources.camera import camera_device, captured_at
from stages.sources.live import FeedLost, Live, RetryDelays


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
        ("rtsp://user:pa/s?s#@host:554/a", "rtsp://***@host:554/a"),
        ("rtsp://host:554/a@b", "rtsp://host:554/a@b"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("http://host/a?key=1", "http://host/a?***"),
        ("rtsp://host:554/user=admin&password=secret&channel=1.sdp", "rtsp://host:554/user=***"),
        ("clips/a@b.mp4", "clips/a@b.mp4"),
        ("clips/user_anna=1?.mp4", "clips/user_anna=1?.mp4"),
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


def test_an_address_may_be_written_in_capitals(serve: Callable[[], _Server], video: Path) -> None:
    address = serve().url.replace("http", "HTTP")
    assert len(read_all(f"{address}/{video.name}")[1]) == 10


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


def test_a_file_that_its_server_does_not_give_in_parts_is_to_be_downloaded(
    tmp_path: Path, serve: Callable[[], _Server]
) -> None:
    make_video(tmp_path / "long.mov", [0, 40, 80], sound_s=120)  # its table stands at its end, 2 MB behind
    assert "long.mov holds no frame that can be decoded; download it" in error_of(f"{serve().url}/long.mov")


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
