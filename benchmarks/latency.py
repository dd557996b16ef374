"""Glass to glass: a window turns from black to white, a camera sees it, and the time between is the whole way through
screen, lens, driver and decoding. The program's own latency (part `program`) comes on top until something is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.figures import Part, Row, Session, percentiles_ms
from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from engine.stage import Captured
from stages.sources import CaptureSettings
from stages.sources.camera import CameraFeed
from stages.sources.live import FeedLost
from stages.view import has_display

FLIPS, QUICK_FLIPS, WARM_UP_FLIPS = 60, 10, 3
LEAST_CONTRAST = 40.0
"""Grey levels by which the camera must see black and white apart."""
_SETTLE_NS = NS_PER_S // 2
_GIVE_UP_NS = 3 * NS_PER_S

Look = Callable[[], float]
"""Waits for the camera's next picture; its mean grey, 0 to 255."""
Show = Callable[[bool], None]
"""Fills the window with white, or with black; returns when it has been handed to the screen."""


def measure(session: Session, camera: int) -> Part:
    """Flip and watch. Raises UserError without a camera or a display, or when the camera doesn't see the window."""
    if not has_display():
        raise UserError("there is no display to flip; it needs a desktop and a camera that is pointed at the screen")
    feed = _open_camera(camera)
    try:
        session.say(f"point camera {camera} at the window so that it fills the picture")
        flips, period_s = QUICK_FLIPS if session.quick else FLIPS, 1.0 / feed.info.fps if feed.info.fps else 0.0
        taken = flip_times(_window(), lambda: _mean_grey(feed), flips, period_s)
    except FeedLost as error:
        raise UserError(f"camera {camera} was lost ({error}); connect it and measure again") from error
    finally:
        feed.close()
    row: Row = {"camera": f"{feed.info.width}x{feed.info.height}", "fps": feed.info.fps, "flips": len(taken)}
    return Part(
        name="latency",
        title="Glass to glass: from the flip on the screen until the camera's picture of it is decoded",
        rows=[{**row, **percentiles_ms(taken)}],
        notes=["The program's latency (capture to result) comes on top: see the part `program`, row `30 fps`."],
    )


def flip_times(show: Show, look: Look, flips: int, wait_s: float = 0.0) -> list[int]:
    """Nanoseconds from each flip until the camera has seen it. Raises UserError when it can't tell black from white.

    Each flip comes up to `wait_s`, a period of the camera, after a picture: right after one, all would have to wait
    equally long for the next, and the percentiles would hide how much that varies.
    """
    black, white = (_settled(show, look, is_white) for is_white in (False, True))
    if white - black < LEAST_CONTRAST:
        raise UserError(
            f"the camera sees no difference between black ({black:.0f}) and white ({white:.0f}): point it at the "
            "window, close to the screen, in a darker room"
        )
    middle, is_white = (black + white) / 2, True
    taken, rng = [], np.random.default_rng(0)
    for _ in range(WARM_UP_FLIPS + flips):
        is_white = not is_white
        time.sleep(rng.uniform(0.0, wait_s))
        started = now_ns()
        show(is_white)
        while (look() > middle) != is_white:
            if now_ns() - started > _GIVE_UP_NS:
                raise UserError("the camera lost sight of the window; keep it pointed at the screen")
        taken.append(now_ns() - started)
    return taken[WARM_UP_FLIPS:]


def _open_camera(index: int) -> CameraFeed:
    try:
        return CameraFeed(index, CaptureSettings())
    except UserError as error:
        reason = str(error).partition(";")[0]
        raise UserError(f"{reason}; it needs a camera that is pointed at the screen (--camera N)") from error


def _settled(show: Show, look: Look, is_white: bool) -> float:
    """What the camera sees once its exposure has come to rest."""
    show(is_white)
    until, grey = now_ns() + _SETTLE_NS, look()
    while now_ns() < until:
        grey = look()
    return grey


def _mean_grey(feed: CameraFeed) -> float:
    picture = np.zeros((1, 1, 3), np.uint8)

    def allocate(height: int, width: int) -> np.ndarray:
        nonlocal picture
        picture = np.empty((height, width, 3), np.uint8)
        return picture

    assert isinstance(feed.read(allocate), Captured)
    height, width = picture.shape[:2]
    return float(picture[height // 4 : 3 * height // 4 : 4, width // 4 : 3 * width // 4 : 4].mean())


def _window() -> Show:
    """A window that fills the screen. Raises UserError when it can't be opened."""
    import pygame

    try:
        pygame.display.init()
        surface: Any = pygame.display.set_mode((0, 0), pygame.FULLSCREEN, vsync=1)
    except pygame.error as error:
        raise UserError(f"no window can be opened here: {error}") from error

    def show(is_white: bool) -> None:
        surface.fill((255, 255, 255) if is_white else (0, 0, 0))
        pygame.display.flip()
        pygame.event.pump()

    return show
