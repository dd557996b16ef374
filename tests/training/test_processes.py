"""Helper processes end with the command that started them, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from training.processes import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


def test_they_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline_s = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s, "the helper is still there"
        time.sleep(0.05)


BEGINNING = """
import time
from training.processes import helpers

def load(seconds):
    print("loading", flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    try:
        with helpers(1, load, (60,)) as pool:
            print("begun", flush=True)
            [pool.submit(print), pool.submit(print)][0].result()
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_ends_them_at_once_and_only_the_command_answers(tmp_path: Path) -> None:
    (tmp_path / "begin.py").write_text(BEGINNING)
    with subprocess.Popen([sys.executable, tmp_path / "begin.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True) as command:  # fmt: skip
        assert command.stdout is not None
        assert {command.stdout.readline() for _ in range(2)} == {"loading\n", "begun\n"}
        os.killpg(command.pid, signal.SIGINT)  # as a terminal does
        assert command.communicate(timeout=30) == ("interrupted\n", "")


PICKED = """
from training.processes import helpers

if __name__ == "__main__":
    with helpers(1, print) as pool:
        pool.submit(print).result()
"""


def test_they_run_no_code_that_lies_among_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "pick.py").write_text(PICKED)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "pickle.py").write_text("open('was_run', 'w').close()\n")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, tmp_path / "pick.py"], cwd=pictures, env=environment, check=True, timeout=60)
    assert not (pictures / "was_run").exists()
