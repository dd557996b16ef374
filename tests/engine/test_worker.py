"""The loop of one worker, without its sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.chain import Chain
from engine.config import EngineSettings
from engine.frames import OwnedFrames
from engine.layout import WorkerSpec
from engine.links import Parcel
from engine.packet import FrameRef, Packet, PacketCodec
from engine.stage import FrameOverrun
from engine.worker import _Loop


class Nobody:
    """Stands for the supervisor and the captures, which have nothing to say here."""

    def done(self, stream: str) -> None:
        """Nobody listens."""


def parcel(sequence: int) -> list[Any]:
    """A packet with its pixels, as transport `copy` sends it."""
    sender = OwnedFrames("0")
    sender.begin(2, 4, busy=())[:] = sequence
    packet = Packet(stream="0", sequence=sequence, pts=0.0, captured_at_ns=0, frame=sender.commit(sequence))
    return Parcel(PacketCodec(Packet), sender).pack(packet)


def test_pixels_of_a_packet_that_comes_after_its_turn_are_not_kept(tmp_path: Path) -> None:
    owned, nobody = OwnedFrames(), Nobody()
    spec = WorkerSpec(
        kind="stages", name="output", supervisor_pid=0, folder=str(tmp_path), streams=["0"], sections={}, last=True,
        engine=EngineSettings(transport="copy"), entry_endpoints={"0": "nowhere"},
    )  # fmt: skip
    loop: Any = _Loop(spec, nobody, Chain([], 3), Packet, owned)  # type: ignore[arg-type]
    inlet = Parcel(PacketCodec(Packet), owned)
    gone = Packet(stream="0", sequence=0, pts=0.0, captured_at_ns=0)
    gone.end("dropped", "worker_lost")
    loop._finish([gone], nobody)
    for sequence in (0, 2, 1):  # too late, before its time, in its turn
        frame = FrameRef("copy-0", 0, sequence, 4, 2)
        loop._finish([inlet.unpack(parcel(sequence))], nobody)
        if sequence == 2:
            with owned.read(frame) as pixels:
                assert np.all(pixels == 2), "it will still be needed"
    for sequence in (0, 1, 2):
        with pytest.raises(FrameOverrun), owned.read(FrameRef("copy-0", 0, sequence, 4, 2)):
            pass
