"""The revision that cards and measurements name."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from engine import revision


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_changed_file_adds_a_plus_to_the_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(revision, "__file__", str(tmp_path / "revision.py"))
    assert revision.git_revision() == "unknown"
    (tmp_path / "a.txt").write_text("a")
    git("init")
    git("add", "a.txt")
    git("commit", "-m", "a")
    assert revision.git_revision() == "unknown", "installed inside another project"
    (tmp_path / "revision.py").write_text("")
    git("add", "revision.py")
    git("commit", "-m", "b")
    clean = git("rev-parse", "--short", "HEAD").strip()
    assert revision.git_revision() == clean
    (tmp_path / "b.txt").write_text("not of the source")
    assert revision.git_revision() == clean
    (tmp_path / "a.txt").write_text("b")
    assert revision.git_revision() == f"{clean}+"


def test_without_git_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert revision.git_revision() == "unknown"
