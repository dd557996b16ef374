"""`arnis-stream`: recognise poses in what cameras, files and network streams show.

Flags are shorthands for settings of config.toml; `main` reads them, decides what `auto` means for these sources, runs
the pipeline and prints the account.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

import av
import cv2
import msgspec

from engine.client import DEFAULT_URL
from engine.command import Parser, complain
from engine.config import Config, WorkerSettings, import_name, load_config
from engine.errors import UserError
from engine.health import RunSummary
from engine.layout import stream_names
from engine.numbers import positive
from engine.run import run_pipeline
from engine.signals import stop_signals
from stages.capture import DEMO, is_paced
from stages.classify import Classify
from stages.detect import Detect, DetectSettings
from stages.dry_run import check_outputs, dry_run
from stages.gate import GateSettings
from stages.outputs import check_name, keep_earlier, owned
from stages.overlay import Overlay, OverlaySettings
from stages.packets import ArnisPacket
from stages.publish import Results, ResultsSettings, program_version
from stages.record import BROKE_OFF, Record, RecordSettings, files_of, finish_recordings, raw_path
from stages.report import write_report
from stages.runtime import default_threads
from stages.sources import CaptureSettings, redact_url
from stages.sources.camera import camera_device
from stages.sources.video import VIDEO_FILES
from stages.view import has_display

PROGRAM = "arnis-stream"
LIVE_WORKERS = 2
"""Processes for the stages of one live stream: what finds and judges, and what shows."""


class SourceKind(Enum):
    """What a `--source` names."""

    CAMERA = "camera"
    NETWORK = "network"
    DEMO = "demo"
    FILE = "file"


def kind_of(source: str) -> SourceKind:
    """What the text of a `--source` means: by its words alone, for nothing is open yet. So an address that ends like a
    video file counts as one, though the stream behind it may turn out not to end."""
    if source == DEMO:
        return SourceKind.DEMO
    if camera_device(source) is not None:
        return SourceKind.CAMERA
    if "://" not in source:
        return SourceKind.FILE
    address = re.split(r"[?#]", source.lower())[0]
    is_file = address.startswith("file:") or (
        address.startswith(("http:", "https:", "ftp:")) and address.endswith(VIDEO_FILES)
    )
    return SourceKind.FILE if is_file else SourceKind.NETWORK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. 0: ended in order; 1: the engine gave up; 2: a mistake that the user can mend."""
    options = parse(arguments)
    logging.basicConfig(level=log_level(options), format=f"%(levelname)s {PROGRAM}: %(message)s")
    try:
        return run(options)
    except UserError as error:
        complain(PROGRAM, error)
        return 2
    except Exception as error:
        if options.debug:
            raise
        given = sys.argv[1:] if arguments is None else arguments
        if isinstance(error, OSError) and error.filename and any(str(error.filename) in text for text in given):
            complain(PROGRAM, f"{error.filename}: {error.strerror}; choose another, or mend that")
            return 2
        # A file of its own: one of a fixed name may be somebody else's.
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{PROGRAM}-", suffix=".log", delete=False, encoding="utf-8"
        ) as log_file:
            log_file.write(traceback.format_exc())
        complain(PROGRAM, f"unexpected {type(error).__name__}: {error}; details are in {log_file.name}")
        return 1


def run(options: argparse.Namespace) -> int:
    """Do what the options ask for. Raises UserError."""
    config = load_config(default_config(), options.config, options.set, flags_of(options), ArnisPacket)
    if options.print_config:
        _print(config_text(config), sys.stdout)
        return 0
    if not options.source:
        raise UserError("no source given: add --source 0 (a camera), --source clip.mp4 (a file) or --source demo")
    if "" in options.source:
        raise UserError('--source "" names nothing: add --source 0 (a camera), --source clip.mp4 or --source demo')
    config = decide(config, options.source)
    if options.workers and options.workers > len(config.workers):
        raise UserError(f"--workers {options.workers} is too many: the stages can share at most {len(config.workers)}")
    workers = options.workers or suitable_workers(config, options.source)
    config = with_threads(config, workers)
    check_patience(config, options.source)
    check_need_of_stick(config)
    check_closer(config)
    check_stages(config.with_workers(workers))
    outputs = check_outputs(config, options.source, options.stats, options.config)
    if options.dry_run:
        _print("\n".join([*dry_run(config.with_workers(workers), options.source, outputs), ""]), sys.stdout)
        return 0
    if sys.stderr.isatty():  # the first start takes seconds: both runtimes are timed
        sys.stderr.write(f"{PROGRAM}: starting; Ctrl-C ends it\n")
    # Held to the end: a signal must not cost the account of a run that is over.
    with owned(*output_files(config, options.source)), stop_signals() as stop:
        summary = run_pipeline(
            config,
            options.source,
            workers=workers,
            duration_s=options.duration,
            max_frames=options.max_frames,
            log_level=log_level(options),
        )
        heard = stop.count
        return conclude(config, summary, options.source, options.stats, lambda: stop.count == heard)


