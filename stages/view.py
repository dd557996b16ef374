"""Who looks, and where: a window with all streams in a grid, or one line in the terminal.

The window is SDL's (pygame-ce): the build of OpenCV without a window toolkit needs no libGL and starts on a server.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, TextIO

import cv2
import numpy as np

from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from stages.outputs import takes_more

log = logging.getLogger(__name__)
BACKGROUND = 24
"""Grey of the room around pictures that don't fill the window."""


CANVAS_DEMAND: set[str] = set()
"""Who needs the drawn frame, so that nothing is drawn for nobody; the stages of one worker share it."""


def has_display() -> bool:
    """Whether a window can be expected to open here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def arrange(pictures: Sequence[np.ndarray | None], width: int, height: int) -> np.ndarray:
    """A grid of pictures, each as large as its cell allows without being stretched.

    Args:
        pictures: uint8 BGR (height, width, 3) each, any sizes; None leaves the cell empty.
        width, height: of the result in pixels.

    Returns:
        uint8 BGR (height, width, 3).
    """
    grid = np.full((height, width, 3), BACKGROUND, np.uint8)
    columns = int(np.ceil(np.sqrt(len(pictures) * max(1.0, width / height) / 1.6))) if len(pictures) > 1 else 1
    columns = min(max(1, columns), len(pictures))
    rows = -(-len(pictures) // columns)
    cell_width, cell_height = max(1, width // columns), max(1, height // rows)
    for i, picture in enumerate(pictures):
        if picture is not None:
            cell = grid[i // columns * cell_height :, i % columns * cell_width :][:cell_height, :cell_width]
            letterbox_into(cell, picture)
    return grid


def letterbox_into(cell: np.ndarray, picture: np.ndarray) -> None:
    """Scale `picture` into the middle of `cell` (both uint8 BGR), keeping its proportions."""
    height, width = cell.shape[:2]
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (min(width, max(1, round(picture.shape[1] * scale))), min(height, max(1, round(picture.shape[0] * scale))))
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    if size != (picture.shape[1], picture.shape[0]):
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cell[y : y + size[1], x : x + size[0]] = picture


class Window:
    """One window; `q`, Esc or closing it asks for the end of the program."""

    def __init__(self, streams: Sequence[str], request_stop: Callable[[], None]) -> None:
        """Raises UserError when there is no display. The window appears with the first picture."""
        self._pictures: dict[str, np.ndarray | None] = dict.fromkeys(streams)
        self._request_stop = request_stop
        self._pygame = _start_sdl()
        self._screen: Any = None
        self._drawn_ns = 0

    def show(self, stream: str, picture: np.ndarray) -> None:
        """Show uint8 BGR (height, width, 3) as the newest picture of a stream."""
        self._pictures[stream] = picture
        # A single stream is shown at once; several share the window, which need not be drawn for each.
        if len(self._pictures) == 1 or now_ns() - self._drawn_ns > NS_PER_S // 60:
            self._draw()
        self.handle_events()

    def say(self, stream: str, text: str) -> None:
        """Darken the last picture of a stream and write over it, when no new one comes."""
        last = self._pictures.get(stream)
        picture = np.zeros((360, 640, 3), np.uint8) if last is None else cv2.convertScaleAbs(last, alpha=0.2)
        scale = picture.shape[1] / 800
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, round(2 * scale)))
        scale *= min(1.0, 0.94 * picture.shape[1] / width)  # the reason stands at its end
        cv2.putText(picture, text, (round(20 * scale), picture.shape[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, scale,
                    (255, 255, 255), max(1, round(2 * scale)), cv2.LINE_AA)  # fmt: skip
        self.show(stream, picture)

    def handle_events(self) -> None:
        """React to keys and to the window's buttons; called between pictures too."""
        pygame = self._pygame
        for event in pygame.event.get():
            quits = event.type == pygame.KEYDOWN and event.key in (pygame.K_q, pygame.K_ESCAPE)
            if event.type == pygame.QUIT or quits:
                self._request_stop()
            elif event.type in (pygame.VIDEORESIZE, pygame.VIDEOEXPOSE) and self._screen is not None:
                self._draw()

    def close(self) -> None:
        self._pygame.display.quit()
        self._screen = None

    def _draw(self) -> None:
        pygame = self._pygame
        if self._screen is None:
            self._screen = pygame.display.set_mode(self._first_size(), pygame.RESIZABLE)
            pygame.display.set_caption("arnis-stream")
        width, height = pygame.display.get_window_size()
        grid = arrange(list(self._pictures.values()), width, height)
        pygame.display.get_surface().blit(pygame.image.frombuffer(grid.tobytes(), (width, height), "BGR"), (0, 0))
        pygame.display.flip()
        self._drawn_ns = now_ns()

    def _first_size(self) -> tuple[int, int]:
        """As large as the desktop has room for: who is filmed looks from some metres away."""
        desktop = self._pygame.display.get_desktop_sizes()[0]
        picture = next(p for p in self._pictures.values() if p is not None)
        width, height = picture.shape[1], picture.shape[0]
        if len(self._pictures) > 1:
            width, height = desktop
        scale = min(0.9 * desktop[0] / width, 0.85 * desktop[1] / height)
        return max(1, round(width * scale)), max(1, round(height * scale))


