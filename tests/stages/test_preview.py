"""Pictures for who subscribes to them."""

from __future__ import annotations

import json
import struct
import time

import cv2
import numpy as np
import pytest
from subscribing import Subscriber, context, packet

from engine.clock import NS_PER_S, now_ns
from stages.preview import Preview
from stages.publisher import PublishSettings
from stages.view import CANVAS_DEMAND


def test_the_pictures_rate_and_quality_can_be_set(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = [0], list[list[bytes]]()
    monkeypatch.setattr("stages.preview.now_ns", lambda: clock[0])
    monkeypatch.setattr("stages.preview.Publisher.send", lambda publisher, topic, jpeg: sent[-1].append(jpeg))
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for frames_fps, jpeg_quality in ((4.0, 20), (60.0, 20), (20.0, 95)):
        stage = Preview(PublishSettings(frames_url=url, frames_fps=frames_fps, jpeg_quality=jpeg_quality))
        stage.open(context())
        sent.append([])
        subscriber = Subscriber(url, "frame.0\0")
        until = time.monotonic() + 10
        while not CANVAS_DEMAND and time.monotonic() < until:
            stage.idle(0)
        for sequence in range(101):  # a second of 100 frames
            clock[0] = (100 + sequence) * NS_PER_S // 100
            stage.process(packet(sequence, canvas=noise))
        subscriber.close()
        stage.close()
    assert [len(pictures) for pictures in sent] == [5, 60, 21]
    assert len(sent[0][0]) < len(sent[2][0]) / 2


def test_pictures_are_drawn_and_sent_only_while_somebody_wants_them(url: str) -> None:
    stage = Preview(PublishSettings(frames_url=url, frames_fps=240))
    stage.open(context())
    canvas = np.full((48, 64, 3), 200, np.uint8)
    assert not CANVAS_DEMAND
    subscriber = Subscriber(url, "frame.0\0")

    def serve() -> None:
        if CANVAS_DEMAND:
            stage.process(packet(5, canvas=canvas))
        stage.idle(now_ns())

    topic, jpeg = subscriber.receive(serve=serve)
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert (topic, picture.shape) == ("frame.0", (48, 64, 3))
    (size,) = struct.unpack(">H", jpeg[4:6])  # behind the marker of a comment, FF FE
    comment = json.loads(jpeg[6 : 4 + size])
    assert (comment["sequence"], comment["frame"], "schema" in comment) == (0, 5, False)
    subscriber.close()
    until = time.monotonic() + 5
    while CANVAS_DEMAND and time.monotonic() < until:
        stage.idle(now_ns())
    assert not CANVAS_DEMAND
    stage.close()