def log_level(options: argparse.Namespace) -> str:
    """With --debug also the traceback of a stage that fails in its worker."""
    return "DEBUG" if options.debug else "INFO" if options.verbose else "WARNING"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; the parser ends the program with 2 when it is wrong."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} --source S [--source S2 ...] [options]",
        description="Names Arnis poses in live or recorded video and says what to correct.",
        epilog="Every setting is listed with its meaning by --print-config and in config.toml.",
    )
    add = parser.add_argument
    add("--source", action="append", default=[], metavar="S", help=f"camera number, file, folder, address or {DEMO}")
    add("--config", type=Path, metavar="FILE", help="settings that differ from the defaults")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="one setting")
    add("--view", choices=["auto", "window", "none"], help="where to show the picture")
    add("--record", metavar="FILE", help="record the shown picture (.mkv, .mp4)")
    add("--results", metavar="FILE", help='one line of JSON for each frame ("-": standard output)')
    add("--report", metavar="FILE", help="a page that tells the session: holds, times, what to correct (.html)")
    add("--publish", metavar="URL", help=f'publish results on a socket ("off": never; live: {DEFAULT_URL})')
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--realtime", action="store_true", help="play files at their own speed, as a camera would")
    pace.add_argument("--fast", action="store_true", help="read files as fast as they can be processed")
    add("--duration", type=positive(float), metavar="S", help="stop after S seconds")
    add("--max-frames", type=positive(int), metavar="N", help="stop after N frames of each source")
    processes = f"processes for the stages (1: all in this one; otherwise {LIVE_WORKERS} for one live source, else all)"
    add("--workers", type=positive(int), metavar="N", help=processes)
    add("--stats", type=Path, metavar="FILE", help="write rates, latencies and losses as JSON")
    add("--profile", metavar="FILE", help="write a trace of stages and frames for ui.perfetto.dev")
    add("--print-config", action="store_true", help="print all settings and where they come from")
    add("--dry-run", action="store_true", help="check settings, models, sources and outputs, then stop")
    add("--verbose", action="store_true", help="say more about what goes on")
    add("--debug", action="store_true", help="say all, and where in the code a failure came from")
    add("--version", action="version", version=f"{PROGRAM} {program_version()}")
    return parser.parse(arguments)


