"""`arnis-train` as a whole: what all commands have in common."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.classes import load_classes
from stages.skeleton import NODE_COUNT
from training import app
from training.data import convert_command
from training.data.table import make_table, write_table


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no folder")
    out = tmp_path / "notes.txt" / "runs"
    assert app.main(["synth", "--out", str(out), "--people", "1"]) == 2
    assert str(out) in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["synth", "--out", "o", "--seed", "-1"], ["bands", "--samples", "-1"], ["detector", "--limit", "-1"],
     ["label", "pictures", "--out", "o", "--processes", "0"]],
)  # fmt: skip
def test_a_number_that_makes_no_sense_is_named_with_its_option(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        app.main(words)
    said = capsys.readouterr().err
    assert f"argument {words[-2]}: {words[-1]!r} makes no sense" in said and said.count("\n") == 1


def test_every_command_is_entered_here_where_its_mistakes_are_told() -> None:
    folder = Path(app.__file__).parent
    assert [p for p in folder.rglob("*.py") if "__main__" in p.name + p.read_text()] == [folder / "app.py"]


def test_a_reader_that_has_gone_is_told_nothing(tmp_path: Path) -> None:
    """As in `arnis-train check poses.csv | head`."""
    table = make_table(tmp_path, [""], ["neutral"], np.zeros((1, 2)), np.full((1, NODE_COUNT, 3), 0.5), ["a row"])
    write_table(table, tmp_path / "poses.csv", load_classes().names)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "training.app", "check", tmp_path / "poses.csv"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert ended.stderr == b""


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_table(tmp_path, [""], ["neutral"], np.zeros((1, 2)), np.full((1, NODE_COUNT, 3), 0.5), ["a row"])
    write_table(table, tmp_path / "poses.csv", load_classes().names)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` has it, without a name

    monkeypatch.setattr(convert_command, "write_any", full)
    assert app.main(["convert", str(tmp_path / "poses.csv"), "--out", str(tmp_path / "out.csv")]) == 2
    assert "No space left on device; make room, then repeat the command" in capsys.readouterr().err
