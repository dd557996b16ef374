"""How sources are read as the engine reads them, and videos to read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engine.errors import UserError
from engine.stage import Captured, SourceInfo, SourceLost
from stages.capture import Capture
from stages.sources import CaptureSettings

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
