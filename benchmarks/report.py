"""The report of a run: one JSON file with everything, a Markdown table and a chart beside it."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.chart import draw_charts
from benchmarks.figures import Part, Row, as_cell
from benchmarks.machine import Machine
from engine.errors import UserError

SCHEMA = 1


class Report(msgspec.Struct, kw_only=True):
    """What a result file holds."""

    schema: int = SCHEMA
    measured: str
    """Date of the run."""
    quick: bool
    """A short run: shows that it works, not how fast."""
    machine: Machine
    parts: list[Part]


def make_report(machine: Machine, parts: Sequence[Part], quick: bool) -> Report:
    """The report of a run that ends now."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Report(measured=today, quick=quick, machine=machine, parts=list(parts))


def make_folder(folder: Path) -> None:
    """Make the folder for reports and see that it can be written; raises UserError when it can't."""
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--out-dir: cannot write in {folder}: {error.strerror}; choose another place") from error


def write_report(report: Report, folder: Path, name: str) -> list[Path]:
    """Write `name`.json, .md and .svg; returns the files. Raises UserError when the folder can't be written."""
    texts = {
        ".json": msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n",
        ".md": as_markdown(report, f"{name}.svg"),
        ".svg": draw_charts(report.parts),
    }
    files = []
    with _told(folder):
        for ending, text in texts.items():
            files.append(folder / f"{name}{ending}")
            files[-1].write_text(text, encoding="utf-8")
    return files


def as_markdown(report: Report, chart: str = "") -> str:
    """The whole report for people."""
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines = [f"# {machine.cpu}, {machine.cores} cores", ""]
    if report.quick:
        lines += ["A quick run: it shows that everything works, not how fast it is.", ""]
    memory = f"{machine.memory_gb} GB" if machine.memory_gb else "memory unknown"
    computes = f"computes {', '.join(machine.precisions)}"
    lines += [f"{report.measured}; {computes}; {memory}; {machine.system}; {versions}.", "", load_sentence(machine), ""]
    lines += [f"- {name}: {device}" for name, device in machine.devices.items()]
    for part in report.parts:
        lines += ["", f"## {part.title}", "", table(part.rows)]
        lines += ["", *(f"- {note}" for note in part.notes)] if part.notes else []
    if chart:
        lines += ["", f"![Chart]({chart})"]
    return "\n".join(lines) + "\n"


def load_sentence(machine: Machine) -> str:
    """Whether the machine was quiet."""
    if machine.load_before is None or machine.load_after is None:
        return "This system does not tell its load."
    busy = machine.load_before[0] > 0.25 * machine.cores
    sentence = f"Load of the last minute: {machine.load_before[0]:.1f} before, {machine.load_after[0]:.1f} after."
    return sentence + (" Other programs were at work: don't trust the absolute figures." if busy else "")


def table(rows: Sequence[Row]) -> str:
    """A Markdown table with the columns of all rows, in the order of their first appearance, but for empty ones."""
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if value is not None))
    heads = [column.replace("_", " ") for column in columns]
    numbers = [any(isinstance(row.get(column), int | float) for row in rows) for column in columns]
    lines = [heads, ["---:" if right else "---" for right in numbers]]
    lines += [[as_cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