def flags_of(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that the flags stand for."""
    given = {
        "overlay.view": options.view,
        "record.path": options.record,
        "results.path": options.results,
        "results.report": options.report,
        "publish.url": options.publish,
        "engine.profile": options.profile,
        "capture.realtime": True if options.realtime else False if options.fast else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def default_config() -> Path:
    """config.toml beside the packages in a checkout, inside of them when installed."""
    installed = Path(str(files("stages"))) / "config.toml"
    return installed if installed.is_file() else installed.parents[1] / "config.toml"


def decide(config: Config, sources: Sequence[str]) -> Config:
    """The configuration with `auto` replaced by what it means for these sources."""
    kinds = {kind_of(source) for source in sources}
    changes: dict[str, dict[str, Any]] = {}

    def replace(section: str, key: str, value: str) -> None:
        if section in config.sections and getattr(config.sections[section], key) == "auto":
            changes.setdefault(section, {})[key] = value

    watched = bool(kinds & {SourceKind.CAMERA, SourceKind.DEMO})
    live = bool(kinds & {SourceKind.CAMERA, SourceKind.NETWORK})
    replace("overlay", "view", "window" if watched and has_display() else "none")
    replace("overlay", "mirror", "on" if kinds == {SourceKind.CAMERA} else "off")
    replace("publish", "url", DEFAULT_URL if live or SourceKind.DEMO in kinds else "off")
    results, overlay = config.section(ResultsSettings), config.section(OverlaySettings)
    if results and results.path == "-" and overlay and overlay.live_line == "stdout":
        changes.setdefault("overlay", {})["live_line"] = "stderr"
    record = config.section(RecordSettings)
    for setting, path in (("results.report", results and results.report), ("record.path", record and record.path)):
        if path:
            check_name(Path(path), setting)  # others are named after it
    if results and results.report and not results.path:
        changes.setdefault("results", {})["path"] = str(Path(results.report).with_suffix(".jsonl"))
    sections = {
        name: msgspec.structs.replace(section, **changes.get(name, {})) for name, section in config.sections.items()
    }
    return msgspec.structs.replace(config, sections=sections)


def keeps_time(config: Config, source: str) -> bool:
    """Whether frames come at a pace of their own: live, or from a file that is played as it was filmed."""
    settings = config.section(CaptureSettings) or CaptureSettings()
    return is_paced(settings, source) or kind_of(source) in (SourceKind.CAMERA, SourceKind.NETWORK)


def check_patience(config: Config, sources: Sequence[str]) -> None:
    """Raise UserError when a capture process would be taken for dead before it says that its source is lost."""
    capture, silent_s = config.section(CaptureSettings), config.engine.silent_s
    waits = any("://" in source or kind_of(source) is SourceKind.CAMERA for source in sources)
    if waits and capture and capture.timeout_s >= silent_s:
        raise UserError(
            f"capture.timeout_s = {capture.timeout_s:g} is too long for engine.silent_s = {silent_s:g}: the capture "
            "process would be started again before its source counts as lost; raise engine.silent_s above it"
        )


def check_need_of_stick(config: Config) -> None:
    """Raise UserError where nobody would ever be named, as a stick is asked for and none is looked for."""
    detect, gate = config.section(DetectSettings), config.section(GateSettings)
    if detect and gate and gate.need_stick and not (detect.stick or detect.fused):
        raise UserError(
            "detect.stick is empty, so nobody would be named, as they must hold one; set gate.need_stick = false too"
        )


def check_closer(config: Config) -> None:
    """Raise UserError where somebody names a closer look that would never be taken."""
    detect, gate = config.section(DetectSettings), config.section(GateSettings)
    if not detect or detect.closer in ("auto", ""):
        return
    if why := "detect.fused" if detect.fused else "gate.motion = false" if gate and not gate.motion else "":
        raise UserError(f"detect.closer = {detect.closer!r} would never look, because of {why}; leave one of them out")


def check_stages(config: Config) -> None:
    """Raise UserError for an output that is asked for and that no worker makes."""
    there = {name for worker in config.workers for name in sections_read(worker)}
    needed = (("results", "report", Results), ("results", "path", Results), ("record", "path", Record))
    for section, key, stage in needed:
        setting = f"{section}.{key}"
        if getattr(config.sections.get(section), key, "") and stage.name not in there:
            raise UserError(f'{setting} is set, and no [[worker]] has the stage "{stage.__module__}:{stage.__name__}"; '
                            "add it to the last one, or leave the setting out")  # fmt: skip
    record, pair = config.section(RecordSettings), [Overlay.name, Record.name]
    drawn = any([name for name in sections_read(worker) if name in pair] == pair for worker in config.workers)
    if record and record.path and record.picture == "overlay" and not drawn:
        raise UserError(
            'record.picture is "overlay", and no [[worker]] has the stage "stages.overlay:Overlay" before '
            '"stages.record:Record"; add it there, or set record.picture = "source"'
        )


def output_files(config: Config, sources: Sequence[str]) -> tuple[list[tuple[str, Path]], list[tuple[str, Path]]]:
    """Files into which the workers write, and those that are made of them, with their settings."""
    written, later = [], []
    results, record = config.section(ResultsSettings), config.section(RecordSettings)
    if results and results.path not in ("", "-"):
        written.append(("results.path", Path(results.path)))
    if record and record.path:
        recorded, others = files_of(Path(record.path), stream_names(sources))
        written += [("record.path", file) for file in recorded]
        later += [("record.path", file) for file in others]
    if config.engine.profile:
        written.append(("engine.profile", Path(config.engine.profile)))
    return written, later


def suitable_workers(config: Config, sources: Sequence[str]) -> int | None:
    """How many processes the stages should share for these sources; None: as configured.

    Alone and live, a stream is answered soonest by one process for all but what is shown: a core that it has woken
    goes on. Files and several streams gain more frames from overlapping. Workers of the user's own are left alone.
    """
    alone = len(sources) == 1 and keeps_time(config, sources[0])
    return LIVE_WORKERS if alone and config.workers == load_config(default_config()).workers else None


def sections_read(worker: WorkerSettings) -> list[str]:
    """Sections of the configuration that a worker's stages read, in their order, by which stages are known."""
    return [import_name(stage, f"[[worker]] {worker.name}").name for stage in worker.stages]


def with_threads(config: Config, workers: int | None) -> Config:
    """The configuration with the threads of detection that suit so many processes, unless they are set: networks in
    several of them overlap."""
    detect = config.section(DetectSettings)
    networks = {Detect.name, Classify.name}
    overlapping = sum(not networks.isdisjoint(sections_read(each)) for each in config.with_workers(workers).workers) > 1
    if not detect or detect.threads or not overlapping:
        return config
    chosen = msgspec.structs.replace(detect, threads=default_threads(overlapping=True))
    return msgspec.structs.replace(config, sections={**config.sections, "detect": chosen})


def config_text(config: Config) -> str:
    """One line for each setting: name, value, origin, meaning."""
    meanings = setting_meanings(default_config().read_text(encoding="utf-8"))
    lines = [(f"{s.section}.{s.key}", json.dumps(s.value), s.origin) for s in config.describe()]
    width = max(len(name) for name, _, _ in lines)
    return "".join(
        f"{name:{width}} = {value}   # {origin}{f': {meanings[name]}' if name in meanings else ''}\n"
        for name, value, origin in lines
    )


def setting_meanings(text: str) -> dict[str, str]:
    """What the comments behind the values of a configuration say, by `section.key`."""
    found, section = {}, ""
    for line in text.splitlines():
        if heading := re.match(r"\[(\w+)\]", line):
            section = heading[1]
        elif setting := re.match(r"(\w+)\s*=.*?\s#\s*(.+)", line):
            found[f"{section}.{setting[1]}"] = setting[2]
    return found


def conclude(
    config: Config, summary: RunSummary, sources: Sequence[str], stats_file: Path | None, goes_on: Callable[[], bool]
) -> int:
    """Finish recordings while it `goes_on`, write report and statistics, print the account; returns the exit code."""
    record, results, left = config.section(RecordSettings), config.section(ResultsSettings), dict[str, str]()
    recorded = summary.stats["stages"].get("record", {})
    if record and record.path:
        restarts = max(summary.stats["restarts"].values(), default=0)
        left = finish_recordings(record, stream_names(sources), restarts, goes_on)
        for name in list(recorded):
            if (raw := str(raw_path(Path(name)))) in left:
                recorded[raw] = recorded.pop(name)
    mistakes = list(left.values())
    if stats_file is not None:
        mistakes += statistics_mistakes(stats_file, summary)
    report = ""
    # A page of nothing would only put an earlier one aside.
    if results and results.report and summary.stats["results_out"]:
        failed = report_mistakes(config, results, sources)
        mistakes += failed
        report = "" if failed else f"report: {results.report}\n"
    _print(summary_text(summary.stats) + report, sys.stderr if results and results.path == "-" else sys.stdout)
    for mistake in filter(None, (summary.error, *mistakes)):
        complain(PROGRAM, mistake)
    return summary.exit_code or int(bool(mistakes) or any(BROKE_OFF in said for said in recorded.values()))


def statistics_mistakes(file: Path, summary: RunSummary) -> list[str]:
    """Write the statistics, with the versions of what the engine does not know; what kept them from being written."""
    versions = {PROGRAM: program_version(), "opencv": cv2.__version__, "pyav": av.__version__}
    stats = summary.stats | {"versions": versions | summary.stats["versions"]}
    try:
        keep_earlier(file, "--stats")
        file.write_bytes(msgspec.json.format(msgspec.json.encode(stats), indent=2) + b"\n")
    except OSError as error:
        return [f"--stats: cannot write {file}: {error.strerror}"]
    except UserError as error:
        return [str(error)]
    return []


def report_mistakes(config: Config, results: ResultsSettings, sources: Sequence[str]) -> list[str]:
    """Write the page of the session; what kept it from being written."""
    named = [redact_url(source) for source in sources]
    try:
        keep_earlier(Path(results.report), "results.report")
        write_report(Path(results.path), Path(results.report), named, config.sections)
    except UserError as error:
        return [str(error)]
    except OSError as error:
        return [f"results.report: cannot write {results.report}: {error.strerror}"]
    return []


def summary_text(stats: dict[str, Any]) -> str:
    """What a person wants to know of a run, in a few lines."""
    line = f"{stats['frames_in']} frames, {stats['results_out']} results in {stats['duration_s']:.1f} s"
    lines = [f"{line} ({stats['fps_out']:.1f} FPS)"]
    if stats.get("latency_ms"):
        lines[0] += f"; latency p50 {stats['latency_ms']['p50']:.0f} ms, p95 {stats['latency_ms']['p95']:.0f} ms"
    for title, counts in (("dropped", stats["dropped"]), ("restarts", stats["restarts"])):
        said = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
        if said:
            lines.append(f"{title}: {said}")
    for title, section in (("poses", "results"), ("recorded", "record")):
        said = ", ".join(f"{name.replace('_', ' ') if title == 'poses' else name} {value}".rstrip()
                         for name, value in stats["stages"].get(section, {}).items())  # fmt: skip
        if said:
            lines.append(f"{title}: {said}")
    return "\n".join(lines) + "\n"


def _print(text: str, out: TextIO) -> None:
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:
        sys.stderr.close()  # The reader has gone; Python would complain about it once more at exit.
    except OSError as error:
        raise UserError(f"cannot write to the standard output: {error.strerror}; the files are whole") from error
