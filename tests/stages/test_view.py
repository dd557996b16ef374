"""Where the picture is shown: the window, and the line in the terminal, also through the overlay stage."""

from __future__ import annotations

import io
import os
import re
import sys

import cv2
import msgspec
import numpy as np
import pytest
from drawing import context, grey_picture, packet

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from stages.overlay import Overlay, OverlaySettings
from stages.view import CANVAS_DEMAND, LiveLine, Rate, arrange


def test_a_window_without_a_display_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform in ("win32", "darwin"):
        pytest.skip("there is always a display here")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match="--view none"):
        Overlay(OverlaySettings(view="window")).open(context(grey_picture()))


@pytest.mark.parametrize("mirror", ["on", "off", "auto"])
def test_the_window_may_be_a_mirror_and_a_recording_never_is(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("DISPLAY", os.environ.get("DISPLAY", ":99"))
    pygame = pytest.importorskip("pygame")
    picture = grey_picture()
    picture[:, :40] = 250
    stage = Overlay(OverlaySettings(view="window", mirror=mirror))
    stage.open(context(picture))
    CANVAS_DEMAND.add("recording")
    try:
        recorded = stage.process(packet(feedback=[])).canvas
        shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    finally:
        CANVAS_DEMAND.discard("recording")
        stage.close()
    assert (recorded[300:400, :40] == 250).all()
    left, right = shown[320:380, :20].mean(), shown[320:380, -20:].mean()
    assert (left < 130 < 240 < right) if mirror == "on" else (right < 130 < 240 < left)


def test_the_window_fills_the_desktop_and_why_there_is_no_picture_stays_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("DISPLAY", os.environ.get("DISPLAY", ":99"))
    pygame = pytest.importorskip("pygame")
    picture = grey_picture(320, 240)
    stage = Overlay(OverlaySettings(view="window", mirror="off"))
    stage.open(context(picture))
    try:
        stage.process(packet(person=None, stick=None, feedback=[]))
        size, desktop = pygame.display.get_window_size(), pygame.display.get_desktop_sizes()[0]
        stage.process(packet(status="source_lost", reason="rtsp://camera.example:554/stream: " + 60 * "w"))
        shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    finally:
        stage.close()
    assert size[0] >= 0.89 * desktop[0] or size[1] >= 0.84 * desktop[1]
    white = np.argwhere(shown.min(axis=2) > 150)
    assert len(white) > 20 and white[:, 1].max() < 0.99 * shown.shape[1]
    assert shown[: shown.shape[0] // 3].max() < 80, "the answer from before is no longer to be read"


def test_pressing_q_in_the_window_asks_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("DISPLAY", os.environ.get("DISPLAY", ":99"))
    pygame = pytest.importorskip("pygame")
    asked: list[str] = []
    stage = Overlay(OverlaySettings(view="window", mirror="on"))
    stage.open(msgspec.structs.replace(context(grey_picture()), request_stop=lambda: asked.append("stop")))
    try:
        stage.process(packet())
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q))
        stage.idle(now_ns())
    finally:
        stage.close()
    assert asked == ["stop"]


def test_several_streams_share_the_window_unstretched() -> None:
    white, wide = np.full((100, 100, 3), 255, np.uint8), np.full((50, 200, 3), 255, np.uint8)
    grid = arrange([white, wide, None], 800, 400)
    boxes = cv2.connectedComponentsWithStats((grid[..., 0] > 200).astype(np.uint8))[2][1:]
    shapes = sorted(round(width / height, 1) for _, _, width, height, _ in boxes.tolist())
    assert shapes == [1.0, 4.0]


def test_the_live_line_is_rewritten_on_a_terminal_and_sparse_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    written: dict[type[io.StringIO], str] = {}
    for kind in (Terminal, io.StringIO):
        out = kind()
        monkeypatch.setattr(sys, "stdout", out)
        line = LiveLine("stdout", with_stream=False)
        for _ in range(50):
            line.tell("0", "neutral 90 %", "", "30.0 FPS")
        line.close()
        written[kind] = out.getvalue()
    assert written[Terminal] == "\rneutral 90 %  30.0 FPS\n"
    assert written[io.StringIO] == "neutral 90 %  30.0 FPS\n"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_stream_has_its_share_of_the_live_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", str(columns))
    line = LiveLine("stdout", with_stream=True)
    said = ("left temple block (left-handed) 95 %", "Turn the stick farther from your forearm.", "30.0 FPS")
    line.tell("0", *said)
    later_ns = now_ns() + NS_PER_S
    monkeypatch.setattr("stages.view.now_ns", lambda: later_ns)
    line.tell("1", *said)
    newest = out.getvalue().rpartition("\r")[2]
    assert len(newest.rstrip()) < columns and "[0] left" in newest and "[1] left" in newest


@pytest.mark.parametrize("where", ["stdout", "stderr", "none"])
def test_the_live_line_goes_where_it_is_told(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Overlay(OverlaySettings(view="none", live_line=where))
    stage.open(context(grey_picture()))
    stage.process(packet())
    stage.close()
    said = capsys.readouterr()
    assert ("left eye thrust 91 %" in said.out, "left eye thrust 91 %" in said.err) == (
        where == "stdout", where == "stderr"
    )  # fmt: skip


def test_the_age_is_that_of_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Overlay(OverlaySettings(view="none"))
    stage.open(context(grey_picture()))
    stage.process(packet(captured_at_ns=now_ns() - 20 * NS_PER_S))
    stage.close()
    assert re.search(r"age 2\d{4} ms", capsys.readouterr().out)


def test_the_rate_is_that_of_the_last_two_seconds() -> None:
    rate = Rate()
    assert rate.tick(0) is None
    for i in range(1, 100):
        fps = rate.tick(i * 40_000_000)
    assert fps == pytest.approx(25.0)
