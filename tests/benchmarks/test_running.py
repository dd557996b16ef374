"""The program is run as in use, and looked at from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.demo import published
from benchmarks.running import Run, environment, run_program
from stages.capture import DEMO

FRAMES = 60


def test_what_is_published_is_read_and_processor_time_counts_with_the_frames_that_it_was_spent_on(
    tmp_path: Path,
) -> None:
    run = run_program(["--source", DEMO, "--realtime", "--max-frames", str(FRAMES), *published()], tmp_path)
    assert run.frames == FRAMES
    assert 0 < run.messages <= FRAMES + 1  # the last one tells the end
    assert run.cpu_s is None or 0 < run.frames_before < FRAMES


def test_frames_that_were_done_before_the_clock_ran_do_not_count() -> None:
    run = Run(stats={"frames_in": 30}, results=[], cpu_s=0.5, frames_before=5)
    assert run.cpu_ms_per_frame == 20.0


def test_what_is_measured_imports_nothing_from_the_folder_that_it_is_measured_in(tmp_path: Path) -> None:
    (tmp_path / "av.py").write_text("raise SystemExit('not the package')")
    words = [sys.executable, "-m", "stages", "--version"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "arnis-stream" in done.stdout, done.stderr
