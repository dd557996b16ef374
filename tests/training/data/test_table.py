"""The table: what is written is read back, both kinds of coordinates, and mistakes that name file, row and mend."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import UserError
from stages.classes import load_classes
from stages.graph import mirror_keypoints
from stages.skeleton import GRIP, LEFT_WRIST, NODE_COUNT
from training.data.cells import whole_lines
from training.data.readers import read_any
from training.data.table import KEYPOINT_COLUMNS, make_table, write_table
from training.geopose.pose_statistics import PoseStatistics
from training.synth.skeletons import STATISTICS

NAMES = load_classes().names


def keypoints(count: int, scale: float = 100.0) -> np.ndarray:
    """Random points with confidences, the stick of the first row missing."""
    rng = np.random.default_rng(0)
    points = np.dstack(
        [rng.uniform(0.1, 0.9, (count, NODE_COUNT, 2)) * scale, rng.uniform(0.2, 1, (count, NODE_COUNT))]
    )
    points[0, GRIP:] = 0
    return points.astype(np.float32)


def people_with_the_second_left_handed() -> np.ndarray:
    """Keypoints (3, 19, 3) of people in a clear pose."""
    drawn, labels = PoseStatistics(STATISTICS, NAMES).draw(400, np.random.default_rng(0))
    clear = (labels == NAMES.index("crown_thrust")) & (drawn[:, GRIP, 2] > 0)
    points = drawn[clear][:3] * np.float32([100, 100, 1])
    points[1] = mirror_keypoints(points[1])
    return points + np.float32([500, 300, 0])


def write(path: Path, points: np.ndarray, change: dict[str, str] | None = None, **texts: str) -> Path:
    """A table in the shortest form, `change` put into its second row, `texts` into further columns of all rows."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["image_path", "label", *texts, *KEYPOINT_COLUMNS])
        writer.writeheader()
        for i, row in enumerate(points):
            cells = dict(zip(KEYPOINT_COLUMNS, (f"{v:.5f}" for v in row.ravel()), strict=True))
            own = (change or {}) if i == 1 else {}
            writer.writerow({"image_path": f"{i}.jpg", "label": "0", **texts, **cells, **own})
    return path


def test_a_written_table_is_read_back_unchanged(tmp_path: Path) -> None:
    points = keypoints(3)
    sizes = np.array([[640, 480], [0, 0], [2, 3]])
    table = make_table(
        tmp_path, ["a.jpg", "b.jpg", ""], ["crown_thrust", "neutral", "my_own_pose"], sizes,
        points, ["x"] * 3, groups=["p1", "p1", "p2"], views=["front", "", "left"], hands=["left", "", "right"],
        splits=["train", "", "test"],
    )  # fmt: skip
    write_table(table, tmp_path / "table.csv", NAMES)
    again = read_any(tmp_path / "table.csv")
    for name in ("pictures", "labels", "groups", "views", "hands", "true_hands", "splits", "sizes"):
        assert getattr(again, name).tolist() == getattr(table, name).tolist(), name
    np.testing.assert_allclose(again.keypoints, points, rtol=2e-4)
    assert again.rows.tolist() == ["table.csv row 2", "table.csv row 3", "table.csv row 4"]


def test_a_table_in_another_folder_still_finds_its_pictures(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "t.csv", keypoints(2)))
    write_table(table, tmp_path / "deep" / "er" / "u.csv", NAMES)
    again = read_any(tmp_path / "deep" / "er" / "u.csv")
    assert again.pictures[1] == "../../1.jpg"
    assert again.picture_path(1).resolve() == table.picture_path(1).resolve()


def test_of_mediapipes_landmarks_the_nineteen_are_taken(tmp_path: Path) -> None:
    names = [f"kp{node}_{part}" for node in range(35) for part in ("x", "y", "conf")]
    points = [f"{value}" for node in range(35) for value in (100 + node, 200 + node, 0.9)]
    (tmp_path / "t.csv").write_text(",".join(["image_path", "label", *names]) + "\na.jpg,0," + ",".join(points) + "\n")
    table = read_any(tmp_path / "t.csv")
    assert table.landmarks.shape == (1, 35, 3)
    assert table.keypoints[0, [0, LEFT_WRIST, GRIP], 0].tolist() == [100, 115, 133]


