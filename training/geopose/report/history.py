"""The curves of a training, from what its logger left in the run folder."""

from __future__ import annotations

from pathlib import Path

History = dict[str, list[float]]
"""Figure by name, one value an epoch."""


def read_history(run: Path) -> History:
    """What TensorBoard's files in `run`/board hold; empty without any. The networks of folds have boards of their own,
    whose curves are not one."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    by_step: dict[str, dict[int, float]] = {}
    # A resumed run has several files, and repeats the steps that were lost.
    for file in sorted((run / "board").glob("events.out.tfevents.*")):
        reader = EventAccumulator(str(file))
        reader.Reload()
        for name in reader.Tags()["scalars"]:
            if name != "epoch":
                by_step.setdefault(name, {}).update({event.step: event.value for event in reader.Scalars(name)})
    return {name: [value for _, value in sorted(steps.items())] for name, steps in by_step.items()}
