"""`arnis-train detector --int8`: a detector quantised after training by NNCF and judged by its keypoints.

Only convolutions become INT8. What decodes boxes and places stays FP32: one step of 256 across a crop is a pixel, and
the rounding of a softmax over distances or cells moves every point.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from engine.errors import UserError
from stages.cards import Card, load_card, sha256_of
from stages.detect import EVERY_LOOK, make_body_detector, make_stick_detector
from stages.detectors import BodyCandidate, Runtime, StickCandidate
from stages.runtime import RUNTIMES, Network, load_network
from training.card_file import save_card
from training.files import whole_model
from training.int8 import write_int8
from training.stick import agree, evaluate
from training.stick.clips import HELD_OUT, frames_with_person, served_detector, step_for
from training.stick.data import read_picture
from training.stick.evaluate import Answer, Seen

log = logging.getLogger(__name__)

CALIBRATION_PICTURES = 300
Look = Callable[[np.ndarray, np.ndarray], tuple[BodyCandidate | None, StickCandidate | None]]
"""Picture and keypoints (17, 3) of a person to the body and the stick that a detector sees there."""


class Row(msgspec.Struct, frozen=True):
    """One precision on one runtime, over the test people; figures that a detector has no part in are absent."""

    precision: str
    runtime: str
    figures: dict[str, float]
    megabytes: float
    median_ms: float
    least_ms: float


class Recorder(Runtime, frozen=True):
    """A runtime whose networks remember what they were asked: the inputs to calibrate on, exactly as served."""

    asked: list[list[np.ndarray]] = msgspec.field(default_factory=list)

    def load(self, file: Path, shapes: Sequence[tuple[int, ...]] | None = None) -> Network:
        network = super().load(file, shapes)

        def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            self.asked.append([array.copy() for array in inputs])
            return network.run(inputs)

        return msgspec.structs.replace(network, run=run)


def quantise_detector(
    model: str, table: Path, clips: Sequence[Path], output: Path, limit: int = 0, threads: int = 1
) -> list[Row]:
    """Write the INT8 form of a model folder to `output`; judge both on each runtime by the table's test people.

    Raises UserError when NNCF, the model or pictures are missing.
    """
    card, file = load_card(model)
    recorder = Recorder("onnxruntime", threads)
    look = open_detector(model, card, recorder)
    recorder.asked.clear()  # of the trial run when it was opened
    for image, keypoints in calibration_pictures(table, clips, limit or CALIBRATION_PICTURES):
        look(image, keypoints)
    with whole_model(output) as part:
        quantise(file, recorder.asked[: 3 * (limit or CALIBRATION_PICTURES)], part / "model.onnx")
        write_int8_card(card, part, {})
        seen = evaluate.seen_rows(table, "test", limit)
        if not seen:
            raise UserError(f"{table} has no test picture with a person to judge by; give one with a split `test`")
        rows = compare({"FP32": model, "INT8": str(part)}, seen, threads)
        metrics = {f"{row.precision}_{row.runtime}": row.figures | _cost(row) for row in rows}
        write_int8_card(card, part, {"fp32_and_int8": metrics})
    return rows


def open_detector(model: str, card: Card, runtime: Runtime) -> Look:
    """A detector of any task, as it is served."""
    if card.task == "stick":
        finder = make_stick_detector(model, runtime)

        def see_stick(image: np.ndarray, keypoints: np.ndarray) -> tuple[None, StickCandidate | None]:
            found = finder.detect(image, keypoints, EVERY_LOOK)
            return None, max(found, key=lambda candidate: candidate.score, default=None)

        return see_stick
    detector = make_body_detector(model, runtime, fused=card.task == "fused")

    def see_body(image: np.ndarray, keypoints: np.ndarray) -> tuple[BodyCandidate | None, StickCandidate | None]:
        body = agree.at_person(detector, image, keypoints)
        return body, body.stick if body else None

    return see_body


def calibration_pictures(table: Path, clips: Sequence[Path], count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """About `count` val renders and frames that training saw, with the keypoints (17, 3) that are found."""
    used = [clip for clip in clips if clip.stem not in HELD_OUT]
    from_clips = count // 2 if used else 0
    for seen in evaluate.seen_rows(table, "val", count - from_clips):
        yield read_picture(seen.row.path), seen.keypoints
    finder = served_detector()
    for clip in used:
        for frame, keypoints in frames_with_person(clip, finder, step_for(clip, max(1, from_clips // len(used)))):
            if keypoints is not None:
                yield frame, keypoints


def quantise(file: Path, asked: Sequence[list[np.ndarray]], out: Path) -> None:
    """Write the INT8 form of an ONNX file, calibrated on inputs; raises UserError without NNCF or inputs."""
    if not asked:
        raise UserError("no picture to calibrate on; give a --table with a split `val`, or --clips with people")
    network = onnx.load(file)
    names = [item.name for item in network.graph.input]
    samples = [dict(zip(names, arrays, strict=True)) for arrays in asked]
    float_types = sorted({node.op_type for node in network.graph.node} - {"Conv"})
    write_int8(network, samples, out, float_types, decoding_convolutions(network))


def decoding_convolutions(network: Any) -> list[str]:
    """Convolutions that are no part of the features: YOLO's mean over distances has the weights 0, 1, 2, ..."""
    constants = {item.name: item for item in network.graph.initializer}
    names = []
    for node in network.graph.node:
        if node.op_type == "Conv" and node.input[1] in constants:
            weights = numpy_helper.to_array(constants[node.input[1]]).ravel()
            if len(weights) > 1 and np.array_equal(weights, np.arange(len(weights))):
                names.append(node.name)
    return names