def test_the_shortest_table_is_enough_and_numbers_are_places_in_the_class_file(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "t.csv", keypoints(2), {"label": "2"}))
    assert table.labels.tolist() == [NAMES[0], NAMES[2]]
    assert table.label_indices(NAMES).tolist() == [0, 2]
    assert table.groups.tolist() == table.splits.tolist() == ["", ""]
    assert read_any(write(tmp_path / "t.csv", keypoints(2)), ("mine",)).labels.tolist() == ["mine", "mine"]


def test_missing_is_confidence_zero_however_it_is_written(tmp_path: Path) -> None:
    empty = {f"kp{GRIP}_{part}": "" for part in ("x", "y", "conf")}
    nan = {"kp0_x": "nan", "kp0_y": "3", "kp0_conf": "0.5"}
    table = read_any(write(tmp_path / "t.csv", keypoints(2), {**empty, **nan, "kp1_conf": ""}))
    assert not table.keypoints[0, GRIP:].any()
    assert not table.keypoints[1, [0, GRIP]].any()
    assert table.keypoints[1, 1, 2] == 1.0  # put there by hand
    assert table.keypoints.dtype == np.float32 and np.isfinite(table.keypoints).all()


def test_a_point_outside_the_picture_keeps_its_place(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "t.csv", keypoints(2), {"kp18_x": "-20", "kp18_conf": "0"}))
    assert table.keypoints[1, 18, 0] == -20
    write_table(table, tmp_path / "u.csv", NAMES)
    assert read_any(tmp_path / "u.csv").keypoints[1, 18].tolist() == table.keypoints[1, 18].tolist()


def test_relative_coordinates_become_pixels_by_the_columns_or_by_the_picture(tmp_path: Path) -> None:
    points = keypoints(2, scale=1.0)
    wanted = points[1, 5, :2] * (640, 480)
    by_columns = read_any(write(tmp_path / "t.csv", points, width="640", height="480"))
    np.testing.assert_allclose(by_columns.keypoints[1, 5, :2], wanted, rtol=1e-3)
    cv2.imwrite(str(tmp_path / "1.jpg"), np.zeros((480, 640, 3), np.uint8))
    by_picture = read_any(write(tmp_path / "t.csv", points))
    np.testing.assert_allclose(by_picture.keypoints[1, 5, :2], wanted, rtol=1e-3)
    assert by_picture.sizes.tolist() == [[0, 0], [640, 480]]
    np.testing.assert_allclose(by_picture.keypoints[0], points[0], atol=1e-4)


def test_one_point_far_outside_or_rows_in_pixels_leave_relative_rows_what_they_are(tmp_path: Path) -> None:
    points = keypoints(3, scale=1.0)
    points[1, 18, 0], points[2, :, :2] = 1.7, points[2, :, :2] * (640, 480)
    table = read_any(write(tmp_path / "t.csv", points, width="640", height="480"))
    np.testing.assert_allclose(table.keypoints[:2, :17, :2], points[:2, :17, :2] * (640, 480), rtol=1e-3)
    np.testing.assert_allclose(table.keypoints[1, 18, 0], 1.7 * 640, rtol=1e-3)
    np.testing.assert_allclose(table.keypoints[2], points[2], rtol=1e-3)


def test_spaces_around_cells_do_not_count(tmp_path: Path) -> None:
    change = {"label_name": f" {NAMES[2]}", "label": " 2 ", "group": "Anna ", "split": "train ", "kp1_conf": " "}
    file = write(tmp_path / "t.csv", keypoints(3), change, label="0", label_name=NAMES[0], group="Anna", split="train")
    table = read_any(file)
    assert table.labels.tolist() == [NAMES[0], NAMES[2], NAMES[0]] and table.keypoints[1, 1, 2] == 1
    assert set(table.groups) == {"Anna"} and set(table.splits) == {"train"}


def test_the_hand_is_told_from_the_keypoints_where_the_table_is_silent(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "t.csv", people_with_the_second_left_handed()))
    assert table.left_handed().tolist() == [False, True, False]


def test_a_hand_that_is_named_counts_without_a_grip_as_a_remembered_one_in_serving(tmp_path: Path) -> None:
    points = people_with_the_second_left_handed()[[1, 0, 1]]
    points[0, GRIP:] = 0
    table = read_any(write(tmp_path / "t.csv", points, {"grip_hand": ""}, grip_hand="left"))
    assert table.left_handed().tolist() == [True, False, True]


