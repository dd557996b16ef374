"""Files of pictures: their size, and the class and the person that their path names.

    class/person/picture.jpg      the folder below the class is the person (or the recording)
    class/person_xyz.jpg          else what stands before the first underscore is
    class/picture.jpg             else nobody knows: the group stays empty

A class's folder may be written with spaces, hyphens and capitals: `Left Temple Block` is `left_temple_block`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from stages.sources.images import SUFFIXES

# What phones and programs put before the underscore says nothing about who is in the picture.
_NOBODY = frozenset({
    "", "img", "image", "images", "pic", "picture", "photo", "foto", "dsc", "dscn", "pxl", "mvimg", "vid", "video",
    "dscf", "cimg", "gopr", "p", "frame", "screenshot", "whatsapp", "signal", "train", "val", "valid", "test",
})  # fmt: skip
_DATE = re.compile(r"\d{8}|20\d\d")
"""Other phones put this there, or a year and what follows after it; 0012 may be a person's number."""
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
Image.MAX_IMAGE_PIXELS = None  # phones take pictures of 200 megapixels
_EXIF_ORIENTATION = 274
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def list_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted; hidden files and folders are passed over."""
    return sorted(path for path in _files(folder) if path.suffix.lower() in SUFFIXES)


def other_kinds(folder: Path) -> str:
    """Which files below a folder are no pictures that can be read: `12 .heic, 1 .txt`; hidden ones don't count."""
    kinds = Counter(path.suffix.lower() or "without an ending" for path in _files(folder))
    return ", ".join(f"{number} {kind}" for kind, number in kinds.most_common() if kind not in SUFFIXES)


def _files(folder: Path) -> Iterator[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def is_cut_off(path: Path) -> bool:
    """True for a JPEG whose end is missing; OpenCV reads it all the same, grey where nothing is."""
    with path.open("rb") as file:
        if file.read(2) != _JPEG_START:
            return False
        file.seek(-2, os.SEEK_END)
        if file.read() == _JPEG_END:
            return False
    try:
        # Phones append things of their own to a whole picture.
        with Image.open(path) as picture:
            picture.load()
    except OSError:
        return True
    return False


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as OpenCV reads the file, upright; (0, 0) when it is no picture."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            # Phones store portraits lying down; readers turn them by this tag.
            lies = picture.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except OSError:
        return 0, 0
    return (height, width) if lies else (width, height)


def as_class_name(text: str) -> str:
    """How a class file writes what people write."""
    return re.sub(r"[\s-]+", "_", text.strip()).lower()


def without_upload_prefix(name: str) -> str:
    """A file's own name: Label Studio puts eight hex digits and a dash before that of a picture uploaded to it."""
    return _UPLOADED.sub("", name)


def class_and_group(name: str, classes: Sequence[str]) -> tuple[str, str]:
    """Class and group that a picture's relative path names, each empty when it does not.

    >>> class_and_group("crown_thrust/anna/1.jpg", ["crown_thrust"])
    ('crown_thrust', 'anna')
    """
    path = PurePosixPath(name.replace("\\", "/"))
    path = path.with_name(without_upload_prefix(path.name)) if path.name else path
    folders = [as_class_name(folder) for folder in path.parts[:-1]]
    known = [place for place, folder in enumerate(folders) if folder in classes]
    if known:
        below = path.parts[known[-1] + 1 : -1]
        return folders[known[-1]], below[0].strip() if below else group_of_file(path.name)
    stem = as_class_name(path.stem)
    # The longest first: a class's name may be the beginning of another's.
    named = [c for c in sorted(classes, key=len, reverse=True) if stem == c or stem.startswith(f"{c}_")]
    return (named[0], "") if named else ("", group_of_file(path.name))


def group_of_file(name: str) -> str:
    """The person before the first underscore of a file's name; empty when there is none."""
    person, underscore, _ = PurePosixPath(name).stem.partition("_")
    nobody = not underscore or person.lower() in _NOBODY or _DATE.fullmatch(person)
    return "" if nobody else person.strip()
