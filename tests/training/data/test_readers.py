"""Readers: ultralytics folders, COCO keypoints and mixtures become the same table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import UserError
from stages.classes import load_classes
from stages.skeleton import BODY_COUNT, GRIP, KEYPOINT_NAMES, NODE_COUNT, TIP
from training.data.coco import write_coco
from training.data.merge import merged
from training.data.pictures import class_and_group, list_pictures, picture_size
from training.data.readers import read_any
from training.data.table import Table, make_table, write_table

NAMES = load_classes().names
WIDTH, HEIGHT = 64, 48


def points(count: int, seed: int = 0) -> np.ndarray:
    """Random keypoints (count, 19, 3) that are visible or hidden."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(1, 47, (count, NODE_COUNT, 2))
    return np.dstack([places, rng.choice([0.5, 1.0], (count, NODE_COUNT))]).astype(np.float32)


def ultralytics(root: Path, kept: slice, keypoints: np.ndarray, names: str = "{0: person}", values: int = 3) -> Path:
    """A pose data set of one picture a row, `crown_thrust/anna_0.png`, ..., with the keypoints that are kept."""
    count = len(range(NODE_COUNT)[kept])
    for sub in ("images", "labels"):
        (root / sub / "crown_thrust").mkdir(parents=True)
    for i, row in enumerate(keypoints):
        cv2.imwrite(str(root / f"images/crown_thrust/anna_{i}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        cells = [
            f"{v:.6f}"
            for x, y, c in row[kept]
            for v in (x / WIDTH, y / HEIGHT, 0 if c == 0 else 2 if c == 1 else 1)[:values]
        ]
        label = root / f"labels/crown_thrust/anna_{i}.txt"
        # Smaller people in the background come before and after.
        others = " ".join(["0 0.5 0.5 0.1 0.1", *["0.5"] * len(cells)])
        label.write_text(f"{others}\n0 0.5 0.5 0.9 0.9 {' '.join(cells)}\n{others}\n")
    (root / "data.yaml").write_text(
        f"path: /another/machine\ntrain: images\nval:\nnames: {names}\nkpt_shape: [{count}, {values}]\n"
    )
    return root


def table_of(folder: Path, keypoints: np.ndarray) -> Table:
    count = len(keypoints)
    return make_table(
        folder, [f"{i}.png" for i in range(count)], ["crown_thrust", "neutral"] * (count // 2),
        np.tile([WIDTH, HEIGHT], (count, 1)), keypoints, ["x"] * count, groups=["anna", "ben"] * (count // 2),
        views=["front"] * count, hands=["right", "left"] * (count // 2), splits=["train"] * count,
    )  # fmt: skip


@pytest.mark.parametrize("kept", [slice(0, BODY_COUNT), slice(GRIP, NODE_COUNT), slice(0, NODE_COUNT)])
def test_an_ultralytics_folder_of_body_stick_or_both_is_read(kept: slice, tmp_path: Path) -> None:
    wanted = points(2)
    table = read_any(ultralytics(tmp_path, kept, wanted))
    np.testing.assert_allclose(table.keypoints[:, kept], wanted[:, kept], atol=1e-3)
    assert (table.keypoints[..., 2] > 0).sum() == 2 * len(range(NODE_COUNT)[kept])
    assert table.labels.tolist() == ["crown_thrust"] * 2 and table.groups.tolist() == ["anna"] * 2
    assert table.sizes.tolist() == [[WIDTH, HEIGHT]] * 2 and table.splits.tolist() == ["train"] * 2


def test_labels_without_visibility_and_with_own_classes_are_read(tmp_path: Path) -> None:
    table = read_any(ultralytics(tmp_path, slice(0, NODE_COUNT), points(1), "[left_knee_block, neutral]", 2))
    assert table.labels.tolist() == ["left_knee_block"]
    assert (table.keypoints[0, :, 2] == 1).all()


@pytest.mark.parametrize("names", ["[1, 2]", "[no, yes]", "{0: 1}"])
def test_what_is_no_text_may_be_the_name_of_a_class(names: str, tmp_path: Path) -> None:
    table = read_any(ultralytics(tmp_path, slice(0, NODE_COUNT), points(1), names))
    assert table.labels.tolist() == ["crown_thrust"]


def test_a_point_at_the_very_corner_of_a_label_without_visibility_is_missing(tmp_path: Path) -> None:
    wanted = points(1)
    wanted[0, TIP, :2] = 0
    table = read_any(ultralytics(tmp_path, slice(0, NODE_COUNT), wanted, values=2))
    assert table.keypoints[0, TIP].tolist() == [0, 0, 0] and (table.keypoints[0, :TIP, 2] == 1).all()


def test_of_several_people_in_a_picture_the_largest_counts(tmp_path: Path) -> None:
    people = [
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, side, side], "keypoints": [side, 2, 2] * NODE_COUNT,
         "attributes": {"grip_hand": hand}}
        for side, hand in ((2, "right"), (9, "left"), (3, "right"))
    ]  # fmt: skip
    content = {
        "images": [{"id": 7, "file_name": "ben/1.jpg", "width": 10, "height": 10}],
        "categories": [{"id": 3, "name": "person"}], "annotations": people,
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    table = read_any(tmp_path)
    assert table.keypoints[:, 0].tolist() == [[9, 2, 1]]
    assert table.hands.tolist() == table.true_hands.tolist() == ["left"]


def test_scores_in_the_place_of_flags_are_confidences(tmp_path: Path) -> None:
    """As `save_txt` of ultralytics and files of COCO results have them."""
    flags = [0.93, 0.2, 1, 2, 0] + [2] * (NODE_COUNT - 5)
    wanted = [0.93, 0.2, 0.5, 1, 0] + [1] * (NODE_COUNT - 5)
    coco_file(tmp_path / "a.json", keypoints=[number for flag in flags for number in (1, 2, flag)])
    ultralytics(tmp_path / "b", slice(0, NODE_COUNT), points(1))
    label = " ".join(f"0.5 0.5 {flag}" for flag in flags)
    (tmp_path / "b/labels/crown_thrust/anna_0.txt").write_text(f"0 0.5 0.5 1 1 {label}")
    for file in (tmp_path / "a.json", tmp_path / "b"):
        np.testing.assert_allclose(read_any(file).keypoints[0, :, 2], wanted, rtol=1e-6)


def test_a_body_and_a_stick_data_set_complete_each_other(tmp_path: Path) -> None:
    wanted = points(2)
    body = ultralytics(tmp_path / "body", slice(0, BODY_COUNT), wanted)
    stick = ultralytics(tmp_path / "stick", slice(GRIP, NODE_COUNT), wanted, "{0: stick}")
    table = merged([read_any(body), read_any(stick)])
    np.testing.assert_allclose(table.keypoints, wanted, atol=1e-3)
    assert table.picture_path(0).is_file()


def test_coco_keypoints_come_back_as_they_went_out(tmp_path: Path) -> None:
    wanted = points(4)
    wanted[1, TIP] = 0
    table = table_of(tmp_path, wanted)
    write_coco(table, tmp_path / "a.json")
    again = read_any(tmp_path / "a.json")
    for name in ("pictures", "labels", "groups", "views", "hands", "splits", "sizes"):
        assert getattr(again, name).tolist() == getattr(table, name).tolist(), name
    np.testing.assert_allclose(again.keypoints, wanted, atol=0.01)
    with pytest.raises(UserError, match=r"COCO is of pictures.* write a \.csv"):
        write_coco(replace(table, pictures=np.array(["", *table.pictures[1:]])), tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_coco_keypoints_are_placed_by_name_and_the_class_may_be_the_category(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "ben/1.jpg", "width": 10, "height": 10}],
        "categories": [{"id": 3, "name": "Left Knee Block", "keypoints": ["tip", "nose", "hat"]}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "keypoints": [1, 2, 2, 3, 4, 1, 5, 6, 2]}
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    table = read_any(tmp_path)
    assert table.labels.tolist() == ["left_knee_block"]
    assert table.keypoints[0, TIP].tolist() == [1, 2, 1] and table.keypoints[0, 0].tolist() == [3, 4, 0.5]
    assert (table.keypoints[..., 2] > 0).sum() == 2


@pytest.mark.parametrize("wrong", [[0], [0, 1, 2, 3]])
def test_a_stick_deleted_by_hand_is_not_put_back_by_the_old_table(wrong: list[int], tmp_path: Path) -> None:
    old = table_of(tmp_path, points(4))
    write_table(old, tmp_path / "table.csv", NAMES)
    corrected = old.keypoints.copy()
    corrected[wrong, GRIP:] = 0
    write_coco(make_table(tmp_path, old.pictures, [""] * 4, old.sizes, corrected, old.rows), tmp_path / "a.json")
    table = merged([read_any(tmp_path / "a.json"), read_any(tmp_path / "table.csv")])
    assert not table.keypoints[wrong, GRIP:].any() and (table.keypoints[:, GRIP:, 2] > 0).sum() == 2 * (4 - len(wrong))
    assert table.labels.tolist() == old.labels.tolist() and table.hands.tolist() == old.hands.tolist()
    assert len(table) == 4


def test_other_pictures_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    tables = []
    for folder, side in (("one", 40), ("two", 60)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "0.png"), np.full((side, side, 3), 7, np.uint8))
        tables.append(table_of(tmp_path / folder, points(2)).select(slice(0, 1)))
    assert len(merged(tables)) == 2
    assert len(merged([tables[0], table_of(tmp_path, points(2)).select(slice(0, 1))])) == 1


def test_pictures_of_one_name_and_several_people_stay_apart_when_they_are_gone(tmp_path: Path) -> None:
    names = ("old/neutral/anna/IMG_0001.jpg", "new/neutral/cleo/IMG_0001.jpg")
    rows = [table_of(tmp_path, points(2)).select(slice(0, 1)) for _ in names]
    tables = [
        replace(row, pictures=np.array([name]), groups=np.array([Path(name).parent.name]))
        for row, name in zip(rows, names, strict=True)
    ]
    assert merged(tables).groups.tolist() == ["cleo", "anna"]
    corrected = replace(tables[1], groups=np.array(["Cleo"]))
    assert merged([corrected, tables[1]]).groups.tolist() == ["Cleo"]


def test_points_whose_names_are_misspelt_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coco_file(tmp_path / "a.json", category_keypoints=[*KEYPOINT_NAMES[:GRIP], "griff", "tip"])
    assert not read_any(tmp_path / "a.json").keypoints[0, GRIP].any()
    assert "no such keypoints as griff: they are passed over, and grip is missing" in caplog.text


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("crown_thrust/anna/1.jpg", ("crown_thrust", "anna")),
        ("Crown Thrust/anna_1.jpg", ("crown_thrust", "anna")),
        ("neutral/2023_05_01_1.jpg", ("neutral", "")),
        ("neutral/DSCF_0012.jpg", ("neutral", "")),
        ("neutral/0012_front.jpg", ("neutral", "0012")),
        ("crown_thrust/IMG_2031.jpg", ("crown_thrust", "")),
        ("crown_thrust/20260912_193012.jpg", ("crown_thrust", "")),
        ("crown_thrust/1.jpg", ("crown_thrust", "")),
        ("train/left-eye-thrust/ben_take1/x_1.jpg", ("left_eye_thrust", "ben_take1")),
        ("images/left_eye_thrust_12_jpg.rf.0a1b.jpg", ("left_eye_thrust", "")),
        ("images/p0001_03.jpg", ("", "p0001")),
    ],
)
def test_class_and_person_are_told_from_the_path(name: str, wanted: tuple[str, str]) -> None:
    assert class_and_group(name, NAMES) == wanted


