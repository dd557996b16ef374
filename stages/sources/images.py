"""A folder of pictures, in the order in which people number them."""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path

import cv2
import numpy as np

from engine.clock import now_ns
from engine.errors import UserError
from engine.stage import Captured, SourceInfo
from stages.sources import Allocate, CaptureSettings

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

log = logging.getLogger(__name__)


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame_2 before frame_10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", path.name) if part
    ]


def _printable(name: str | Path) -> str:
    """A name that may not be written in UTF-8, as it was on an old camera: in a message or in JSON it must be."""
    return os.fsencode(name).decode(errors="replace")


class ImageFolder:
    """Gives the pictures one by one, `fps` to the second; a picture that cannot be read is skipped with a warning."""

    def __init__(self, folder: Path, fps: float) -> None:
        """`folder` may also be a single picture."""
        self._folder = folder
        self._fps = fps
        self._index = self._to_skip = 0
        self._next: tuple[str, np.ndarray] | None = None
        self._closed = threading.Event()

    def open(self, skip: int) -> SourceInfo:
        try:
            there = sorted(self._folder.iterdir()) if self._folder.is_dir() else [self._folder]
            # A pipe or device of such a name would be read for ever; of a link that leads nowhere is told.
            files = [path for path in there if path.is_file() or not path.exists()]
            paths = [path for path in files if path.suffix.lower() in SUFFIXES]
        except OSError as error:
            raise UserError(f"folder {self._folder} cannot be read: {error.strerror}; mend that") from error
        others = sorted(path.name for path in set(there).difference(paths) if not path.name.startswith("."))
        if paths and others:
            log.warning("passed over in %s as no pictures: %d, such as %r", self._folder, len(others), others[0])
        if not paths:
            if below := next((path for path in self._folder.rglob("*") if path.suffix.lower() in SUFFIXES), None):
                one = _printable(below.parent)
                raise UserError(f"folder {self._folder} has pictures in subfolders only; give one, as {one}")
            kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            raise UserError(f"folder {self._folder} holds no pictures; put files of these kinds into it: {kinds}")
        if len(paths) > 1 and not skip and self._fps == CaptureSettings().fps:  # nobody has said what they are
            log.warning("%s is played as a film of %g pictures a second; for photographs, each on its own, "
                        "add --set capture.fps=0.2", self._folder, self._fps)  # fmt: skip
        self._remaining = iter(sorted(paths, key=natural_key))
        self._next, self._index, self._to_skip = self._load_next(), skip, skip
        if self._next is None:
            raise UserError(f"{self._folder} holds no picture that can be read; check the files")
        height, width = self._next[1].shape[:2]
        return SourceInfo(width, height, self._fps, live=False)

    def read(self, allocate: Allocate) -> Captured | None:
        while self._to_skip and not self._closed.is_set():  # not in `open`, which must not take long
            self._to_skip -= 1
            self._next = self._load_next()
        following, self._next = self._next, None
        if following is None:
            following = self._load_next()
        if following is None or self._closed.is_set():
            return None
        name, picture = following
        allocate(*picture.shape[:2])[:] = picture
        pts = self._index / self._fps
        self._index += 1
        return Captured(pts, now_ns(), name)

    def close(self) -> None:
        self._closed.set()

    def _load_next(self) -> tuple[str, np.ndarray] | None:
        """Name of the next picture that can be read, and it, uint8 BGR, turned as its camera says."""
        for path in self._remaining:
            # Not cv2.imread, which cannot open names with letters beyond ASCII on Windows.
            try:
                data = np.frombuffer(path.read_bytes(), np.uint8)
                picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
            except (OSError, cv2.error) as error:
                log.warning("picture %r cannot be read and is skipped: %s", str(path), error)
                continue
            if picture is not None:
                return _printable(path.name), picture
            log.warning("picture %r is damaged and is skipped", str(path))
        return None
