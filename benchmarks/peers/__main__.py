"""Runs one loop and writes down what it found, as `arnis-stream` does with `--stats` and `--results`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec

from benchmarks.peers.compare import PEERS, WARM_UP_FRAMES
from benchmarks.peers.loop import Answer, Job
from engine.clock import NS_PER_MS, now_ns
from engine.errors import UserError


def main() -> int:
    """Entry point. 2: the loop can't be run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    for name in ("--stats", "--results", "--clip"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--task", type=Path)
    options = parser.parse_args()
    job = Job(clip=options.clip, task=options.task)
    try:
        with closing(PEERS[options.peer].loop(job)) as answers:
            count = write(islice(answers, options.frames), options.results)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    options.stats.write_text(msgspec.json.encode({"frames_in": count, "stages": {}}).decode())
    return 0


def write(answers: Iterator[Answer], path: Path) -> int:
    """One line for each answer; returns how many there were.

    The file stays empty during warm-up, for he who looks on counts processor time from its first line on.
    """
    lines = []
    with path.open("wb") as file:
        for sequence, answer in enumerate(answers):
            line = result_line(sequence, answer, now_ns())
            lines.append(line)
            if sequence == WARM_UP_FRAMES - 1:
                file.write(b"\n".join(lines) + b"\n")
                file.flush()
        file.write(b"".join(line + b"\n" for line in lines[WARM_UP_FRAMES:]))
    return len(lines)


def result_line(sequence: int, answer: Answer, ready_at_ns: int) -> bytes:
    """The part of a result that is compared, in the words of `stages.result`."""
    return msgspec.json.encode(
        {
            "sequence": sequence,
            "captured_at_ns": answer.decoded_at_ns,
            "latency_ms": (ready_at_ns - answer.decoded_at_ns) / NS_PER_MS,
            "status": "unsure" if answer.label is None else "ok",
            "pose": {"label": answer.label, "alternative": None},
        }
    )


if __name__ == "__main__":
    sys.exit(main())