def test_a_portrait_that_lies_in_its_file_is_measured_upright(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=exif)
    assert picture_size(tmp_path / "a.jpg") == (HEIGHT, WIDTH)
    assert cv2.imread(str(tmp_path / "a.jpg")).shape[:2] == (WIDTH, HEIGHT)
    assert [p.name for p in list_pictures(tmp_path)] == ["a.jpg"]


def test_a_picture_of_200_megapixels_is_measured(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("1", (20_000, 10_000)).save(tmp_path / "phone.png")
    assert picture_size(tmp_path / "phone.png") == (20_000, 10_000)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.json", "[", "a.json is not JSON"),
        pytest.param("a.json", "[" * 100_000, "a.json is not JSON", id="deep"),
        pytest.param("a.json", "9" * 5000, "a.json is not JSON", id="long"),
        ("a.json", "[]", "has no list `images`"),
        ("a.json", '{"images": [], "annotations": [], "categories": []}', "no picture with keypoints"),
        ("data.yaml", "names: [a]", "no pose data set; it must have names, kpt_shape"),
        ("data.yaml", "names: [a]\nkpt_shape: [5, 3]", r"kpt_shape is \[5, 3\]; body 17, stick 2 or both 19"),
        ("data.yaml", "names: [a]\nkpt_shape: [19, 3]\ntrain: nowhere", "names nowhere, which does not exist"),
        ("a.txt", "", "a.txt is no table"),
        ("gone.json", None, "gone.json does not exist"),
        ("gone.xyz", None, "gone.xyz does not exist"),
    ],
)
def test_bad_input_is_one_sentence(file: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        read_any(tmp_path / file)


def coco_file(path: Path, **changes: object) -> None:
    """One picture with one person of 19 keypoints; `changes` are of the person, or `image_` or `category_` before."""
    image: dict[str, object] = {"id": 7, "file_name": "ben/1.jpg", "width": 10, "height": 10}
    category: dict[str, object] = {"id": 3, "name": "person", "keypoints": []}
    person: dict[str, object] = {
        "id": 5, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "keypoints": [1, 2, 2] * NODE_COUNT
    }  # fmt: skip
    for name, value in changes.items():
        entry, _, key = name.partition("_") if name.startswith(("image_w", "image_f", "category_k")) else ("", "", name)
        {"image": image, "category": category, "": person}[entry][key] = value
    content = {"images": [image], "annotations": [person], "categories": [category]}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [1, 2]}, "annotations, id 5: `bbox` must be four numbers"),
        ({"area": "large"}, r"annotations, id 5: .*`\$\.area`"),
        ({"image_width": "wide"}, r"images, id 7: .*`\$\.width`"),
        ({"image_file_name": "a\0.jpg"}, "images, id 7: `file_name` can be no file's name"),
        ({"image_file_name": "caf\udce9.jpg"}, "images, id 7: .*surrogates"),
        ({"attributes": ["pose"]}, r"annotations, id 5: .*`\$\.attributes`"),
        ({"keypoints": 5}, r"annotations, id 5: .*`\$\.keypoints`"),
        ({"keypoints": [10**400, 2, 2] * NODE_COUNT}, "its keypoints are not numbers in threes"),
        ({"keypoints": [1, 2, float("nan")] * NODE_COUNT}, "picture ben/1.jpg: a keypoint's visibility is no number"),
        ({"image_id": [7]}, "annotations, id 5: unhashable"),
        ({"category_keypoints": 5}, r"categories, id 3: .*`\$\.keypoints`"),
    ],
)
def test_a_value_of_coco_keypoints_that_makes_no_sense_is_named(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    coco_file(tmp_path / "a.json", **changes)
    with pytest.raises(UserError, match=message) as caught:
        read_any(tmp_path)
    assert "a.json" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": None, "area": None, "attributes": None},
        {"bbox": [], "attributes": []},
        {"bbox": [1, 2], "area": "12.5"},
        {"image_width": "10", "category_keypoints": None},
        {"attributes": {"pose": "neutral", "frame": 4, "occluded": False}, "segmentation": [], "track_id": 2},
        {"keypoints": [[1, 2, 2]] * NODE_COUNT},
        {"keypoints": [None, 2, 1, *[1, 2, 2] * (NODE_COUNT - 1)]},
    ],
)
def test_coco_keypoints_may_lack_what_is_not_needed_and_have_more(changes: dict[str, object], tmp_path: Path) -> None:
    coco_file(tmp_path / "a.json", **changes)
    table = read_any(tmp_path)
    assert table.sizes.tolist() == [[10, 10]] and table.keypoints[0, TIP].tolist() == [1, 2, 1]


