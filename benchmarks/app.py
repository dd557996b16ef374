"""`arnis-bench`: how fast this machine is, part by part, as JSON, a Markdown table and a chart."""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks import devices, films, hop, latency, networks, overload, program, stage_times, tune
from benchmarks.aims import compare_with_aims
from benchmarks.demo import load_truth
from benchmarks.figures import Part, Session
from benchmarks.machine import load, look_at_machine
from benchmarks.peers import compare
from benchmarks.report import make_folder, make_report, table, write_report
from engine.command import Parser, complain
from engine.errors import UserError
from engine.numbers import at_least

PROGRAM = "arnis-bench"
RESULTS = Path("benchmarks/results")

PARTS: dict[str, tuple[str, Callable[[Session], Part]]] = {
    "hop": ("a frame's way between two processes: our ring against ZeroMQ, pipe and queue", hop.measure),
    "overload": ("a source twice as fast as the pipeline: age, losses, memory", overload.measure),
    "networks": ("every shipped network: runtimes, threads, precisions, batches", networks.measure),
    "stages": ("every stage alone, on the demo clip", stage_times.measure),
    "program": ("the whole program: real time, fast, gate, recording, streams, against bare networks", program.measure),
}
"""The standard set, in this order."""

LATENCY = "latency"
APART = ("list", "devices", "tune", "peers", "films")
"""What is run by itself."""
_REPORTED = (*PARTS, LATENCY, "peers", "films")
ONLY_FOR = {
    "quick": (*PARTS, LATENCY, "peers", "tune"), "out_dir": _REPORTED, "long": ("overload",), "loss": ("tune",),
    "out": ("tune",), "frames": ("peers",), "task": ("peers",), "camera": (LATENCY,),
}  # fmt: skip
"""Options, and the parts that read each."""
DESCRIPTION = "glass to glass, with a camera pointed at the screen; not in the standard set"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. 0: measured; 2: a mistake that the user can mend; 130: interrupted."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else what is measured would go on, and its files stay
    try:
        return run(options)
    except UserError as error:
        complain(PROGRAM, error)
        return 2
    except KeyboardInterrupt:
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; the parser ends the program with 2 when it is wrong."""
    parser = Parser(
        prog=PROGRAM,
        description="Measure this machine: all parts of the standard set, or those that are named.",
        epilog="A quiet machine gives figures that mean something; the report says what the load was.",
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join([*PARTS, LATENCY])} (default: all but {LATENCY})")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="a short run, to see that everything works")
    length.add_argument("--long", action="store_true", help="overload for ten minutes instead of half of one")
    add("--list", action="store_true", help="say what the parts measure")
    add("--devices", action="store_true", help="try every device of each runtime with every shipped model")
    add("--tune", action="store_true", help="find the fastest settings here and write them to --out")
    add(
        "--loss",
        type=at_least(0),
        default=0,
        metavar="N",
        help="with --tune: so many of the demo's poses may be lost (0)",
    )
    add("--peers", action="store_true", help="other loops that do the same work, beside arnis-stream")
    frames = f"with --peers, of each ({compare.FRAMES})"
    add(
        "--frames",
        type=at_least(compare.LEAST_FRAMES, load_truth().frames),
        default=compare.FRAMES,
        metavar="N",
        help=frames,
    )
    add("--task", type=Path, metavar="FILE", help="with --peers, MediaPipe's model; newer packages ship none")
    add("--films", type=Path, metavar="DIR", help="what is named in films of sessions (of `arnis-train synth films`)")
    add("--out", type=Path, default=Path("arnis-tuned.toml"), metavar="FILE", help="with --tune (arnis-tuned.toml)")
    add("--out-dir", type=Path, default=RESULTS, metavar="DIR", help=f"where the report goes ({RESULTS})")
    add("--camera", type=at_least(0), default=0, metavar="N", help=f"the camera of {LATENCY} (0)")
    options = parser.parse(arguments)
    apart = [name for name in APART if getattr(options, name)]
    if len(apart) > 1 or (apart and options.parts):
        parser.error(f"{', '.join(f'--{name}' for name in APART)} are run by themselves; leave out the rest")
    active = apart or options.parts or list(PARTS)
    for name, parts in ONLY_FOR.items():
        if not set(parts) & set(active) and getattr(options, name) != parser.get_default(name):
            said = f"--{name.replace('_', '-')} does nothing for {', '.join(active)}"
            parser.error(f"{said}; it is for {', '.join(parts)}")
    return options


def run(options: argparse.Namespace) -> int:
    """Do what the options ask for. Raises UserError."""
    if options.list:
        everything = {**{name: text for name, (text, _) in PARTS.items()}, LATENCY: DESCRIPTION}
        sys.stdout.write("".join(f"{name:10} {text}\n" for name, text in everything.items()))
        return 0
    chosen = choose(options)
    if not (options.devices or options.tune):
        make_folder(options.out_dir)  # better now than after minutes
    machine = look_at_machine()
    with tempfile.TemporaryDirectory(prefix="arnis-bench-") as folder:
        session = Session(folder=Path(folder), say=say, quick=options.quick, long=options.long)
        parts, failure = measure_all(session, chosen)
    if not parts and failure is not None:
        raise failure
    if options.devices or options.tune:
        return 0
    measured_on = {name: device for part in parts for name, device in part.devices.items()}
    machine = msgspec.structs.replace(machine, load_after=load(), devices=measured_on)
    name = file_name(machine.slug, [part.name for part in parts if part.name in chosen], session, options.frames)
    files = write_report(make_report(machine, parts, options.quick), options.out_dir, name)
    sys.stdout.write(f"\nReport: {', '.join(map(str, files))}\n")
    if failure is not None:
        raise failure
    return 0


def measure_all(
    session: Session, chosen: Mapping[str, Callable[[Session], Part]]
) -> tuple[list[Part], UserError | None]:
    """Measure and print part by part, up to the first that fails or Ctrl-C: minutes of work are not thrown away."""
    parts: list[Part] = []
    for name, measure in chosen.items():
        try:
            part = measure(session)
        except UserError as error:
            return parts, UserError(f"{name}: {error}")
        except KeyboardInterrupt:
            if not parts:
                raise
            return parts, UserError(f"{name}: stopped; the report tells what was measured before")
        parts.append(part)
        print_part(part)
    if not session.quick and (aims := compare_with_aims(parts)):
        parts.append(aims)
        print_part(aims)
    return parts, None


def print_part(part: Part) -> None:
    """A part's table and notes, for the terminal."""
    sys.stdout.write(f"\n{part.title}\n\n{table(part.rows)}\n" + "".join(f"{note}\n" for note in part.notes))
    sys.stdout.flush()


