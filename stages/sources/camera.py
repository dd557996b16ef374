"""Cameras, through OpenCV."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import cv2
import numpy as np

from engine.clock import NS_PER_MS, NS_PER_S, now_ns
from engine.errors import UserError
from engine.stage import Captured, SourceInfo
from stages.sources import Allocate, CaptureSettings
from stages.sources.live import FeedLost

DRIVER_TIME_WITHIN_NS = NS_PER_S
"""A driver's time stamp is believed when it lies within this much before now: some drivers give 0 or another clock."""

log = logging.getLogger(__name__)


def camera_device(source: str) -> int | None:
    """Index of a camera that is named `0` or `/dev/video0`; None for anything else."""
    name = source.removeprefix("/dev/video")
    return int(name) if name.isascii() and name.isdigit() and len(name) < 4 else None


def captured_at(driver_ms: float, now: int) -> int:
    """When a picture was taken, in the pipeline's nanoseconds: the driver's time if it fits this clock, else `now`."""
    driver_ns = int(driver_ms * NS_PER_MS)
    return driver_ns if 0 <= now - driver_ns < DRIVER_TIME_WITHIN_NS else now


class CameraFeed:
    """An open camera; raises UserError when there is none or it gives no picture."""

    def __init__(self, index: int, settings: CaptureSettings) -> None:
        _require_device(index)
        _hush_opencv(settings.timeout_s)
        self._camera = cv2.VideoCapture(index, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY)
        if not self._camera.isOpened():
            raise UserError(f"camera {index} cannot be opened; check that no other program uses it")
        self._set_up(settings)
        grabbed, first = self._camera.read()
        if not grabbed:
            self._camera.release()
            raise UserError(f"camera {index} opens but gives no picture; close other programs that use it")
        self._first: np.ndarray | None = first
        self._started_ns = self.captured_at_ns = now_ns()
        fps = self._camera.get(cv2.CAP_PROP_FPS)
        self.info = SourceInfo(first.shape[1], first.shape[0], fps if fps > 0 else None, live=True)
        log.info("camera %d gives %dx%d at %.0f fps", index, self.info.width, self.info.height, fps)

    def read(self, allocate: Allocate) -> Captured:
        if self._first is not None:
            first, self._first = self._first, None
            allocate(*first.shape[:2])[:] = first
            return Captured(0.0, self._started_ns)
        self.captured_at_ns = 0
        if not self._camera.grab():
            raise FeedLost("no picture came")
        taken_ns = captured_at(self._camera.get(cv2.CAP_PROP_POS_MSEC), now_ns())
        frame = allocate(self.info.height, self.info.width)
        decoded, picture = self._camera.retrieve(frame)
        if not decoded:
            raise FeedLost("a picture could not be decoded")
        if picture.shape != frame.shape:
            self.info = SourceInfo(picture.shape[1], picture.shape[0], self.info.fps, live=True)
            frame = allocate(self.info.height, self.info.width)
        if not np.may_share_memory(picture, frame):  # OpenCV answers a wrong size by silently giving a new array
            frame[:] = picture
        return Captured((taken_ns - self._started_ns) / NS_PER_S, taken_ns)

    def close(self) -> None:
        self._camera.release()

    def _set_up(self, settings: CaptureSettings) -> None:
        # Uncompressed, large pictures don't fit through USB 2 at full rate; and each waiting buffer is a frame of age.
        self._camera.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self._camera.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
        self._camera.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
        self._camera.set(cv2.CAP_PROP_FPS, settings.fps)
        self._camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)


def _require_device(index: int) -> None:
    """Look before opening where that is possible: OpenCV's own answer to a missing camera is noise on stderr."""
    if sys.platform != "linux" or Path(f"/dev/video{index}").exists():
        return
    there = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
    others = f"there are {', '.join(there)}" if there else "none is connected"
    raise UserError(f"camera {index} is not there ({others}); give another number, a file or a URL as --source")


def _hush_opencv(timeout_s: float) -> None:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(max(1, round(timeout_s))))
    os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")  # else cameras on Windows open in 4 to 20 s
