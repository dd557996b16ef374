"""Pictures, people and the detection stages as the engine runs them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from engine.frames import OwnedFrames
from engine.stage import Context
from stages.cards import sha256_of
from stages.detect import Detect, DetectSettings, DetectStick
from stages.detectors import BodyCandidate, StickCandidate, box_around
from stages.packets import ArnisPacket, GateDecision
from stages.runtime import load_network

CLIPS = Path(__file__).parent.parent / "clips"


def frames_of(clip: str, every: int = 1) -> list[np.ndarray]:
    """Frames of a clip, uint8 BGR."""
    with av.open(str(CLIPS / clip)) as container:
        return [f.to_ndarray(format="bgr24") for i, f in enumerate(container.decode(video=0)) if i % every == 0]


class Runner:
    """Feeds pictures to the stage as the engine does."""

    def __init__(self, settings: DetectSettings) -> None:
        self._frames = OwnedFrames()
        self._sequence = 0
        self.detect, self.stick = Detect(settings), DetectStick(settings)
        for stage in (self.detect, self.stick):
            stage.open(
                Context(streams=["0"], frames=self._frames, request_stop=lambda: None, health=dict)
            )

    def __call__(
        self, image: np.ndarray, pts: float | None = None, stream: str = "0", gate: GateDecision | None = None
    ) -> ArnisPacket:
        return self.stick.process(self.detect.process(self.packet(image, pts, stream, gate)))

    def packet(
        self, image: np.ndarray, pts: float | None = None, stream: str = "0", gate: GateDecision | None = None
    ) -> ArnisPacket:
        self._sequence += 1
        self._frames.begin(image.shape[0], image.shape[1], busy=())[:] = image
        return ArnisPacket(
            stream=stream,
            sequence=self._sequence,
            pts=self._sequence / 30 if pts is None else pts,
            captured_at_ns=0,
            frame=self._frames.commit(self._sequence),
            gate=gate,
        )


def standing_person(scale: float = 100, at: tuple[float, float] = (300, 200)) -> np.ndarray:
    """Keypoints (17, 3) of somebody facing the camera, arms hanging; the torso is one `scale` long."""
    x = [0, 0.1, -0.1, 0.2, -0.2, 0.4, -0.4, 0.5, -0.5, 0.55, -0.55, 0.25, -0.25, 0.25, -0.25, 0.25, -0.25]
    y = [-0.4, -0.5, -0.5, -0.45, -0.45, 0, 0, 0.5, 0.5, 0.9, 0.9, 1, 1, 1.8, 1.8, 2.6, 2.6]
    points = np.ones((17, 3), np.float32)
    points[:, :2] = np.stack([x, y], axis=1) * scale + at
    return points


def candidate(keypoints: np.ndarray, score: float = 0.9) -> BodyCandidate:
    return BodyCandidate(keypoints, score, box_around(keypoints, 2000, 2000))


def stick_at(grip: tuple[float, float], tip: tuple[float, float]) -> StickCandidate:
    return StickCandidate(np.array([(*grip, 0.9), (*tip, 0.9)], np.float32), 0.9)


def write_card(folder: Path, task: str, architecture: str, threshold: float, outputs: tuple[str, ...] = ()) -> str:
    """A card for `folder/model.onnx`; returns the folder."""
    file = folder / "model.onnx"
    inputs = load_network(file, "onnxruntime", 1).inputs
    (folder / "card.toml").write_text(
        f'task = "{task}"\narchitecture = "{architecture}"\nfile = "model.onnx"\n'
        f'sha256 = "{sha256_of(file)}"\noutputs = {list(outputs)}\n'
        f'licence = "-"\nsource = "-"\ndata = "-"\nthreshold = {threshold}\n'
        + "".join(f'[[inputs]]\nname = "{i.name}"\ndtype = "{i.dtype}"\nshape = {list(i.shape)}\n' for i in inputs)
    )
    return str(folder)