class LiveLine:
    """What goes on, in one line: rewritten on a terminal, else a new one each second or when the pose changes."""

    def __init__(self, where: Literal["stdout", "stderr"], *, with_stream: bool) -> None:
        self._out: TextIO | None = sys.stdout if where == "stdout" else sys.stderr
        self._rewrites = self._out.isatty()
        self._with_stream = with_stream
        self._parts: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._written_ns: dict[str, int] = {}
        self._width = 0

    def tell(self, stream: str, pose: str, cue: str, figures: str) -> None:
        """The newest of a stream; written at most five times a second."""
        text = "  ".join(part for part in (pose, cue, figures) if part)
        self._parts[stream] = f"[{stream}] {text}" if self._with_stream else text
        line = "" if self._rewrites else stream  # a terminal has one line for all, a file one after the other
        since_ns = now_ns() - self._written_ns.get(line, 0)
        if since_ns < NS_PER_S // 5:
            return
        kind = re.sub(r"[\d.]+", "", pose)
        if self._rewrites:
            self._write(self._side_by_side(shutil.get_terminal_size().columns - 1))
        elif since_ns >= NS_PER_S or kind != self._kinds.get(stream):
            self._write(self._parts[stream])
        else:
            return
        self._kinds[stream] = kind
        self._written_ns[line] = now_ns()

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._rewrites and self._width:
            self._put("\n")

    def _side_by_side(self, room: int) -> str:
        """The newest of all streams, each cut to its share where there is no room for all."""
        parts, between = list(self._parts.values()), " | "
        if len(between.join(parts)) > room:
            share = max(1, (room + len(between)) // len(parts) - len(between))
            parts = [part[:share] for part in parts]
        return between.join(parts)[:room]

    def _write(self, text: str) -> None:
        if not self._rewrites:
            self._put(text + "\n")
            return
        self._put("\r" + text.ljust(self._width))
        self._width = len(text)

    def _put(self, text: str) -> None:
        if self._out is None or not takes_more(self._out):
            return
        try:
            self._out.write(text)
            self._out.flush()
        except OSError as error:
            self._out = None
            if not isinstance(error, BrokenPipeError):  # the reader (`| head`) has gone; that is no reason to stop
                log.warning("the live line cannot be written any more: %s", error.strerror)


class Rate:
    """Frames per second over the last two seconds."""

    def __init__(self) -> None:
        self._times: deque[int] = deque()

    def tick(self, now: int) -> float | None:
        """Count one frame at `now` (ns); None until there are two."""
        self._times.append(now)
        while now - self._times[0] > 2 * NS_PER_S:
            self._times.popleft()
        span = now - self._times[0]
        return (len(self._times) - 1) * NS_PER_S / span if span > 0 else None


def _start_sdl() -> Any:
    """pygame with a working display; raises UserError otherwise."""
    if not has_display():
        raise UserError("overlay.view = window: there is no display here (DISPLAY is not set); use --view none")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    # The worker handles Ctrl-C itself; SDL would turn it into a window event.
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
    import pygame

    try:
        pygame.display.init()
    except pygame.error as error:
        raise UserError(f"overlay.view = window: no window can be opened here ({error}); use --view none") from None
    return pygame
