"""The class file: the shipped one, one of a user's own, and what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import UserError
from stages.classes import either_text, load_classes

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a class file of (name, kind) pairs."""

    def make(*classes: tuple[str, str]) -> Path:
        entries = (
            f'[[class]]\nname = "{name}"\nkind = "{kind}"\nfamily = "f"\nchamber = "c"\nside = "left"\ntext = "A."\n'
            for name, kind in classes
        )
        (tmp_path / "classes.toml").write_text("\n".join(entries))
        return tmp_path / "classes.toml"

    return make


def test_the_shipped_file_has_twelve_poses_and_neutral() -> None:
    classes = load_classes()
    assert len(classes.poses) == 12
    assert classes.neutral == "neutral"


def test_neutral_may_stand_anywhere_and_be_called_anything(write: Write) -> None:
    classes = load_classes(write(("idle", "neutral"), ("salute", "greeting"), ("sinawali", "strike")))
    assert classes.neutral == "idle"
    assert classes.poses == ("salute", "sinawali")


def test_a_file_without_neutral_has_poses_only(write: Write) -> None:
    classes = load_classes(write(("salute", "greeting"), ("neutral", "strike")))
    assert classes.neutral == ""
    assert classes.poses == classes.names == ("salute", "neutral")


def test_the_digest_tells_files_apart_for_which_a_model_is_another(write: Write) -> None:
    one = load_classes(write(("a", "x"), ("b", "y"))).digest()
    assert one != load_classes(write(("b", "y"), ("a", "x"))).digest()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((("a", "x"), ("a", "y")), "names a class twice"),
        ((("a", "neutral"), ("b", "neutral")), "two classes of the kind neutral"),
        ((("a", "x"),), "must name two classes or more"),
        ((("Left Block", "x"), ("b", "y")), "is not valid"),
        ((), "is not valid"),
    ],
)
def test_a_file_that_cannot_be_is_one_sentence(
    classes: tuple[tuple[str, str], ...], message: str, write: Write
) -> None:
    with pytest.raises(UserError, match=message):
        load_classes(write(*classes))


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_classes(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("right_eye_thrust", "right_chest_thrust", "right chest or eye thrust"),
        ("right_chest_thrust", "right_eye_thrust", "right chest or eye thrust"),
        ("crown_thrust", "solar_plexus_thrust", "crown or solar plexus thrust"),
        ("left_knee_block", "right_knee_block", "left or right knee block"),
        ("left_eye_thrust", "right_temple_block", "left eye thrust or right temple block"),
        ("left_block", "left_high_block", "left block or left high block"),
        ("guard", "lunge", "guard or lunge"),
    ],
)
def test_two_classes_are_told_with_what_they_share_said_once(one: str, other: str, said: str) -> None:
    assert either_text(one, other) == said
