"""`arnis-listen`: print what a running program publishes."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from engine.client import DEFAULT_URL, Message, subscribe
from engine.command import Parser, complain
from engine.errors import UserError
from engine.numbers import positive

_PROGRAM = "arnis-listen"
_MOST_FIELDS = 20
_DEEPEST = 2
_PATIENCE_S = 3.0
"""Health comes once a second: so long a silence means something."""
_HINT = "nothing from {} yet; does a program publish there, these topics, and does it want keys?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. 0: ended by the user or after `--count`; 1: nothing came; 2: a mistake that the user can mend."""
    options = _parse(arguments)
    hint = threading.Timer(_PATIENCE_S, complain, [_PROGRAM, _HINT.format(options.url)])
    hint.daemon = True
    try:
        messages = subscribe(
            options.url,
            options.topic or ["result", "feedback", "health", "hello"],
            timeout_s=options.timeout,
            server_key=options.server_key,
            client_key=options.client_key,
        )
        hint.start()
        with closing(messages):
            for number, message in enumerate(messages, 1):
                hint.cancel()
                sys.stdout.write((as_json(message) if options.json else as_line(message)) + "\n")
                sys.stdout.flush()
                if number == options.count:
                    break
    except UserError as error:
        complain(_PROGRAM, error)
        return 2
    except TimeoutError as error:
        complain(_PROGRAM, error)
        return 1
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; Python would complain about it once more at exit
    except OSError as error:
        complain(_PROGRAM, f"cannot write to the standard output: {error.strerror}; make room, or choose another place")
        return 2
    finally:
        hint.cancel()
    return 0


def as_json(message: Message) -> str:
    """One line: topic, what was missed, and the payload unchanged."""
    line = {"topic": message.topic, "missed": message.missed, "payload": message.payload}
    return msgspec.json.encode(line).decode()


def as_line(message: Message) -> str:
    """One line for people: the topic and the payload's short values, `pose.label=...`."""
    if not message.payload:
        return f"{message.topic}  {len(message.data)} bytes"
    fields = [f"{name}={_short(value)}" for name, value in _flat(message.payload, 1)]
    lost = [f"({message.missed} missed)"] if message.missed else []
    return "  ".join([message.topic, *lost, *fields[:_MOST_FIELDS]])


def _flat(values: dict[str, Any], depth: int, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Single values by dotted name (`cues.0.sentence`), the outer ones first; plain lists, deep tables are left out."""
    for name, value in values.items():
        if isinstance(value, str | int | float) and name != "schema":
            yield prefix + name, value
    if depth == _DEEPEST:
        return
    for name, value in values.items():
        tables = {f"{name}.{i}": item for i, item in enumerate(value)} if isinstance(value, list) else {name: value}
        for dotted, table in tables.items():
            if isinstance(table, dict):
                yield from _flat(table, depth + 1, f"{prefix}{dotted}.")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog=_PROGRAM, description="Print what a running program publishes.")
    add = parser.add_argument
    add("url", nargs="?", default=DEFAULT_URL, help=f"address of the program (default {DEFAULT_URL})")
    add("--topic", action="append", metavar="T", help="only topics that begin so: result, result.0, feedback, health")
    add("--json", action="store_true", help="the whole messages, one JSON object a line")
    add("--count", type=positive(int), metavar="N", help="stop after N messages")
    add("--timeout", type=positive(float), metavar="S", help="stop when nothing came for S seconds")
    add("--server-key", type=Path, metavar="FILE", help="public CURVE key of the program, off this machine")
    add("--client-key", type=Path, metavar="FILE", help="this reader's secret CURVE key")
    return parser.parse(arguments)
