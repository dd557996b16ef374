"""The curves of a training, from what its logger left in the run folder."""

from __future__ import annotations

import csv
from pathlib import Path

History = dict[str, list[float]]
"""Figure by name, one value an epoch."""


def read_history(run: Path) -> History:
    """What TensorBoard's or the CSV logger's files in `run`/board hold; empty without any, or without the package to
    read them. The networks of folds have boards of their own, whose curves are not one."""
    table = run / "board" / "metrics.csv"
    if table.is_file():
        return _from_csv(table)
    events = sorted((run / "board").glob("events.out.tfevents.*"))
    return _from_events(events) if events else {}


def _from_csv(table: Path) -> History:
    """Lightning writes a row for each call, with the cells of other figures empty."""
    history: History = {}
    with table.open(newline="") as stream:
        for row in csv.DictReader(stream):
            for name, cell in row.items():
                if cell and name not in ("step", "epoch"):
                    history.setdefault(name, []).append(float(cell))
    return history


def _from_events(files: list[Path]) -> History:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError:
        return {}
    by_step: dict[str, dict[int, float]] = {}
    for file in files:  # a resumed run has several, and repeats the steps that were lost
        reader = EventAccumulator(str(file))
        reader.Reload()
        for name in reader.Tags()["scalars"]:
            if name != "epoch":
                by_step.setdefault(name, {}).update({event.step: event.value for event in reader.Scalars(name)})
    return {name: [value for _, value in sorted(steps.items())] for name, steps in by_step.items()}
