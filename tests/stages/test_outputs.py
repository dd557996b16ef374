"""What earlier runs wrote is kept, what another run writes is left alone."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from engine.errors import UserError
from stages.outputs import owned


def own(*files: Path, text: str = "", later: tuple[Path, ...] = ()) -> None:
    """A run that writes a text into each of the files."""
    with owned([("results.path", file) for file in files], [("record.path", file) for file in later]):
        for file in files:
            with file.open("a") as stream:
                stream.write(text)


def test_what_earlier_runs_wrote_is_kept_under_other_names(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text("the day before")
    own(file, text="yesterday")
    own(file, text="today")
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {
        "out.jsonl": "today", "out.earlier-1.jsonl": "the day before", "out.earlier-2.jsonl": "yesterday",
    }  # fmt: skip


def test_a_run_that_writes_nothing_leaves_all_as_it_was(tmp_path: Path) -> None:
    file, movie, fresh = tmp_path / "out.recording.mkv", tmp_path / "out.mp4", tmp_path / "new.jsonl"
    file.write_text("of a run that was killed")
    movie.write_text("yesterday")
    own(file, fresh, later=(movie,))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "out.recording.mkv": "of a run that was killed", "out.mp4": "yesterday",
    }  # fmt: skip


def test_what_is_made_at_the_end_takes_the_place_of_an_earlier_ones(tmp_path: Path) -> None:
    movie = tmp_path / "out.mp4"
    movie.write_text("yesterday")
    with owned([], [("record.path", movie)]):
        assert not movie.exists()
        movie.write_text("today")
    assert movie.read_text() == "today" and (tmp_path / "out.earlier-1.mp4").read_text() == "yesterday"


def test_a_link_stays_and_what_it_leads_to_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    file, link = tmp_path / "elsewhere" / "real.jsonl", tmp_path / "out.jsonl"
    link.symlink_to(file)
    own(link, text="first")
    assert link.is_symlink() and file.read_text() == "first"
    own(link, text="second")
    assert link.is_symlink() and file.read_text() == "second"
    assert file.with_name("real.earlier-1.jsonl").read_text() == "first"
    own(link)
    assert link.is_symlink() and file.read_text() == "second"


@pytest.mark.skipif(sys.platform == "win32", reason="files are locked otherwise there")
def test_what_another_run_writes_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    with owned([("results.path", file)], []):
        file.write_text("half")
        with pytest.raises(UserError, match="another run is writing"), owned([], [("record.path", file)]):
            pass
        with pytest.raises(UserError, match=r"results\.path: another run is writing .*out\.jsonl; choose another name"):
            own(file, text="more")
        assert file.read_text() == "half"
    own(file, text="more")


def test_what_cannot_be_renamed_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text("earlier")

    def refuse(source: Path, target: Path) -> None:  # as in a folder that is read-only, which does not stop root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match=r"results\.path: the earlier .*out\.jsonl cannot be renamed.*; remove it"):
        own(file)
    assert file.read_text() == "earlier"


def test_what_is_no_file_is_written_to_as_it_is() -> None:
    own(Path(os.devnull), text="nothing")


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="needs /dev/fd")
def test_a_pipe_without_a_name_is_written_to_as_it_is() -> None:
    reader, writer = os.pipe()
    own(Path(f"/dev/fd/{writer}"), text="a line")
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "a line"
