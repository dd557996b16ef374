"""The class file: names and meaning of the poses."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from os.path import commonprefix
from pathlib import Path
from typing import Annotated

import msgspec

from engine.errors import UserError

CLASSES_FILE = "classes.toml"
NEUTRAL_KIND = "neutral"


class PoseClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One class, in the order of the classifier's outputs."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]*$")]
    """Lower-case letters, digits and underscores: it is a key in tables, results and the bands' file."""
    kind: str
    """`thrust`, `block`, or `neutral` for what is no pose."""
    family: str
    """The foot that leads."""
    chamber: str
    """The height of the target."""
    side: str
    """The opponent's side at which a right-hander aims with it, or `centre`."""
    text: str
    """The pose in words, for the stick in the right hand."""

    @property
    def title(self) -> str:
        """The name as people read it."""
        return self.name.replace("_", " ")


class ClassFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All classes, in any order; `neutral` is the one whose kind says so, and there need not be one."""

    classes: tuple[PoseClass, ...] = msgspec.field(name="class")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def neutral(self) -> str:
        """Name of the class that is no pose; empty when there is none."""
        return next((c.name for c in self.classes if c.kind == NEUTRAL_KIND), "")

    @property
    def poses(self) -> tuple[str, ...]:
        """Names of all classes but `neutral`."""
        return tuple(c.name for c in self.classes if c.kind != NEUTRAL_KIND)

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.family for c in self.classes))

    @property
    def chambers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.chamber for c in self.classes))

    def digest(self) -> str:
        """SHA-256 over names, families and chambers: what a model's outputs depend on."""
        text = "\n".join(f"{c.name} {c.family} {c.chamber}" for c in self.classes)
        return hashlib.sha256(text.encode()).hexdigest()


def either_text(first: str, second: str) -> str:
    """Two classes in words, what both names have in common said once: `right chest or eye thrust`. In alphabetical
    order, as which is the likelier changes from look to look."""
    one, two = (name.split("_") for name in sorted((first, second)))
    head = commonprefix([one, two])
    one, two = one[len(head) :], two[len(head) :]
    tail = commonprefix([one[::-1], two[::-1]])[::-1]
    one, two = one[: len(one) - len(tail)], two[: len(two) - len(tail)]
    if not (one and two):  # one name is a part of the other
        return " or ".join(sorted((first, second))).replace("_", " ")
    return " ".join([*head, *one, "or", *two, *tail])


def models_folder() -> Path:
    """The shipped models, wherever the package is installed."""
    return Path(str(files("models")))


def load_classes(path: Path | None = None) -> ClassFile:
    """Read a class file (the shipped one by default); raises UserError when it is missing or malformed."""
    path = path or models_folder() / CLASSES_FILE
    try:
        classes = msgspec.toml.decode(path.read_bytes(), type=ClassFile)
    except FileNotFoundError:
        raise UserError(f"class file {path} does not exist; give the path of a classes.toml") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"class file {path} is not valid: {error}") from None
    if len(classes.names) < 2:
        raise UserError(f"class file {path} must name two classes or more, to tell them apart")
    if len(set(classes.names)) != len(classes.names):
        raise UserError(f"class file {path} names a class twice; names must differ")
    if len(classes.names) - len(classes.poses) > 1:
        raise UserError(f"class file {path} has two classes of the kind neutral; at most one says that it is no pose")
    return classes
