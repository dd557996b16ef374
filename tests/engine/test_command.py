"""What every command says of its arguments."""

from __future__ import annotations

import pytest

from engine.command import Parser, complain


def parser() -> Parser:
    made = Parser(prog="arnis-test")
    made.add_argument("--count", type=int)
    made.add_argument("--name")
    return made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "x"], ["--count", "'x'"]),
        (["--colour", "red"], ["--colour"]),
        (["--name"], ["--name"]),
        (["--name", "caf\udce9"], ["'caf\\xe9'", "UTF-8"]),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("arnis-test: ") and said.count("\n") == 1
    assert all(word in said for word in words), said


def test_a_right_argument_is_read() -> None:
    assert parser().parse(["--count", "3", "--name", "café"]).name == "café"


def test_what_is_said_is_one_line_whatever_a_name_holds(capsys: pytest.CaptureFixture[str]) -> None:
    complain("arnis-test", "a\x1b[2Jb\nc\u202ed\udce9é.mp4 is empty")
    assert capsys.readouterr().err == r"arnis-test: a\x1b[2Jb\nc\u202ed\udce9é.mp4 is empty" + "\n"
