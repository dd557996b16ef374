"""Which of the devices of `stages.devices` are here, and which really run one inference of each shipped model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import Part, Row, Session
from benchmarks.networks import random_inputs, shipped_models
from stages.cards import load_card
from stages.devices import Candidate, Machine, reason_of, survey
from stages.runtime import cache_folder, default_threads
from stages.sessions import How, Place


def measure(session: Session) -> Part:
    """Every device that there could be, with every model."""
    machine = Machine()
    return try_devices(survey(machine, "auto", "auto", "f32"), machine, session.say)


def try_devices(candidates: Sequence[Candidate], machine: Machine, say: Callable[[str], None]) -> Part:
    """One inference of each shipped model on each device; a row for each, with the reason where it fails."""
    rows: list[Row] = []
    for candidate in candidates:
        place = candidate.place
        row: Row = {"setting": place.device, "runtime": place.runtime, "device": place.title}
        if candidate.missing:
            rows.append({**row, "model": "", "runs": "no", "reason": candidate.why(), "mend": candidate.mend or None})
            continue
        for model in shipped_models():
            say(f"{model} on {place}")
            reason = why_not(place, model, machine)
            rows.append({**row, "model": model, "runs": "no" if reason else "yes", "reason": reason})
    return Part(name="devices", title="Devices, best first: one real inference decides", rows=rows)


def why_not(place: Place, model: str, machine: Machine) -> str | None:
    """What went wrong, in a line, or None when an inference worked."""
    card, file = load_card(model)
    inputs = random_inputs(card, 1)
    how = How(default_threads(), "f32", cache_folder(), tuple(array.shape for array in inputs))
    try:
        machine.load(place, file.read_bytes(), how)(*inputs)
    except Exception as error:  # the runtimes' own errors share no base class but this
        return _without_paths(reason_of(error))
    return None


def _without_paths(text: str) -> str:
    """The text without where things lie on this machine: a report may be published."""
    words = (Path(word).name if word.count("/") > 1 else word for word in text.split(" "))
    return " ".join(words)
