"""Reads and writes COCO keypoints JSON, so that keypoints can be corrected by hand in CVAT or Label Studio.

What is written has one category, `person`, with the 19 named keypoints; what COCO has no place for (`pose`, `group`,
`view`, `grip_hand`, `true_hand`, `split`) are the annotation's `attributes`, which CVAT keeps when its label has them.
Read are categories with these names in any order, or with 17 (body), 2 (stick) or 19 nameless keypoints.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from engine.errors import UserError
from stages.packets import HANDS
from stages.skeleton import BODY_EDGES, KEYPOINT_NAMES, NODE_COUNT, STICK_EDGE
from training.data.pictures import as_class_name, class_and_group
from training.data.table import SPLIT_NAMES, Table, make_table
from training.data.ultralytics import NODES, confidence_of, flags_of
from training.files import whole_file

log = logging.getLogger(__name__)

_BOX_MARGIN = 0.05
_PLACES = (".", "images", "..", "../images", "../images/default", "../images/train", "../images/val")
"""Where pictures lie, seen from the JSON file, by what writes such files."""

_Entry = TypeVar("_Entry")


class _Image(msgspec.Struct):
    """As the other entries, what is read of it: an export may have more and may lack any."""

    id: Any = None
    file_name: Any = ""
    width: float = 0.0
    height: float = 0.0

    def __post_init__(self) -> None:
        hash(self.id)  # else it is no name for anything
        if "\0" in str(self.file_name):
            raise ValueError("`file_name` can be no file's name")
        str(self.file_name).encode()  # JSON can spell what is no letter


class _Category(msgspec.Struct):
    id: Any = None
    name: Any = ""
    keypoints: list[Any] = []

    def __post_init__(self) -> None:
        hash(self.id)


class _Person(msgspec.Struct):
    """An annotation."""

    image_id: Any = None
    category_id: Any = None
    keypoints: list[Any] = []
    bbox: list[float] = []
    area: float = 0.0
    attributes: dict[str, Any] = {}

    def __post_init__(self) -> None:
        hash((self.image_id, self.category_id))
        if not self.area and len(self.bbox) in (1, 2, 3):
            raise ValueError("`bbox` must be four numbers")


class _Content(msgspec.Struct):
    images: list[_Image]
    people: list[_Person]
    """Of the annotations those with keypoints."""
    categories: list[_Category]


def write_coco(table: Table, path: Path) -> None:
    """Write a table as COCO keypoints; names of pictures stay as they are in the table. Raises UserError when there are
    rows without a picture, which the format cannot tell apart."""
    if not all(table.pictures):
        raise UserError(f"{path}: COCO is of pictures, and rows of this table have none; write a .csv")
    category = {
        "id": 1, "name": "person", "supercategory": "person", "keypoints": list(KEYPOINT_NAMES),
        "skeleton": [[a + 1, b + 1] for a, b in (*BODY_EDGES, STICK_EDGE)],
    }  # fmt: skip
    images = [
        {"id": i + 1, "file_name": str(table.pictures[i]), "width": int(width), "height": int(height)}
        for i, (width, height) in enumerate(table.sizes)
    ]
    content = {
        "info": {"description": "Arnis poses: body and stick"}, "licenses": [], "images": images,
        "categories": [category], "annotations": [_annotation(table, i) for i in range(len(table))],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_coco(path: Path, names: Sequence[str]) -> Table:
    """Read COCO keypoints; of several people in a picture the largest counts, pictures without one are left out.

    `names` are those of the classes. Raises UserError when the file is no such JSON; the sentence says where.
    """
    content = _load(path)
    categories = {category.id: category for category in content.categories}
    largest: dict[object, _Person] = {}
    for person in content.people:
        if _area(person) > _area(largest.get(person.image_id)):
            largest[person.image_id] = person
    images = [image for image in content.images if image.id in largest]
    if not images:
        raise UserError(f"{path} has no picture with keypoints; export it as `COCO Keypoints`")
    people = [largest[image.id] for image in images]
    kinds = [categories.get(person.category_id, _Category()) for person in people]
    files = [str(image.file_name) for image in images]
    where = [f"{path.name} picture {name}" for name in files]
    keypoints = [_keypoints(*parts) for parts in zip(people, kinds, where, strict=True)]
    texts = [_texts(*parts, names) for parts in zip(people, kinds, files, strict=True)]
    # What is no number of pixels is unknown.
    sizes = np.nan_to_num([[image.width, image.height] for image in images], posinf=0, neginf=0)
    labels, groups, views, hands, true_hands, splits = zip(*texts, strict=True)
    _say_what_is_unknown(path, content.categories)
    return make_table(
        _folder(path, files[0]), files, labels, sizes, np.array(keypoints), where,
        guessed=[not _attributes(person).get("group") for person in people],
        label_guessed=[not _said_class(*parts, names) for parts in zip(people, kinds, strict=True)],
        known=np.array([_known(*parts) for parts in zip(people, kinds, strict=True)]),
        groups=groups, views=views, hands=hands, true_hands=true_hands, splits=splits,
    )  # fmt: skip


def _annotation(table: Table, i: int) -> dict[str, Any]:
    points = table.keypoints[i]
    seen = points[:, 2] > 0
    flags = flags_of(points[:, 2])
    low, high = (points[seen, :2].min(0), points[seen, :2].max(0)) if seen.any() else (np.zeros(2), np.zeros(2))
    margin = _BOX_MARGIN * float((high - low).max())
    width, height = (float(side) for side in high - low + 2 * margin)
    attributes = {
        "pose": table.labels[i], "group": table.groups[i], "view": table.views[i], "grip_hand": table.hands[i],
        "true_hand": table.true_hands[i], "split": table.splits[i],
    }  # fmt: skip
    return {
        "id": i + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0, "num_keypoints": int(seen.sum()),
        "bbox": [round(float(low[0]) - margin, 2), round(float(low[1]) - margin, 2), round(width, 2), round(height, 2)],
        "area": round(width * height, 2), "segmentation": [],
        "keypoints": [
            value
            for (x, y, _), flag in zip(points.tolist(), flags.tolist(), strict=True)
            for value in ((round(x, 2), round(y, 2), flag) if flag else (0, 0, 0))
        ],
        "attributes": {name: str(text) for name, text in attributes.items()},
    }  # fmt: skip


def _load(path: Path) -> _Content:
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a file of COCO keypoints")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); export it again") from None
    for part in ("images", "annotations", "categories"):
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{path} has no list `{part}`; export it as `COCO Keypoints`")
    people = [entry for entry in content["annotations"] if entry.get("keypoints")]
    return _Content(
        _entries(path, "images", content["images"], _Image),
        [person for person in _entries(path, "annotations", people, _Person) if any(person.keypoints)],
        _entries(path, "categories", content["categories"], _Category),
    )


def _entries(path: Path, part: str, entries: list[dict[str, Any]], kind: type[_Entry]) -> list[_Entry]:
    """A part's entries; an empty value is one that is lacking, and a number may be written as text."""
    read = []
    for entry in entries:
        told = {name: value for name, value in entry.items() if value or isinstance(value, (int, float))}
        try:
            read.append(msgspec.convert(told, kind, strict=False))
        except msgspec.ValidationError as error:
            place = f"{path}: {part}, id {entry.get('id')}"
            raise UserError(f"{place}: {error}; correct it, or export the file again") from None
    return read


