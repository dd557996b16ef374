"""The synthetic people: labels that match the pictures, poses that match the statistics, runs that can be resumed."""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from engine.errors import UserError
from stages import skeleton as sk
from stages.classes import ClassFile, load_classes

pytest.importorskip("anny", reason="needs the training extra: anny")
pytest.importorskip("moderngl", reason="needs the training extra: moderngl")

from training.data.readers import read_any
from training.data.table import make_table, write_table
from training.synth import command, compare, picture, pose, scene, skeletons, solve, write
from training.synth.body import BRACE_FROM_BUTT, Wish, pose_body
from training.synth.camera import orbit
from training.synth.rig import Rest, finger_rotations, forward, load_rig, make_rest
from training.synth.skeletons import VIEWS, class_skeletons, statistics
from training.synth.write import drawable_classes, labels_of_person

PEOPLE, PICTURES = 2, 3


@pytest.fixture(scope="session")
def rest() -> Rest:
    """The average body with a 71 cm stick."""
    return make_rest({}, 0.61, 0.10)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set, drawn through the command line's own function."""
    out = tmp_path_factory.mktemp("synth")
    try:
        command.run(
            arguments("--out", str(out), "--people", str(PEOPLE), "--per-person", str(PICTURES), "--processes", "1")
        )
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    return out


