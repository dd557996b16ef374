"""A film of a person who goes from pose to pose, holds each, and what is true in every frame of it."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages import skeleton as sk
from training.data.cells import KEYPOINT_COLUMNS
from training.files import whole_file
from training.synth import pose
from training.synth.body import Posed, Wish, pose_body
from training.synth.camera import Camera
from training.synth.picture import visibility
from training.synth.rig import Rest
from training.synth.rotations import Array, unit

log = logging.getLogger(__name__)
WIDTH, HEIGHT, FPS = 1280, 720, 30
LOOSE_PALM = (0.6, 0.0, -0.3)
"""Of poses whose palm nothing tells."""


@dataclass(frozen=True)
class Key:
    """A pose in the performer's own frame, the performer's turn in degrees, the palm, and the frames of the way to it
    and of its hold."""

    label: str
    view: str
    points: Array
    turn_deg: float
    palm: Array
    way_frames: int
    hold_frames: int


@dataclass(frozen=True)
class Hold:
    """A held pose: label and the first and last frame on which it stands still."""

    label: str
    first_frame: int
    last_frame: int
    view: str


Moment = tuple[Array, Array]
"""Points of a frame, and the palm, turned to the camera."""


def act(rest: Rest, keys: list[Key]) -> tuple[list[Moment], list[Hold]]:
    """Every frame from the first to the last of the poses, and their holds."""
    out: list[Moment] = []
    holds = []
    for before, key in zip([None, *keys], keys, strict=False):
        for i in range(1, key.way_frames if before else 0):
            assert before is not None
            t = _ease(i / key.way_frames)
            points = pose.blend(before.points, key.points, t, rest)
            turn = (1 - t) * before.turn_deg + t * key.turn_deg
            palm = unit((1 - t) * before.palm + t * key.palm + np.array([1e-3, 0, 0]))
            out.append(_placed(points, palm, turn, len(out), rest))
        first = len(out)
        out += [_placed(key.points, key.palm, key.turn_deg, first + i, rest) for i in range(key.hold_frames)]
        holds.append(Hold(key.label, first, len(out) - 1, key.view))
    return out, holds


def _ease(t: float) -> float:
    return t * t * t * (t * (6 * t - 15) + 10)


def _sway(points: Array, frame: int, rest: Rest) -> Array:
    """Breathing and the small unrest of a body that stands still."""
    t = frame / FPS
    swing = np.array([0.006 * np.sin(2.1 * t), 0.005 * np.sin(1.7 * t + 1), 0.003 * np.sin(2.9 * t)])
    out = points.copy()
    height = np.clip(points[:, 2] / (1.6 * rest.lengths.hip_m), 0, 1)[:, None]
    out += swing * height
    out[sk.TIP] += [0.010 * np.sin(2.6 * t), 0, 0.012 * np.sin(2.2 * t + 0.5)]
    return out


def _placed(points: Array, palm: Array, turn_deg: float, frame: int, rest: Rest) -> Moment:
    return pose.turned(_sway(points, frame, rest), turn_deg), pose.turned(palm[None], turn_deg)[0]


def write_film(
    out: Path,
    rest: Rest,
    moments: Iterable[Moment],
    holds: list[Hold],
    camera: Camera,
    draw: Callable[[Posed], tuple[NDArray[np.float32], Array]],
    *,
    left_handed: bool = False,
    truth: Path | None = None,
) -> None:
    """Write the film (H.264), its holds beside it (.json, last), and on request the true keypoints of every frame.

    `draw` gives a frame's picture, RGB 0..255 (h, w, 3), and the depth of body and stick. A left-hander is mirrored.
    """
    import av

    rows = []
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "24", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = camera.width, camera.height, "yuv420p"
        for number, (points, palm) in enumerate(moments):
            posed = pose_body(rest, points, Wish(palm=palm, free_curl=0.5, toe_out_deg=12.0))
            picture, depth = draw(posed)
            row = np.column_stack([camera.project(posed.keypoints), visibility(camera, posed.keypoints, depth)])
            if left_handed:
                picture, row = picture[:, ::-1], row[sk.MIRROR]
                row[:, 0] = camera.width - row[:, 0]  # edges, not indices of pixels
            frame = np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            rows.append(row)
            if number % 100 == 0:
                log.info("%s: frame %d", out.name, number)
        container.mux(stream.encode())
    if truth is not None:
        with truth.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["frame", *KEYPOINT_COLUMNS])
            for number, row in enumerate(rows):
                writer.writerow([number, *(f"{v:.2f}" for v in row.ravel())])
    text = {
        "video": out.name, "width": camera.width, "height": camera.height, "fps": FPS, "frames": len(rows),
        "grip_hand": "left" if left_handed else "right", "holds": [asdict(hold) for hold in holds],
    }  # fmt: skip
    with whole_file(out.with_suffix(".json")) as part:
        part.write_text(json.dumps(text, indent=1) + "\n")
