"""Finds the settings that make the program fastest on this machine, without a pose less unless it is allowed.

One setting after the other is tried on the demo clip, as fast as it goes. A value is taken when it names as many poses
(or up to `loss` fewer) and gives at least 3 % more frames a second; at the end the whole is run against the defaults
once more.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.demo import QUIET, named_holds
from benchmarks.figures import Part, Row, Session, Value
from benchmarks.networks import installed_runtimes, precisions
from benchmarks.running import run_program
from engine.config import WorkerSettings, join_workers, load_config
from engine.errors import UserError
from stages.app import default_config
from stages.capture import DEMO
from stages.outputs import keep_earlier
from stages.runtime import usable_cores

WORTHWHILE = 1.03
"""How many times the frames a value must give: less is noise."""
QUICK_FRAMES = 60


class Candidate(msgspec.Struct, frozen=True):
    """A set of settings, and how the stages share processes."""

    settings: Mapping[str, Value] = {}
    """By `section.key`, what differs from the defaults."""
    workers: tuple[WorkerSettings, ...] = ()
    """Empty: as configured."""

    def having(self, key: str, value: Value) -> Candidate:
        return msgspec.structs.replace(self, settings={**self.settings, key: value})

    def as_toml(self) -> str:
        """A file for `arnis-stream --config`."""
        sections: dict[str, list[str]] = {}
        for key, value in self.settings.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, []).append(f"{name} = {json.dumps(value)}")
        blocks = ["\n".join([f"[{section}]", *lines]) for section, lines in sections.items()]
        for worker in self.workers:
            lines = [f"name = {json.dumps(worker.name)}", f"stages = {json.dumps(worker.stages)}"]
            blocks.append("\n".join(["[[worker]]", *lines]))
        return "\n\n".join(blocks) + "\n"


class Score(msgspec.Struct, frozen=True):
    """What a candidate gave."""

    fps: float
    p95_ms: float
    named: int

    def beats(self, other: Score, needed: int) -> bool:
        """Whether it is worth a change, and names as many holds as are needed."""
        return self.named >= needed and self.fps >= WORTHWHILE * other.fps


def tune(session: Session, out: Path, loss: int = 0) -> Part:
    """Search, write the best to `out`, and tell what was tried; `loss` holds of the clip may go unnamed for it.

    A value that doesn't run here is told and passed over; Ctrl-C ends the search early, with the best until then. What
    an earlier search wrote to `out` is kept under another name.
    Raises UserError when `out` can't be written, or when the defaults don't run."""
    check_out(out)
    search = _Search(session)
    default = Candidate()
    first = search.score("as configured", default)
    best, stopped = search.best_from(default, first, first.named - loss)
    if stopped and best == default:
        raise KeyboardInterrupt  # nothing was found that would be worth replacing an older file
    if best != default:
        before, after = search.score("as configured, again", default), search.try_out("the best, again", best)
        if after is None or not after.beats(before, first.named - loss):
            best = default
    _write(best, out, loss, session.quick)
    note = f"Wrote {out.name}: " + (", ".join(changes_of(best)) or "nothing is worth changing here") + "."
    note += " The search was stopped before its end." if stopped else ""
    return Part(name="tune", title="Tuning on the demo clip, as fast as it goes", rows=search.rows, notes=[note])


def steps(quick: bool) -> list[tuple[str, Any]]:
    """What is tried, in this order: the coarse first."""
    threads = [count for count in (1, 2, 4) if count <= usable_cores()]
    grouping = [("workers", group) for group in groupings(load_config(default_config()).workers)]
    backends = installed_runtimes()
    if quick:
        return [grouping[0], ("engine.in_flight", 2)]
    return [
        *grouping,
        *(("detect.backend", backend) for backend in backends),
        *(("detect.threads", count) for count in threads),
        *(("detect.precision", precision) for precision in precisions("openvino")[1:] if "openvino" in backends),
        *(("classify.backend", backend) for backend in backends),
        *(("classify.threads", count) for count in threads if count > 1),
        *(("engine.in_flight", count) for count in (1, 2, 3, 4)),
    ]


def groupings(workers: list[WorkerSettings]) -> list[tuple[WorkerSettings, ...]]:
    """The same stages in fewer processes: any one pair of neighbours joined, and all in one."""
    pairs = [(*workers[:i], join_workers(workers[i : i + 2]), *workers[i + 2 :]) for i in range(len(workers) - 1)]
    if len(workers) < 3:
        return pairs
    return [*pairs, (join_workers(workers[:2]), join_workers(workers[2:])), (join_workers(workers),)]


def with_change(candidate: Candidate, changed: str, value: Any) -> Candidate:
    """The candidate with one setting, or the workers, replaced."""
    if changed == "workers":
        return msgspec.structs.replace(candidate, workers=value)
    return candidate.having(changed, value)


def changes_of(candidate: Candidate) -> list[str]:
    """What differs from the defaults, in words."""
    changes = [f"{key} = {json.dumps(value)}" for key, value in candidate.settings.items()]
    return changes + ([f"workers {as_text(candidate.workers)}"] if candidate.workers else [])


def as_text(value: Any) -> str:
    """A value for people: workers by their names."""
    return " / ".join(worker.name for worker in value) if isinstance(value, tuple) else str(value)


def check_out(out: Path) -> None:
    """Raises UserError unless the file can be written: better now than after minutes."""
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out {out}: give the name of a file in a folder that exists")
    try:
        if out.exists():
            out.open("ab").close()
        else:
            with tempfile.TemporaryFile(dir=out.parent):
                pass
    except OSError as error:
        raise _unwritable(out, error) from error


class _Search:
    """Runs candidates and keeps the account."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.rows: list[Row] = []

    def best_from(self, default: Candidate, score: Score, needed: int) -> tuple[Candidate, bool]:
        """Try one change after the other, beginning with the default and its score; also whether Ctrl-C stopped it."""
        best, best_score = default, score
        try:
            for changed, value in steps(self._session.quick):
                candidate = with_change(best, changed, value)
                if candidate == best:
                    continue
                found = self.try_out(f"{changed} = {as_text(value)}", candidate)
                if found is not None and found.beats(best_score, needed):
                    best, best_score = candidate, found
                    self.rows[-1]["taken"] = "yes"
        except KeyboardInterrupt:
            return best, True
        return best, False

    def try_out(self, name: str, candidate: Candidate) -> Score | None:
        """As `score`; None, told and noted, where the candidate does not run here."""
        try:
            return self.score(name, candidate)
        except UserError as error:
            self._session.say(f"{name} does not run here: {error}")
            self.rows.append({"tried": f"{name} (does not run)"})
            return None

    def score(self, name: str, candidate: Candidate) -> Score:
        self._session.say(f"trying {name}")
        config = self._session.folder / "candidate.toml"
        config.write_text(candidate.as_toml())
        limit = ["--max-frames", str(QUICK_FRAMES)] if self._session.quick else []
        arguments = ["--config", str(config), "--source", DEMO, "--fast", *QUIET, *limit]
        run = run_program(arguments, self._session.folder)
        score = Score(run.stats["fps_out"], run.stats["latency_ms"]["p95"], named_holds(run.results))
        self.rows.append({"tried": name, "fps": score.fps, "p95_ms": score.p95_ms, "named": score.named})
        return score


def _write(best: Candidate, out: Path, loss: int, quick: bool) -> None:
    lost = f"at most {loss} of the demo clip's poses are" if loss else "no pose of the demo clip is"
    judged = "a quick run, which shows that it works and no more" if quick else f"{lost} lost by it"
    head = (
        f"# Found by arnis-bench --tune with {usable_cores()} cores, for files as fast as they go; {judged}.\n"
        + (
            "# A live stream keeps these processes too; without the [[worker]] blocks it has its own.\n"
            * bool(best.workers)
        )
        + "\n"
    )
    keep_earlier(out, "--out")  # minutes of work
    try:
        out.write_text(head + best.as_toml(), encoding="utf-8")
    except OSError as error:
        raise _unwritable(out, error) from error
    load_config(default_config(), out)  # the program must accept it


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"--out: cannot write {out}: {error.strerror}; choose another place")
