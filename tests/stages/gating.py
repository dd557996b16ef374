"""Frames, people and the three stages that decide what is computed, for the tests of both files."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np

from engine.frames import OwnedFrames
from engine.stage import Context
from stages.gate import ConfidenceGate, GateSettings, MotionGate
from stages.packets import ArnisPacket, Cue, Person, Pose, Stick
from stages.stand_in import StandIn

CLIP = Path(__file__).parent.parent / "clips" / "sam2_juggle.mp4"


def first_frame(clip: Path = CLIP) -> np.ndarray:
    """Of a real video, 720p, uint8 BGR."""
    capture = cv2.VideoCapture(str(clip))
    found, frame = capture.read()
    capture.release()
    assert found
    return frame


def with_stick(picture: np.ndarray, angle_deg: float) -> np.ndarray:
    """The frame with a rattan-coloured stick drawn from one fixed grip."""
    drawn, angle = picture.copy(), np.radians(angle_deg)
    tip = (int(560 + 180 * np.cos(angle)), int(330 - 180 * np.sin(angle)))
    cv2.line(drawn, (560, 330), tip, (90, 150, 195), 7, cv2.LINE_AA)
    return drawn


class Rig:
    """The three stages over frames that lie in memory, as a worker calls them."""

    def __init__(self, hand: str = "weapon_hand", **settings: object) -> None:
        self.settings = msgspec.convert(settings, GateSettings)
        self.frames = OwnedFrames("0")
        self.motion = MotionGate(self.settings)
        self.confidence = ConfidenceGate(self.settings)
        self.stand_in = StandIn(self.settings)
        context = Context(
            streams=["0"], frames=self.frames, request_stop=lambda: None, health=dict,
            sections={"detect": {"hand": hand}},
        )  # fmt: skip
        for stage in (self.motion, self.confidence, self.stand_in):
            stage.open(context)
        self.sequence = -1

    def packet(self, picture: np.ndarray | None = None, stream: str = "0", step_s: float = 1 / 30) -> ArnisPacket:
        self.sequence += 1
        ref = None
        if picture is not None:
            np.copyto(self.frames.begin(*picture.shape[:2], busy=range(1000)), picture)
            ref = self.frames.commit(self.sequence)
        return ArnisPacket(
            stream=stream, sequence=self.sequence, pts=self.sequence * step_s, captured_at_ns=1, frame=ref
        )  # fmt: skip

    def seen(self, packet: ArnisPacket) -> ArnisPacket:
        """What a confident detector and classifier would add, after the motion gate."""
        if packet.gate is None or packet.gate.detect:
            packet.person, packet.stick = person(), stick()
            packet = self.confidence.process(packet)
            packet.pose, packet.feedback, packet.status = pose(), [cue()], "ok"
        return self.stand_in.process(packet)

    def unsure(self, packet: ArnisPacket) -> ArnisPacket:
        """The same with a body that was hardly seen."""
        packet.person, packet.stick = person(confidence=0.2), stick()
        return self.stand_in.process(self.confidence.process(packet))

    def nobody(self, packet: ArnisPacket) -> ArnisPacket:
        return self.stand_in.process(self.confidence.process(packet))


def person(confidence: float = 0.9, track: int = 1) -> Person:
    keypoints = np.full((17, 3), 100, np.float32)
    keypoints[11:, 1] = 150  # hips and legs are below
    keypoints[:, 2] = confidence
    return Person(track=track, box=(50.0, 50.0, 150.0, 150.0), score=0.9, keypoints=keypoints)


def stick(grip: float = 0.9, tip: float = 0.9) -> Stick:
    return Stick(hand="left", grip=(100.0, 100.0, grip), tip=(150.0, 60.0, tip))


def pose(label: str = "crown_thrust") -> Pose:
    return Pose(
        label=label, confidence=0.9, accepted=True, family="left_lead", chamber="high", probabilities={label: 0.9}
    )  # fmt: skip


def cue() -> Cue:
    return Cue(quantity="stick_deg", measured=10.0, wanted=(30.0, 60.0), severity=1.3, sentence="Raise the tip.")