def choose(options: argparse.Namespace) -> dict[str, Callable[[Session], Part]]:
    """What is to be measured, by name. Raises UserError for a part that there is not."""
    apart: dict[str, Callable[[Session], Part]] = {
        "devices": devices.measure,
        "tune": lambda session: tune.tune(session, options.out, options.loss),
        "peers": lambda session: compare.measure(session, options.frames, options.task),
        "films": lambda session: films.measure(session, options.films),
    }
    for name, measure in apart.items():
        if getattr(options, name):
            return {name: measure}
    known: dict[str, Callable[[Session], Part]] = {name: measure for name, (_, measure) in PARTS.items()}
    known[LATENCY] = lambda session: latency.measure(session, options.camera)
    for name in options.parts:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise UserError(f"there is no part {name!r}; {hint}")
    return {name: known[name] for name in options.parts or PARTS}


def file_name(slug: str, parts: Sequence[str], session: Session, frames: int = compare.FRAMES) -> str:
    """What the report's files are called: a run in which only `parts` were measured, or a quick one, never replaces a
    full one, nor half a minute of overload ten, nor peers over few frames those over many."""
    words = [slug, *([] if list(parts) == list(PARTS) else parts)]
    words += [f"{frames}-frames"] if frames != compare.FRAMES else []
    words += ["quick"] if session.quick else []
    words += ["long"] if session.long and "overload" in parts else []
    return "-".join(words)


def say(text: str) -> None:
    """Tell on the terminal what is being measured."""
    sys.stderr.write(f"{PROGRAM}: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