def test_the_hand_is_told_from_the_keypoints_in_the_rows_that_name_none(tmp_path: Path) -> None:
    points = people_with_the_second_left_handed()
    table = read_any(write(tmp_path / "t.csv", points, {"grip_hand": ""}, grip_hand="right"))
    assert table.left_handed().tolist() == [False, True, False]
    assert table.as_held().hands.tolist() == ["right", "left", "right"]


def test_the_true_hand_overrules_the_one_that_was_seen_where_truth_is_asked_for(tmp_path: Path) -> None:
    table = read_any(write(tmp_path / "t.csv", keypoints(3), {"true_hand": "left"}, grip_hand="right", true_hand=""))
    assert table.as_held().left_handed().tolist() == [False, True, False]
    assert not table.left_handed().any(), "what detectors saw keeps their mistakes"


def test_a_line_that_was_cut_off_when_its_writer_was_killed_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\r\n1,2\r\n3,4", newline="")
    assert whole_lines(tmp_path / "t.csv") == [["a", "b"], ["1", "2"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kp3_x": "abc"}, r"t.csv row 3: kp3_x is 'abc'; write a number"),
        ({"kp3_x": "inf"}, r"t.csv row 3: kp3_x is 'inf'; write a number"),
        ({"kp3_conf": "2"}, r"t.csv row 3: kp3_conf is 2; confidences"),
        ({"label": "13"}, r"t.csv row 3: label is 13, and the class file has 0 to 12"),
        ({"width": "wide"}, r"t.csv row 3: width is 'wide'"),
        ({"grip_hand": "both"}, r"t.csv row 3: grip_hand is 'both'; allowed: left, right"),
        ({"split": "dev"}, r"t.csv row 3: split is 'dev'; allowed: train, val, test"),
    ],
)
def test_a_cell_that_makes_no_sense_is_named(change: dict[str, str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", keypoints(2), change, width="9", grip_hand="right", split="train")
    with pytest.raises(UserError, match=message):
        read_any(path)


def test_a_number_and_a_name_of_two_classes_contradict_each_other(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", keypoints(3), {"label": "3"}, label="0", label_name="crown_thrust")
    with pytest.raises(UserError, match=r"row 3: label 3 is crown_thrust, and in t.csv row 2 label 0 is crown_thrust"):
        read_any(file)
    file = write(tmp_path / "t.csv", keypoints(3), {"label_name": "my_pose"}, label="0", label_name="crown_thrust")
    with pytest.raises(UserError, match=r"row 3: label 0 is my_pose, and in t.csv row 2 label 0 is crown_thrust"):
        read_any(file)


def test_numbers_of_another_class_file_count_for_nothing_beside_names(tmp_path: Path) -> None:
    own = read_any(write(tmp_path / "own.csv", keypoints(3), label="3", label_name="my_own_pose"), NAMES)
    assert own.labels.tolist() == ["my_own_pose"] * 3


def test_a_class_that_the_class_file_does_not_have_is_named_with_its_row(tmp_path: Path) -> None:
    for label, message in (("my_pose", "class 'my_pose' is not in the class file"), ("", "the label is empty")):
        table = read_any(write(tmp_path / "t.csv", keypoints(2), {"label": label}))
        with pytest.raises(UserError, match=f"t.csv row 3: {message}"):
            table.label_indices(NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        (b"", "lacks the column image_path"),
        (b"image_path;label\n", "has semicolons between its columns"),
        (b"image_path\tlabel\n", "tabs between its columns, or a line `sep=` .*save it with commas"),
        (b"sep=,\nimage_path,label\n", "tabs between its columns, or a line `sep=` .*save it with commas"),
        (b"\xff\xfe\x00", "not a CSV file in UTF-8"),
        (",".join(["image_path", "label", *KEYPOINT_COLUMNS]).encode(), "has a head and no rows"),
        (
            ",".join(["image_path", "label", *KEYPOINT_COLUMNS]).encode() + b"\na.jpg,0,1",
            "row 2: 3 cells instead of 59",
        ),
    ],
)
def test_a_file_that_is_no_table_says_what_is_wrong(text: bytes | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(UserError, match=message):
        read_any(tmp_path / "t.csv")
