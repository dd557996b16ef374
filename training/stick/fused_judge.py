"""A fused model's way from weights to a judged folder: its answers beside the truth, as those of a stick detector."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.detectors import Runtime, open_model
from stages.detectors.yolo import Yolo
from stages.skeleton import BODY_COUNT, GRIP, TIP
from training.files import whole_model
from training.onnx_file import export_onnx
from training.stick import agree, evaluate
from training.stick.data import read_picture
from training.stick.evaluate import Answer, Seen
from training.stick.export import Kind, whole_pictures, write_card
from training.stick.fused import FusedSettings, load_fused, read_settings
from training.stick.judge import judge
from training.weights import WEIGHTS_FILE

log = logging.getLogger(__name__)

PERSON_THRESHOLD = 0.25
"""Score from which a person counts; ultralytics' default."""

_NOTES = (
    "Raw rows of ultralytics: box, score and 19 keypoints (COCO-17, grip, tip) in pixels of the letterboxed input. "
    "The threshold is the person's. A stick counts from {stick:.2f} (the weaker of its ends' scores): below, the graph "
    "gives both ends score 0. Errors of the stick are in its lengths in the picture, of the body in body heights."
)


class FusedModel:
    """A folder with a fused model behind `(picture, keypoints) -> Answer`, of the person at those keypoints."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._detector = Yolo(str(folder), *open_model(str(folder), Runtime("onnxruntime", threads), ["fused"]))

    def find(self, image_bgr: np.ndarray, keypoints: np.ndarray) -> np.ndarray | None:
        """Nodes (19, 3) in pixels of the picture, of the person at `keypoints` (17, 3); missing: score 0, NaN."""
        found = agree.at_person(self._detector, image_bgr, keypoints)
        if found is None or found.stick is None:
            return None
        return np.concatenate([found.keypoints, found.stick.points])

    def __call__(self, image_bgr: np.ndarray, keypoints: np.ndarray) -> Answer:
        """Without a person: ends in the picture's corner and presence 0."""
        nodes = self.find(image_bgr, keypoints)
        if nodes is None:
            return Answer(np.zeros((2, 3), np.float32), 0.0)
        ends = np.nan_to_num(nodes[[GRIP, TIP]])
        return Answer(ends, float(ends[:, 2].min()))


def body_figures(model: FusedModel, seen: Sequence[Seen]) -> dict[str, float]:
    """How near the body's keypoints are to the true ones of renders; a distance is one in body heights."""
    rows = [np.empty((0, BODY_COUNT))]
    for s in seen:
        nodes = model.find(read_picture(s.row.path), s.keypoints)
        rows.append(agree.keypoint_distances(agree.as_truth(s.row.keypoints), nodes)[None])
    return agree.figures(np.concatenate(rows))


def finish(
    work: Path, output: Path, table: Path | None, clips: Sequence[Path], limit: int, threads: int
) -> dict[str, Any]:
    """Export the weights of `work`, judge them, choose the stick's threshold and write the model folder `output`.

    The threshold comes from the val people, the figures from the test people and the clips; returns the figures.
    """
    weights = work / "narrow" / "weights" / "last.pt"
    kind = kind_of(read_settings(work))
    with whole_model(output) as part:
        export_onnx(load_fused(weights), part / "model.onnx", kind.form)
        shutil.copyfile(weights, part / WEIGHTS_FILE)
        write_card(part, kind, PERSON_THRESHOLD, {})
        model = FusedModel(part, threads)
        val, test = (evaluate.seen_rows(table, split, limit) if table else [] for split in ("val", "test"))
        stick, metrics = judge(model, part / "model.onnx", val, test, clips, work / "test_sheet.jpg", limit)
        if test:
            metrics["test_body"] = body_figures(model, test)
        if clips:
            distances = agree.measure(str(part), clips, threads=threads)
            metrics["agreement_with_thunder"] = agree.figures(np.concatenate(list(distances.values())))
        export_onnx(load_fused(weights, stick), part / "model.onnx", kind.form)
        kind = kind._replace(notes=_NOTES.format(stick=stick))
        write_card(part, kind, PERSON_THRESHOLD, metrics)
    return metrics


def kind_of(settings: FusedSettings) -> Kind:
    """What the card says: architecture, data, and source with the weights that the run began with."""
    begun = f"from {settings.init} (its licence holds too)" if settings.init else "from random weights"
    name = (settings.init or settings.model).removesuffix(".pt").removesuffix(".yaml").replace("-", "_")
    architecture = name if name.startswith("yolo") else f"yolo_{name}"
    source = f"training/stick: ultralytics {name}, person and stick as one instance of 19 keypoints, {begun}"
    form = whole_pictures(settings.size)
    return Kind("fused", architecture, "AGPL-3.0-or-later", source, _NOTES.format(stick=0), form, settings.data)