def compare(models: dict[str, str], seen: Sequence[Seen], threads: int = 1) -> list[Row]:
    """Judge each model (by precision) on each runtime; timed by turns."""
    files = {precision: load_card(model)[1] for precision, model in models.items()}
    places = [(precision, runtime) for precision in models for runtime in RUNTIMES]
    networks = {f"{p} {r}": load_network(files[p], r, threads) for p, r in places}
    times = evaluate.milliseconds(networks)
    rows = []
    for precision, runtime in places:
        model = models[precision]
        look = open_detector(model, load_card(model)[0], Runtime(runtime, threads))
        rows.append(Row(
            precision, runtime, figures(look, seen), files[precision].stat().st_size / 1e6,
            **times[f"{precision} {runtime}"],
        ))  # fmt: skip
    return rows


def figures(look: Look, seen: Sequence[Seen]) -> dict[str, float]:
    """Rates, errors of the stick in its lengths and degrees, of the body in body heights; medians of what was found."""
    answers = [look(read_picture(s.row.path), s.keypoints) for s in seen]
    values: dict[str, float] = {}
    if any(stick is not None for _, stick in answers):
        judged = [evaluate.judge_answer(s.row, _answer(stick)) for s, (_, stick) in zip(seen, answers, strict=True)]
        there, empty = [o for o in judged if o.visible], [o for o in judged if not o.visible]
        tips = np.array([o.tip_error for o in there if np.isfinite(o.tip_error)])
        near = [np.maximum(o.grip_error, o.tip_error) < evaluate.FOUND_WITHIN for o in there]
        values["found_rate"] = float(np.mean(near)) if near else 0.0
        values["false_rate"] = float(np.mean([o.answer.presence > 0 for o in empty])) if empty else 0.0
        if len(tips):
            turns = [o.angle_error_deg for o in there if np.isfinite(o.angle_error_deg)]
            values |= {"median_tip_error": float(np.median(tips)), "median_angle_error_deg": float(np.median(turns))}
    if any(body is not None for body, _ in answers):
        rows = [
            agree.keypoint_distances(agree.as_truth(s.row.keypoints), None if body is None else body.keypoints)
            for s, (body, _) in zip(seen, answers, strict=True)
        ]
        body_figures = agree.figures(np.stack(rows))
        values |= {f"body_{k}": body_figures[k] for k in ("agreeing_rate", "median_distance") if k in body_figures}
    return {name: round(value, 4) for name, value in values.items()}


def _answer(stick: StickCandidate | None) -> Answer:
    """A fused network says by ends that are without confidence, or outside, that there is no stick."""
    if stick is None:
        return Answer(np.full((2, 3), np.nan), 0.0)
    is_seen = np.isfinite(stick.points[:, :2]).all() and (stick.points[:, 2] > 0).all()
    return Answer(stick.points, float(is_seen))


def table_text(rows: Sequence[Row]) -> str:
    """The comparison, for the terminal."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = ["precision  runtime      " + "  ".join(names) + "    MB  median ms  least ms"]
    for row in rows:
        cells = "  ".join(f"{row.figures.get(name, float('nan')):{len(name)}.4f}" for name in names)
        cost = f"{row.megabytes:4.1f}  {row.median_ms:9.2f}  {row.least_ms:8.2f}"
        lines.append(f"{row.precision:<9}  {row.runtime:<11}  {cells}  {cost}")
    return "\n".join(lines)


def write_int8_card(card: Card, output: Path, metrics: dict[str, Any]) -> None:
    """The card of the FP32 model with the INT8 file's figures."""
    changed = msgspec.structs.replace(
        card,
        file="model.onnx",
        sha256=sha256_of(output / "model.onnx"),
        metrics=metrics,
        notes=f"{card.notes} Convolutions in INT8 (NNCF after training), all else in FP32.".strip(),
        made_with=card.made_with | {"nncf": version("nncf")},
    )
    save_card(changed, output)


def _cost(row: Row) -> dict[str, float]:
    return {"megabytes": round(row.megabytes, 2), "median_ms": row.median_ms, "least_ms": row.least_ms}
