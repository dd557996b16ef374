"""INT8: quantised after training by NNCF, and judged by what it does to the answers, not only to size and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from stages.classify import INPUTS, class_probabilities
from stages.runtime import RUNTIMES, load_network
from training.geopose.data import PoseTable
from training.geopose.export import table_inputs
from training.geopose.measure import interval_text, person_interval
from training.geopose.served import network_logits
from training.int8 import write_int8
from training.timing import times_ms

CALIBRATION_SAMPLES = 300
TIMED_RUNS = 60
LOGIT_BOUND = 0.3
"""Most that INT8 may move logits of test pictures on average. The shipped model's move by 0.17 and 0.18, one by 2.2;
97.3 % of its answers stay."""
_GRAPH_OPERATORS = ("MatMul", "Gemm", "Add", "Sub", "Mul", "Div", "ReduceMean", "ReduceSum", "Concat")
"""Left in FP32 where there are convolutions, which hold most weights and take most time: with the graph and the head in
INT8 as well, an earlier model's logits moved by 0.6 on average, with convolutions alone by 0.01."""


class PrecisionRow(msgspec.Struct, frozen=True):
    """One precision on one runtime, over test people."""

    precision: str
    runtime: str
    top1: float
    top1_interval: tuple[float, float] | None
    """95 %, by drawing people; None of too few."""
    coverage: float
    accepted_accuracy: float
    same_answer: float
    """Share of answers that are those of FP32 on ONNX Runtime."""
    megabytes: float
    best_ms: float
    """Least time of one sample, one thread: what is least disturbed by other programs."""
    median_ms: float
    mean_logit_gap: float | None = None
    """From FP32 on ONNX Runtime, over all test samples and classes."""
    largest_logit_gap: float | None = None


def quantise(model_file: Path, inputs: Sequence[np.ndarray], out: Path) -> None:
    """Write the INT8 form of an ONNX file; `inputs` are the network's, of the samples to calibrate on.

    Raises UserError when NNCF is not installed.
    """
    network = onnx.load(model_file)
    samples = [{name: a[i : i + 1] for name, a in zip(INPUTS, inputs, strict=True)} for i in range(len(inputs[0]))]
    has_convolutions = any(node.op_type == "Conv" for node in network.graph.node)
    write_int8(network, samples, out, _GRAPH_OPERATORS if has_convolutions else ())


def compare_precisions(
    files: Mapping[str, Path], test: PoseTable, temperature: float, threshold: float
) -> list[PrecisionRow]:
    """Judge each file (by precision, FP32 first) on each runtime over `test`, timing all by turns."""
    networks = {
        (precision, runtime): load_network(file, runtime, threads=1)
        for precision, file in files.items()
        for runtime in RUNTIMES
    }
    sample = [array[:1] for array in table_inputs(test, 1)]
    times = times_ms({key: partial(network, *sample) for key, network in networks.items()}, TIMED_RUNS)
    first: np.ndarray | None = None
    rows = []
    for (precision, runtime), network in networks.items():
        logits = network_logits(network, test)
        first = logits if first is None else first
        probabilities = class_probabilities(logits, temperature)
        answer = probabilities.argmax(1)
        gaps = np.abs(logits - first)
        right, accepted = answer == test.labels, probabilities.max(1) >= threshold
        rows.append(PrecisionRow(
            precision, runtime, float(right.mean()), person_interval(right, test.people), float(accepted.mean()),
            float(right[accepted].mean()) if accepted.any() else 0.0, float((answer == first.argmax(1)).mean()),
            files[precision].stat().st_size / 1e6, min(times[precision, runtime]),
            float(np.median(times[precision, runtime])), float(gaps.mean()), float(gaps.max()),
        ))  # fmt: skip
    return rows


def by_precision(rows: Sequence[PrecisionRow]) -> dict[str, dict[str, Any]]:
    """The comparison for a card, whose format knows tables but no lists of them."""
    tables = {f"{row.precision.lower()}_{row.runtime}": msgspec.to_builtins(row) for row in rows}
    return {
        key: {name: v for name, v in row.items() if name not in ("precision", "runtime") and v is not None}
        for key, row in tables.items()
    }


def table_text(rows: Sequence[PrecisionRow]) -> str:
    """The comparison, for the terminal."""
    lines = [
        "precision  runtime      top-1 (95 %)           accepted  right  same answer  logits off, at most    MB"
        "  best ms  median ms"
    ]
    for r in rows:
        top1 = f"{r.top1:.3f} ({interval_text(r.top1_interval)})"
        answers = f"{r.coverage:8.3f}  {r.accepted_accuracy:.3f}  {r.same_answer:11.3f}"
        gaps = f"{r.mean_logit_gap or 0:10.1e}  {r.largest_logit_gap or 0:7.1e}"
        cost = f"{gaps}  {r.megabytes:4.1f}  {r.best_ms:7.2f}  {r.median_ms:9.2f}"
        lines.append(f"{r.precision:<9}  {r.runtime:<11}  {top1}  {answers}  {cost}")
    return "\n".join(lines)