def test_a_process_that_dies_costs_nobody(data: Path, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    words = ["--out", str(tmp_path), "--people", "5", "--per-person", "1", "--processes", "2"]
    run = subprocess.Popen([sys.executable, "-m", "training.app", "synth", *words], stderr=subprocess.PIPE, text=True)
    table, parent = tmp_path / "table.csv", psutil.Process(run.pid)
    while run.poll() is None and not (table.exists() and len(table.read_text().splitlines()) > 1):
        time.sleep(0.05)
    renderers = [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]
    renderers[0].kill()
    _, said = run.communicate()
    assert run.returncode == 0 and "go on with new ones" in said, said
    groups = [row["group"] for row in rows_of(table)]
    assert groups == [f"s1p{person:04d}" for person in range(5)], "in the same order whoever was drawn first"


@pytest.mark.parametrize("left", ["", "image_path,lab", "head and a cut row"])
def test_a_run_killed_at_its_first_lines_is_gone_on_with(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(person: int) -> list[str]:
        cells = dict.fromkeys(write.TABLE_HEAD, "0")
        group = write.group_of(1, person)
        return list((cells | {"image_path": f"images/{group}_00.jpg", "group": group, "split": "train"}).values())

    monkeypatch.setattr(write, "_drawn", lambda order, people: ((person, [row(person)]) for person in people))
    cut = ",".join(write.TABLE_HEAD) + "\r\n" + ",".join(row(0))[:-1]
    (tmp_path / "table.csv").write_text(left if left != "head and a cut row" else cut, newline="")
    assert write.write_dataset(write.Order(tmp_path, 2, 1, 1, 1, None)) == 2
    assert [found["group"] for found in rows_of(tmp_path / "table.csv")] == ["s1p0000", "s1p0001"]
    assert len((tmp_path / "train.txt").read_text().split()) == 2


def test_a_left_hander_is_labelled_where_the_mirrored_picture_shows_each_point(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x is a distance from the left edge, so the middle of a picture is its own mirror image."""
    plan = picture.plan_picture(np.random.default_rng(0), rest, "crown_thrust", load_classes(), (640, 480))
    blank = np.zeros((480, 640, 3), np.uint8), np.full((480, 640), np.inf)
    monkeypatch.setattr(picture, "draw_scene", lambda *_: blank)

    def shot(left_handed: bool) -> picture.Shot:
        performer = picture.Performer(rest, None, None, left_handed)  # type: ignore[arg-type]
        return picture.take_picture(np.random.default_rng(1), None, performer, plan, [], [])  # type: ignore[arg-type]

    right, left = shot(False).keypoints, shot(True).keypoints[sk.MIRROR]
    np.testing.assert_allclose(left[:, 0], 640 - right[:, 0])


def test_a_data_set_is_not_gone_on_with_in_another_way(data: Path) -> None:
    words = ["--out", str(data), "--people", "3", "--per-person", str(PICTURES), "--processes", "1"]
    with pytest.raises(UserError, match="was begun with spread 1.0; say the same, or choose another --out"):
        command.run(arguments(*words, "--spread", "0.5"))
    assert len(rows_of(data / "table.csv")) == PEOPLE * PICTURES


def test_a_table_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    words = ["poses", "--out", str(tmp_path), "--people", "1", "--processes", "1"]
    assert command.run(arguments(*words)) == 0
    own, order = tmp_path / "table.csv", tmp_path / "order.json"
    head, row, *_ = own.read_text().splitlines()
    for table in (
        b"image_path,label_name\nmine.jpg,neutral\n", f"{head}\n{row.replace('s1p0000', 'anna')}\n".encode(),
        "Bild;Name\nJosé.jpg;neutral\n".encode("latin-1"),
    ):  # fmt: skip
        own.write_bytes(table)
        for kept in (True, False):
            if not kept:
                order.rename(tmp_path / "away.json")
            with pytest.raises(UserError, match=r"holds a table\.csv that `synth` did not write with this seed"):
                command.run(arguments(*words))
            assert own.read_bytes() == table
            if not kept:
                (tmp_path / "away.json").rename(order)


def test_a_cut_off_note_of_what_was_begun_is_named(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"seed": 1,')
    with pytest.raises(UserError, match=r"order\.json is damaged .*delete this file alone"):
        write.write_dataset(write.Order(tmp_path, 1, 1, 1, 1, None))


def test_every_picture_has_a_row_and_a_label_of_the_right_shape(data: Path) -> None:
    rows = rows_of(data / "table.csv")
    assert len(rows) == PEOPLE * PICTURES
    for row in rows:
        picture = cv2.imread(str(data / row["image_path"]))
        assert picture.shape[:2] == (int(row["height"]), int(row["width"]))
        assert load_classes().names[int(row["label"])] == row["label_name"]
        label = (data / "labels" / Path(row["image_path"]).with_suffix(".txt").name).read_text().split()
        assert len(label) == 5 + 3 * sk.NODE_COUNT
        assert all(0 <= float(v) <= 1 for v in label[1:5])


def test_pictures_have_the_size_that_is_asked_for(data: Path, tmp_path: Path) -> None:
    size = arguments(
        "--out", str(tmp_path), "--people", "1", "--per-person", "1", "--processes", "1", "--size", "800x450"
    )
    command.run(size)
    (row,) = rows_of(tmp_path / "table.csv")
    assert cv2.imread(str(tmp_path / row["image_path"])).shape[:2] == (450, 800)
    with pytest.raises(SystemExit):
        arguments("--size", "720p")


def test_a_person_never_crosses_splits(data: Path) -> None:
    by_group: dict[str, set[str]] = {}
    for row in rows_of(data / "table.csv"):
        by_group.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in by_group.values())


def test_a_second_run_draws_only_what_is_missing_and_draws_it_alike(data: Path) -> None:
    table = data / "table.csv"
    before = rows_of(table)
    dropped = before[-1]["group"]
    lost = data / before[-1]["image_path"]
    old = lost.read_bytes()
    kept = [r for r in before if r["group"] != dropped]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, before[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    lost.unlink()
    command.run(
        arguments("--out", str(data), "--people", str(PEOPLE), "--per-person", str(PICTURES), "--processes", "1")
    )
    assert sorted(map(str, rows_of(table))) == sorted(map(str, before))
    assert lost.read_bytes() == old


def test_the_stick_starts_in_the_fist_and_keeps_its_length(rest: Rest) -> None:
    for name in class_skeletons():
        posed = pose_body(rest, pose.scaled_skeleton(name, rest), Wish())
        grip, tip, wrist = (posed.keypoints[k] for k in (sk.GRIP, sk.TIP, sk.RIGHT_WRIST))
        assert np.linalg.norm(tip - grip) == pytest.approx(0.61, abs=1e-6)
        assert np.linalg.norm(grip - wrist) < 0.13


def test_the_lowest_point_of_every_pose_stands_on_the_floor(rest: Rest) -> None:
    for name in class_skeletons():
        posed = pose_body(rest, pose.scaled_skeleton(name, rest), Wish())
        assert posed.vertices[:, 2].min() == pytest.approx(0.0, abs=1e-6)
        assert posed.keypoints[[sk.LEFT_ANKLE, sk.RIGHT_ANKLE], 2].max() < 0.2


@pytest.mark.parametrize("view", VIEWS)
def test_drawn_poses_lie_near_the_statistics(view: str, rest: Rest) -> None:
    rng = np.random.default_rng(0)
    for name in ("crown_thrust", "right_eye_thrust", "left_knee_block"):
        camera = pose.view_camera(name, view, 2.8, 1.4, 50.0, 0.0, (640, 640))
        draws = []
        for _ in range(12):
            points = pose.fit_sample(rng, name, view, rest, camera)
            posed = pose_body(rest, points, Wish())
            draws.append(solve.to_torso_units(camera.project(posed.keypoints))[: sk.BODY_COUNT])
        wanted = np.array(statistics()[name][view]["body_mean"])
        assert np.linalg.norm(np.mean(draws, axis=0) - wanted, axis=1).mean() < 0.12


@pytest.mark.parametrize("name", sorted(pose.PALMS))
def test_the_palm_looks_where_the_class_wants_it(name: str, rest: Rest) -> None:
    rng = np.random.default_rng(3)
    palm = pose.palm_of(name)
    assert palm is not None
    errors = []
    for view in VIEWS:
        camera = pose.view_camera(name, view, 2.8, 1.4, 50.0, 0.0, (640, 640))
        for _ in range(3):
            points = pose.fit_for_palm(rng, name, view, rest, camera)
            errors.append(np.degrees(np.arccos(np.clip(pose_body(rest, points, Wish(palm=palm)).palm @ palm, -1, 1))))
    assert np.median(errors) < 45
    assert max(errors) < 100


def test_the_palm_is_the_side_to_which_the_fingers_close(rest: Rest) -> None:
    rig = load_rig()
    for side, fist in rest.fists.items():
        finger = rig.index(f"finger3-3.{side}")
        _, places = forward(rest.joints, rig, finger_rotations(rest.joints, rig, side, 1.0), rest.joints[0])
        assert (places[finger] - rest.joints[finger]) @ fist.palm > 0.01


@pytest.mark.parametrize("curl", [0.08, 1.0])
def test_a_bracing_hand_lies_on_the_stick(curl: float, rest: Rest) -> None:
    rng = np.random.default_rng(1)
    points = pose.braced(rng, pose.scaled_skeleton("left_elbow_block", rest), rest, None)
    assert points is not None
    posed = pose_body(rest, points, Wish(free_curl=curl, braced=True))
    along = posed.keypoints[sk.TIP] - posed.butt
    wrist = posed.keypoints[sk.LEFT_WRIST] - posed.butt
    place = float(wrist @ along / (along @ along))
    assert np.linalg.norm(wrist - place * along) < 0.13
    assert place == pytest.approx(BRACE_FROM_BUTT, abs=0.15)


def test_a_bent_lens_moves_keypoints_with_the_picture() -> None:
    for bend in (-0.06, 0.03):
        picture = np.zeros((480, 640, 3), np.uint8)
        places = np.array([[100.5, 60.5], [320.5, 400.5], [600.5, 300.5]])
        for x, y in places.astype(int):
            cv2.circle(picture, (int(x), int(y)), 5, (255, 255, 255), -1)
        bent = scene.bend_picture(picture, bend)[:, :, 0].astype(float)
        for x, y in scene.bend_points(places, bend, 640, 480):
            rows, columns = np.mgrid[int(y) - 9 : int(y) + 10, int(x) - 9 : int(x) + 10]
            part = bent[int(y) - 9 : int(y) + 10, int(x) - 9 : int(x) + 10]
            assert (part * (columns + 0.5)).sum() / part.sum() == pytest.approx(x, abs=0.3)
            assert (part * (rows + 0.5)).sum() / part.sum() == pytest.approx(y, abs=0.3)


def test_what_is_no_pose_is_told_by_its_kind_whatever_its_name() -> None:
    shipped = load_classes()
    renamed = ClassFile(classes=tuple(
        msgspec.structs.replace(c, name="anything_else" if c.kind == "neutral" else c.name) for c in shipped.classes
    ))  # fmt: skip
    labels = labels_of_person(np.random.default_rng(1), 40, renamed)
    assert [name.replace("anything_else", "neutral") for name in labels] == labels_of_person(
        np.random.default_rng(1), 40, shipped
    )
    rest = picture.random_rest(np.random.default_rng(0))
    for name, classes in (("neutral", shipped), ("anything_else", renamed)):
        plan = picture.plan_picture(np.random.default_rng(4), rest, name, classes, (640, 640))
        assert plan.label_name == name
    none = ClassFile(classes=tuple(c for c in shipped.classes if c.kind != "neutral"))
    assert set(labels_of_person(np.random.default_rng(1), 40, none)) <= set(none.names)


def test_poses_that_nothing_is_known_of_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ClassFile(classes=tuple(msgspec.structs.replace(c, name=f"my_{c.name}") for c in load_classes().classes))
    monkeypatch.setattr("training.synth.write.load_classes", lambda: own)
    with pytest.raises(UserError, match="my_crown_thrust"):
        drawable_classes()


def test_a_table_to_compare_has_left_handers_mirrored(tmp_path: Path) -> None:
    keypoints = np.random.default_rng(0).uniform(50, 400, (2, sk.NODE_COUNT, 3)).astype(np.float32)
    keypoints[..., 2] = 1
    keypoints[0, sk.GRIP :] = 0
    table = make_table(tmp_path, ["a.jpg", "b.jpg"], ["crown_thrust"] * 2, np.full((2, 2), 640), keypoints, ["", ""],
                       views=["left", "left"], hands=["right", "left"])  # fmt: skip
    write_table(table, tmp_path / "table.csv", load_classes().names)
    first, second = compare.read_table(tmp_path)
    assert (first[1], second[1]) == ("left", "right")
    assert np.isnan(first[2][sk.GRIP :]).all() and np.isfinite(second[2]).all()
    np.testing.assert_allclose(second[2][sk.LEFT_WRIST, 0], -keypoints[1, sk.RIGHT_WRIST, 0], atol=0.1)
    unknown = ("somersault", "left", first[2])
    assert [(row.view, row.missed) for row in compare.compare([first, second, unknown])] == [("left", 1), ("right", 0)]


def test_poses_can_be_compared_without_drawing_them() -> None:
    rows = compare.compare(compare.planned_samples(1, 6, seed=1))
    assert rows
    assert all(row.body_mean < 0.6 for row in rows)


def test_planned_poses_are_a_table_of_whole_people_by_seed_and_gone_on_with(tmp_path: Path) -> None:
    one, two = (["poses", "--out", str(tmp_path / name), "--per-person", "4"] for name in ("one", "two"))
    assert command.run(arguments(*one, "--people", "3", "--processes", "1")) == 0
    assert command.run(arguments(*two, "--people", "2", "--processes", "2")) == 0
    file = tmp_path / "two" / "table.csv"
    file.write_text(file.read_text()[:-300])  # as if killed while it wrote
    assert command.run(arguments(*two, "--people", "3", "--processes", "2")) == 0
    assert file.read_text() == (tmp_path / "one" / "table.csv").read_text()
    table = read_any(file)
    assert len(table) == 12 and set(table.groups) == {"s1p0000", "s1p0001", "s1p0002"}
    assert (table.keypoints[:, : sk.BODY_COUNT, 2] == 1).all() and (table.keypoints[:, sk.TIP, 2] == 1).mean() > 0.7
    assert set(table.hands) == {"right"} and not table.pictures.any() and not table.splits.any()
    heights = np.ptp(table.keypoints[:, :17, 1], axis=1)
    assert (heights > 150).all() and (heights < 640).all(), "people who fill a picture, in pixels"
    with pytest.raises(UserError, match="was begun with"):
        command.run(arguments(*one, "--people", "3", "--spread", "0.5"))
    with pytest.raises(UserError, match="holds planned poses; choose another --out"):
        command.run(arguments("pictures", *one[1:], "--people", "3"))
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["order.json", "table.csv"]
    with pytest.raises(UserError, match="planned and not drawn"):
        command.run(arguments(*one, "--people", "3", "--size", "640x480"))
    for option, said in (("--truth", "--truth is for `synth demo`"), ("--data", "--data is for `synth compare`")):
        with pytest.raises(UserError, match=said):
            command.run(arguments(*one, option, str(tmp_path)))
    (tmp_path / "one" / "order.json").write_text('{"seed": 1,')
    with pytest.raises(UserError, match="delete this file alone"):
        command.run(arguments(*one, "--people", "3"))
    (tmp_path / "one" / "order.json").unlink()
    assert command.run(arguments(*one, "--people", "4", "--processes", "1")) == 0
    assert len(read_any(tmp_path / "one" / "table.csv")) == 16


@pytest.mark.parametrize("kind", sorted(pose.PICK_UPS))
def test_a_pick_up_pose_keeps_the_body_whole(kind: str, rest: Rest) -> None:
    points = pose.neutral_pose(np.random.default_rng(2), kind, rest, ())
    assert np.abs(solve.measure(points) - rest.lengths.pairs).max() < 0.12


def test_the_left_view_shows_a_performer_who_faces_image_left(rest: Rest) -> None:
    points = pose.scaled_skeleton("crown_thrust", rest)
    for view, sign in (("left", -1), ("right", 1)):
        pixels = pose.view_camera("crown_thrust", view, 2.8, 1.4, 50.0, 0.0, (640, 640)).project(points)
        assert sign * (pixels[sk.TIP, 0] - pixels[sk.LEFT_HIP, 0]) > 0


def test_a_camera_from_the_front_shows_the_left_hand_on_the_right_of_the_picture(rest: Rest) -> None:
    pixels = orbit(0, 3, 1.3).project(rest.keypoints + [0, 0, rest.lengths.hip_m])
    assert pixels[sk.LEFT_WRIST, 0] > pixels[sk.RIGHT_WRIST, 0]


def test_arguments_that_cannot_work_are_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out"):
        command.run(arguments())
    with pytest.raises(UserError, match="backgrounds"):
        command.run(arguments("--out", str(tmp_path), "--backgrounds", str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no photograph"):
        command.run(arguments("--out", str(tmp_path / "out"), "--backgrounds", str(tmp_path / "empty")))
    assert not (tmp_path / "out").exists(), "the next try may leave it out"
    with pytest.raises(UserError, match="table.csv"):
        command.run(arguments("compare", "--data", str(tmp_path)))
    with pytest.raises(UserError, match=r"must end in .mp4 or .mkv"):
        command.run(arguments("demo", "--out", str(tmp_path / "demo")))


def test_skeletons_are_written_where_they_are_told_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = (skeletons.HERE / "class_skeletons.json").read_bytes()
    monkeypatch.setattr(skeletons, "fit_all", lambda: {"crown_thrust": {}})
    for out in (["--out", str(tmp_path / "nowhere" / "s.json")], []):
        with pytest.raises(UserError, match="--out"):
            command.run(arguments("skeletons", *out))
    command.run(arguments("skeletons", "--out", str(tmp_path / "s.json")))
    assert "crown_thrust" in (tmp_path / "s.json").read_text()
    assert (skeletons.HERE / "class_skeletons.json").read_bytes() == shipped
