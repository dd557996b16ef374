"""Variations of the demo clip at other frame rates."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from stages.classes import models_folder


def at_twice_the_rate(path: Path) -> Path:
    """The demo clip's frames at 60 a second: the person moves twice as fast. Nothing is encoded anew."""
    with av.open(str(models_folder() / "demo.mp4")) as source, av.open(str(path), "w") as target:
        before = source.streams.video[0]
        stream = target.add_stream_from_template(before)
        time_base = before.time_base
        assert time_base is not None, "the demo clip has times"
        for packet in source.demux(before):
            if packet.dts is not None:
                packet.stream, packet.time_base = stream, time_base / 2
                target.mux(packet)
    return path


def every_third_frame(path: Path) -> Path:
    """Every third frame of the demo clip, at 10 frames a second: the person moves as fast as in the clip."""
    with av.open(str(models_folder() / "demo.mp4")) as source, av.open(str(path), "w") as target:
        stream: Any = target.add_stream("libx264", rate=10, options={"preset": "ultrafast", "crf": "18"})
        before = source.streams.video[0]
        stream.width, stream.height, stream.pix_fmt = before.width, before.height, "yuv420p"
        for number, frame in enumerate(source.decode(before)):
            if number % 3 == 0:
                frame.pts, frame.time_base = number // 3, Fraction(1, 10)
                target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path