def test_a_size_that_is_no_number_is_unknown(tmp_path: Path) -> None:
    coco_file(tmp_path / "a.json", image_width=float("nan"))
    assert read_any(tmp_path).sizes.tolist() == [[0, 10]]


@pytest.mark.parametrize("line", ["0 0.5 0.5 1 1 x", "nan 0.5 0.5 1 1", "inf 0.5 0.5 1 1", "0 0.5 0.5 1 1 0.5 0.5 nan"])
def test_a_bad_line_of_a_label_is_named(line: str, tmp_path: Path) -> None:
    ultralytics(tmp_path, slice(0, NODE_COUNT), points(1))
    cells = [*line.split(), *["0.5"] * (5 + 3 * NODE_COUNT - len(line.split()))]
    (tmp_path / "labels/crown_thrust/anna_0.txt").write_text(" ".join(cells))
    with pytest.raises(UserError, match="anna_0.txt line 1 is not a class of data.yaml"):
        read_any(tmp_path)


@pytest.mark.parametrize("file", ["labels/crown_thrust/anna_0.txt", "list.txt"])
def test_a_file_that_is_no_text_is_named(file: str, tmp_path: Path) -> None:
    data = ultralytics(tmp_path, slice(0, NODE_COUNT), points(1)) / "data.yaml"
    data.write_text(data.read_text().replace("train: images", "train: [images, list.txt]"))
    (tmp_path / "list.txt").write_text("")
    (tmp_path / file).write_bytes(b"\xff\xfe0")
    with pytest.raises(UserError, match=f"{file} is no text"):
        read_any(tmp_path)


def test_a_folder_of_mere_pictures_is_sent_to_label(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="arnis-train label"):
        read_any(tmp_path)
