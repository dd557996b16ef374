"""Every shipped network on every runtime: threads, precisions and, where the batch is free, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.figures import Chart, Part, Row, Session, percentiles_ms, ratio
from engine.clock import NS_PER_S, now_ns
from engine.errors import UserError
from stages.cards import Card, load_card
from stages.classes import models_folder
from stages.devices import Machine
from stages.runtime import Backend, Network, Precision, load_network, usable_cores

BATCHES = (1, 2, 4, 8, 16, 32)
_WARM_UP_CALLS = 3
_MOST_CALLS = 500


class Variant(msgspec.Struct, frozen=True):
    """One way to run a network."""

    backend: Backend
    threads: int
    precision: Precision
    batches: tuple[int, ...]


def measure(session: Session) -> Part:
    """Every shipped network in every variant."""
    seconds = 0.05 if session.quick else 1.0
    rows, notes = [], []
    for model in shipped_models():
        card, file = load_card(model)
        for variant in variants(has_free_batch(card), session.quick):
            session.say(f"{model} on {variant.backend}, threads {variant.threads}, {variant.precision}")
            try:
                rows += measure_network(card, file, variant, seconds)
            except UserError as error:
                notes.append(f"{model}, {variant.backend} {variant.precision}: {error}")
    return Part(
        name="networks",
        title="Each network alone, random input",
        rows=rows,
        notes=[*notes, *batch_gains(rows)],
        chart=Chart(("runtime", "threads", "precision", "batch"), "items_per_s", panels="network"),
    )


def shipped_models() -> list[str]:
    """Names of all model folders with a card."""
    return sorted(card.parent.name for card in models_folder().glob("*/card.toml"))


def has_free_batch(card: Card) -> bool:
    return all(item.shape[0] == 0 for item in card.inputs)


def variants(free_batch: bool, quick: bool) -> Iterator[Variant]:
    """What is tried on this machine; only one thread is tried in batches."""
    threads = [1] if quick else [count for count in (1, 2, 4) if count <= usable_cores()]
    batches = (1,) if not free_batch else (1, 16) if quick else BATCHES
    for backend in installed_runtimes():
        for precision in precisions(backend):
            for count in threads:
                yield Variant(backend, count, precision, batches if count == 1 and precision == "f32" else (1,))


def installed_runtimes() -> Sequence[Backend]:
    return Machine().installed()


def precisions(backend: Backend) -> list[Precision]:
    """Those that the processor computes itself; OpenVINO takes the others too, and computes in f32."""
    if backend != "openvino":
        return ["f32"]
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    names: dict[str, Precision] = {"BF16": "bf16", "FP16": "f16"}
    return ["f32", *(precision for name, precision in names.items() if name in able)]


def measure_network(card: Card, file: Path, variant: Variant, seconds: float) -> list[Row]:
    """One row for each batch. Raises UserError when the runtime can't load the file."""
    network = load_network(file, variant.backend, variant.threads, variant.precision)
    rows: list[Row] = []
    for batch in variant.batches:
        durations = time_calls(network, random_inputs(card, batch), seconds)
        mean_s = sum(durations) / len(durations) / NS_PER_S
        rows.append(
            {
                "network": file.parent.name,
                "runtime": network.backend,
                "threads": variant.threads,
                "precision": variant.precision,
                "batch": batch,
                **percentiles_ms(durations),
                "items_per_s": round(batch / mean_s, 1),
            }
        )
    return rows


def random_inputs(card: Card, batch: int) -> list[np.ndarray]:
    """Arrays of the card's shapes and dtypes, the same at every run: pixels 0..254, other values 0..1."""
    generator = np.random.default_rng(0)
    arrays: list[np.ndarray] = []
    for item in card.inputs:
        shape = [batch if i == 0 and size == 0 else size or 1 for i, size in enumerate(item.shape)]
        is_picture = len(shape) == 4 or not item.dtype.startswith("float")
        values: Any = generator.integers(0, 255, shape) if is_picture else generator.random(shape)
        arrays.append(values.astype(item.dtype))
    return arrays


def time_calls(network: Network, inputs: list[np.ndarray], seconds: float) -> list[int]:
    """Nanoseconds of each call, for about so many seconds and at least five calls, after some that don't count."""
    for _ in range(_WARM_UP_CALLS):
        network(*inputs)
    durations: list[int] = []
    until = now_ns() + int(seconds * NS_PER_S)
    while len(durations) < 5 or (now_ns() < until and len(durations) < _MOST_CALLS):
        started = now_ns()
        network(*inputs)
        durations.append(now_ns() - started)
    return durations


def batch_gains(rows: list[Row]) -> list[str]:
    """How much more a batch of 16 gets done than single items, a sentence for each network and runtime."""
    notes = []
    for row in rows:
        if row["batch"] == 16:
            keys = ("network", "runtime", "threads", "precision")
            single = next(r for r in rows if r["batch"] == 1 and all(r[key] == row[key] for key in keys))
            gain = ratio(row["items_per_s"], single["items_per_s"])
            notes.append(f"{row['network']} on {row['runtime']}: batch 16 does {gain} times the items of batch 1.")
    return notes
