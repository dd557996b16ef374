"""A table with its sticks corrected as the pipeline would, to see what a method of correction does to answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from engine.errors import UserError
from engine.packet import FrameRef
from engine.stage import Context
from stages.correct import Correct, CorrectMethod, CorrectSettings
from stages.packets import ArnisPacket, Person, Stick
from stages.skeleton import BODY_COUNT, GRIP, TIP
from training.data.table import Table
from training.see import OnePicture


def corrected(table: Table, method: CorrectMethod, pictures: Path | None) -> Table:
    """The table with its sticks changed by `stages.correct`; `evidence` looks into the pictures, whose names are
    relative to `pictures`. Raises UserError when a picture cannot be read."""
    if method == "off":
        return table
    frames = OnePicture()
    stage = Correct(CorrectSettings(method=method))
    stage.open(Context(streams=[], frames=frames, request_stop=lambda: None, health=dict))
    keypoints, left = table.keypoints.copy(), table.left_handed()
    for i in np.flatnonzero((keypoints[:, [GRIP, TIP], 2] > 0).all(1)).tolist():
        if method == "evidence":
            frames.image = _picture(table, i, pictures)
        stick = Stick(
            hand="left" if left[i] else "right", grip=_point(keypoints[i, GRIP]), tip=_point(keypoints[i, TIP])
        )
        packet = _packet(keypoints[i, :BODY_COUNT], stick, frames.image)
        changed = stage.process(packet).stick
        keypoints[i, [GRIP, TIP]] = [changed.grip, changed.tip]
    return replace(table, keypoints=keypoints)


def _point(values: np.ndarray) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))


def _packet(body: np.ndarray, stick: Stick, image: np.ndarray) -> ArnisPacket:
    height, width = image.shape[:2]
    # Missing points are NaN in the pipeline, with confidence 0.
    shown = np.where(body[:, 2:] > 0, body, [np.nan, np.nan, 0]).astype(np.float32)
    packet = ArnisPacket(stream="0", sequence=0, pts=0.0, captured_at_ns=0, frame=FrameRef("", 0, 0, width, height))
    packet.person, packet.stick = Person(track=0, box=(0.0, 0.0, 1.0, 1.0), score=1.0, keypoints=shown), stick
    return packet


def _picture(table: Table, index: int, folder: Path | None) -> np.ndarray:
    path = (folder or table.folder) / str(table.pictures[index])
    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{table.rows[index]}: picture {path} cannot be read; say where the pictures are: --pictures")
    return np.asarray(image)
