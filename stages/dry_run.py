"""Checks everything that a run would need, without running: what a user wants to know before the training begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.capture import make_source
from engine.chain import Chain
from engine.config import Config
from engine.errors import UserError
from engine.frames import OwnedFrames
from engine.layout import sections_of, stream_names
from engine.stage import Context
from stages.outputs import check_apart, check_writable, is_file_to_be
from stages.overlay import OverlaySettings
from stages.publish import ResultsSettings
from stages.publisher import PublishSettings, frames_url, results_url
from stages.record import RecordSettings, check_recording, raw_path, recording_path
from stages.sources import redact_url
from stages.view import has_display


def check_outputs(
    config: Config, sources: Sequence[str], stats_file: Path | None, settings: Path | None
) -> list[str]:
    """Where output goes, one line each; raises UserError when it cannot go there, or is the file of `settings`. Writes
    nothing."""
    found: list[str] = []
    files: list[tuple[str, Path]] = []

    def writes(what: str, setting: str, name: str) -> None:
        if name:
            check_writable(Path(name), setting)
            files.append((setting, Path(name)))
            found.append(f"{what}: {name}")

    results = config.section(ResultsSettings)
    if results:
        writes("report", "results.report", results.report)
        writes("results", "results.path", "" if results.path == "-" else results.path)
    publish, overlay = config.section(PublishSettings), config.section(OverlaySettings)
    if publish and results_url(publish):
        found.append(f"publishing: {results_url(publish)}, pictures {frames_url(publish) or 'off'}")
    if overlay and overlay.view == "window" and not has_display():
        raise UserError("overlay.view = window: there is no display here; use --view none")
    record, streams = config.section(RecordSettings), stream_names(sources)
    if record and record.path:
        for recording in (recording_path(Path(record.path), stream, streams) for stream in streams):
            check_recording(recording)
            files += [("record.path", file) for file in {recording, raw_path(recording)}]
        found.append(f"recording: {record.path}")
    writes("profile", "engine.profile", config.engine.profile)
    if config.engine.profile and not is_file_to_be(Path(config.engine.profile)):
        raise UserError(
            f"engine.profile: {config.engine.profile} is no file, and a trace is one at any moment of the run; "
            "give the name of a file"
        )
    writes("statistics", "--stats", str(stats_file or ""))
    check_apart(files, sources, settings)
    if results and results.report:
        _check_report(results)
    return found


def _check_report(results: ResultsSettings) -> None:
    if results.path == "-" or not is_file_to_be(Path(results.path)):
        raise UserError(
            f"results.report is made of a file of results, and {results.path} is none; give --results a file, or leave "
            "it out"
        )
    if Path(results.report).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"results.report: {results.report} must end in .html")


def dry_run(config: Config, sources: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """Open every source and every stage once; returns what was found, a line each, with those of `check_outputs` among
    them. Raises UserError."""
    sections = sections_of(config)
    lines = []
    for name, text in zip(stream_names(sources), sources, strict=True):
        source = make_source(config.engine.source, sections, text)
        try:
            info = source.open()
        finally:
            source.close()
        fps = f"{info.fps:.2f} FPS" if info.fps else "unknown rate"
        shown = redact_url(text)
        lines.append(
            f"source {name}: {shown}: {info.width}x{info.height}, {fps}, {'live' if info.live else 'recorded'}"
        )
    lines += outputs
    for worker in config.workers:
        lines += _open_worker(worker.name, worker.stages, _harmless(config), stream_names(sources))
    return [*lines, "all is well: nothing was run"]


def _open_worker(name: str, stages: Sequence[str], sections: dict[str, Any], streams: list[str]) -> list[str]:
    chain = Chain.load(stages, sections, errors_in_a_row=1)
    context = Context(
        streams=streams, frames=OwnedFrames(), sections=sections, request_stop=lambda: None, health=dict
    )
    try:
        chain.open(context)
        described = chain.describe()
    finally:
        chain.close()
    said = [f"  {stage}: {key} {value}" for stage, facts in described.items() for key, value in facts.items()]
    return [f"worker {name}: {len(stages)} stages open", *said]


def _harmless(config: Config) -> dict[str, Any]:
    """Settings with which opening the stages writes no file and shows no window: `check_outputs` looks at these."""
    quiet: dict[type[msgspec.Struct], dict[str, Any]] = {
        ResultsSettings: {"path": ""},
        RecordSettings: {"path": ""},
        OverlaySettings: {"view": "none", "live_line": "none"},
    }
    return {
        name: msgspec.to_builtins(msgspec.structs.replace(section, **quiet.get(type(section), {})))
        for name, section in config.sections.items()
    }
