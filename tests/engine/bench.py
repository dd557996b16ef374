"""Runs the test bench's pipeline, in this process or in one that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.config import Config, load_config
from engine.health import RunSummary
from engine.run import run_pipeline

THREE_WORKERS = """
[engine]
packet = "bench_parts:NumberPacket"
source = "bench_parts:Numbers"

[[worker]]
name = "detect"
stages = ["bench_parts:Read"]

[[worker]]
name = "classify"
stages = ["bench_parts:{middle}"]

[[worker]]
name = "output"
stages = ["bench_parts:Write"]
"""


class Bench:
    """A pipeline in a folder of its own."""

    def __init__(self, folder: Path, middle: str = "Middle") -> None:
        self.results = folder / "results.jsonl"
        self.pid_file = folder / "pids"
        self.file = folder / "config.toml"
        self.file.write_text(THREE_WORKERS.format(middle=middle))

    def config(self, *overrides: str) -> Config:
        return load_config(self.file, overrides=[f"write.path={self.results}", *overrides])

    def run(self, sources: Sequence[str], *overrides: str, **options: Any) -> RunSummary:
        return run_pipeline(self.config(*overrides), list(sources), **options)

    def start(self, sources: Sequence[str], *overrides: str, **options: Any) -> subprocess.Popen[str]:
        """The same in a process of its own, which prints its summary as JSON."""
        script = self.file.parent / "program.py"
        script.write_text(
            textwrap.dedent(f"""
            import sys
            sys.path[:0] = {sys.path!r}
            if __name__ == "__main__":
                import json, msgspec
                from pathlib import Path
                from bench import Bench
                from engine.config import load_config
                from engine.errors import UserError
                from engine.run import run_pipeline
                pids = "{self.pid_file}"
                overrides = ["write.path={self.results}"]
                overrides += [stage + ".pid_file=" + pids for stage in ("read", "middle", "write")]
                config = load_config(Path({str(self.file)!r}), overrides=overrides + {list(overrides)!r})
                summary = run_pipeline(config, {list(sources)!r}, **{options!r})
                print(json.dumps(msgspec.to_builtins(summary)))
                sys.exit(summary.exit_code)
            """)
        )
        return subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def pids(self) -> dict[str, int]:
        """Stage name -> process id of the newest worker that runs it."""
        if not self.pid_file.exists():
            return {}
        words = [line.split() for line in self.pid_file.read_text().splitlines()]
        return {name: int(pid) for name, pid in words if pid.isdigit()}

    def line_count(self) -> int:
        return len(self.results.read_text().splitlines()) if self.results.exists() else 0


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Fails when it does not come true in a generous time."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def summary_of(process: subprocess.Popen[str], timeout_s: float = 60.0) -> dict[str, Any]:
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert out, err
    summary: dict[str, Any] = json.loads(out)
    return summary


def children_of(pid: int) -> set[int]:
    """All processes that descend from one."""
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        parent = fresh.pop()
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                child_parent = int(status.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            child = int(status.parent.name)
            if child_parent == parent and child not in found:
                found.add(child)
                fresh.add(child)
    return found