def _area(person: _Person | None) -> float:
    """Size of a person; -1 for none."""
    if person is None:
        return -1.0
    return person.area or (person.bbox[2] * person.bbox[3] if person.bbox else 0.0)


def _keypoints(person: _Person, category: _Category, where: str) -> np.ndarray:
    """float32 (19, 3) with confidences."""
    try:
        points = np.array(person.keypoints, np.float32).reshape(-1, 3)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{where}: its keypoints are not numbers in threes; export the file again") from None
    named = _point_names(category)
    placed = np.zeros((NODE_COUNT, 3), np.float32)
    if _is_named(named, len(points)):
        for name, point in zip(named, points, strict=True):
            if name in KEYPOINT_NAMES:
                placed[KEYPOINT_NAMES.index(name)] = point
    elif len(points) in NODES:
        placed[NODES[len(points)]] = points
    else:
        raise UserError(
            f"{where}: {len(points)} keypoints without known names; name them nose ... right_ankle, grip, tip"
        )
    if np.isnan(placed[:, 2]).any():
        raise UserError(f"{where}: a keypoint's visibility is no number; correct it, or export the file again")
    placed[:, 2] = confidence_of(placed[:, 2])
    placed[placed[:, 2] == 0] = 0
    return placed


def _point_names(category: _Category) -> list[str]:
    return [as_class_name(str(name)) for name in category.keypoints]


def _is_named(named: Sequence[str], count: int) -> bool:
    """Whether these are names of `count` points, and any is known."""
    return len(named) == count and bool(set(named) & set(KEYPOINT_NAMES))


def _known(person: _Person, category: _Category) -> np.ndarray:
    """bool (19,): the keypoints that somebody could have set in such a person."""
    named, count = _point_names(category), np.array(person.keypoints, np.float32).size // 3
    if _is_named(named, count):
        return np.isin(KEYPOINT_NAMES, named)
    known = np.zeros(NODE_COUNT, bool)
    known[NODES[count]] = True
    return known


def _say_what_is_unknown(path: Path, categories: Sequence[_Category]) -> None:
    """A point whose name is misspelt would be lost without a word."""
    for named in map(_point_names, categories):
        unknown, missing = ([n for n in these if n not in those] for these, those in
                            ((named, KEYPOINT_NAMES), (KEYPOINT_NAMES, named)))  # fmt: skip
        if unknown and missing and _is_named(named, len(named)):
            log.warning("%s: no such keypoints as %s: they are passed over, and %s missing", path, ", ".join(unknown),
                        f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'}")  # fmt: skip


def _said_class(person: _Person, category: _Category, classes: Sequence[str]) -> str:
    """The class that the attributes or the category name; empty where only the picture's path may tell it."""
    own = as_class_name(str(category.name))
    return as_class_name(_attributes(person).get("pose", "")) or (own if own in classes else "")


def _attributes(person: _Person) -> dict[str, str]:
    return {name: str(value).strip() for name, value in person.attributes.items()}


def _texts(person: _Person, category: _Category, file: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Class, group, view, hand, true hand and split: from the attributes, else from the category and the path."""
    attributes = _attributes(person)
    named, group = class_and_group(file, classes)
    label = _said_class(person, category, classes) or named
    hand, split = attributes.get("grip_hand", ""), attributes.get("split", "")
    words = ((hand, HANDS), (attributes.get("true_hand") or hand, HANDS), (split, SPLIT_NAMES))
    hand, true_hand, split = (word if word in allowed else "" for word, allowed in words)
    return label, attributes.get("group") or group, attributes.get("view", ""), hand, true_hand, split


def _folder(path: Path, first: str) -> Path:
    """The folder from which the pictures' names start."""
    places = (path.parent / place for place in _PLACES)
    return next((place for place in places if (place / first).is_file()), path.parent)
