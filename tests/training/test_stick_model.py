"""The shipped stick detector on real pixels: the demo clip's stick is found, and none on people without one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch", reason="needs the training extra: torch")

import torch

from stages.cards import load_card, sha256_of
from stages.classes import models_folder
from stages.runtime import Network, load_network
from stages.stick_crop import stick_crop, stick_inputs
from training import app
from training.stick.clips import body_detector, clip_frames, frames_with_person
from training.stick.evaluate import Answer, StickModel, is_somebody_else
from training.stick.export import KINDS, load_weights
from training.stick.network import Served
from training.weights import weights_file

HERE = Path(__file__).parent
CARD, FILE = load_card("stick_heatmap")
assert CARD.threshold is not None
THRESHOLD = CARD.threshold


@pytest.fixture(scope="module")
def model() -> StickModel:
    return StickModel("stick_heatmap", threads=1)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network(FILE, "onnxruntime", 1)


@pytest.fixture(scope="module")
def held_poses(model: StickModel) -> list[tuple[Answer, np.ndarray]]:
    """An answer and the true ends (2, 2) for one frame of every held pose of the demo clip."""
    with (HERE / "demo_ends.csv").open(newline="") as stream:
        truth = {int(row["frame"]): row for row in csv.DictReader(stream)}
    finder, capture = body_detector(), cv2.VideoCapture(str(models_folder() / "demo.mp4"))
    answers = []
    for index in range(max(truth) + 1):
        assert capture.grab()
        if index in truth:
            frame = capture.retrieve()[1]
            body = finder.detect(frame, None, "", 0.0)[0]
            ends = [[float(truth[index][f"{end}_{axis}"]) for axis in ("x", "y")] for end in ("grip", "tip")]
            answers.append((model(frame, body.keypoints), np.array(ends)))
    return answers


def errors_in_stick_lengths(answer: Answer, ends: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(ends[1] - ends[0])
    return np.asarray(np.linalg.norm(answer.points[:, :2] - ends, axis=1) / length)


def test_the_card_names_the_file_that_is_there() -> None:
    assert sha256_of(FILE) == CARD.sha256
    assert CARD.task == "stick"


def test_the_card_describes_the_input_of_the_network(network: Network) -> None:
    for spec, described in zip(network.inputs, CARD.inputs, strict=True):
        assert (spec.name, str(spec.dtype), spec.shape[1:]) == (described.name, described.dtype, described.shape[1:])
    assert tuple(output.name for output in network.outputs) == CARD.outputs


def test_the_stick_is_reported_in_nearly_every_held_pose(held_poses: list[tuple[Answer, np.ndarray]]) -> None:
    assert np.mean([answer.presence >= THRESHOLD for answer, _ in held_poses]) >= 0.75


def test_grip_and_tip_are_where_they_were_drawn(held_poses: list[tuple[Answer, np.ndarray]]) -> None:
    errors = np.array([errors_in_stick_lengths(answer, ends) for answer, ends in held_poses])
    assert (np.median(errors, axis=0) < 0.1).all()


def test_the_ends_are_rarely_taken_for_each_other(held_poses: list[tuple[Answer, np.ndarray]]) -> None:
    swapped = [
        np.linalg.norm(answer.points[1, :2] - ends[0]) < np.linalg.norm(answer.points[1, :2] - ends[1])
        for answer, ends in held_poses
    ]
    assert np.mean(swapped) <= 0.2


def test_a_clip_is_looked_at_in_its_own_time() -> None:
    times_s = [time_s for time_s, _ in clip_frames(HERE.parent / "clips" / "tfjs_pose_1.mp4", step=30)]
    assert len(times_s) > 1 and np.allclose(np.diff(times_s), times_s[1]) and 0.9 < times_s[1] < 1.3


@pytest.mark.parametrize("clip", ["sam2_juggle", "tfjs_pose_1"])
def test_someone_without_a_stick_is_given_none(model: StickModel, clip: str) -> None:
    frames = frames_with_person(HERE.parent / "clips" / f"{clip}.mp4", body_detector(), step=12)
    reported = [model(frame, points).presence >= THRESHOLD for frame, points in frames if points is not None]
    assert len(reported) >= 8
    assert np.mean(reported) <= 0.15


def test_who_is_small_in_the_picture_is_judged_by_the_look_that_shows_most(model: StickModel, network: Network) -> None:
    finder, capture = body_detector(), cv2.VideoCapture(str(models_folder() / "demo.mp4"))
    whole, every = [], []
    with (HERE / "demo_ends.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(row["frame"]))
            frame = cv2.resize(capture.read()[1], None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
            body = finder.detect(frame, None, "", 0.0)[0].keypoints
            crop = stick_crop(body, frame.shape[1], frame.shape[0])
            whole.append(float(network(*stick_inputs(frame, body, crop, network.inputs[0].shape[1]))[1][0]))
            every.append(model(frame, body).presence)
    assert all(most >= first for most, first in zip(every, whole, strict=True))
    assert np.mean(every) > np.mean(whole)


def test_several_crops_at_once_give_the_same_answers_as_one_by_one(network: Network) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (3, *network.inputs[0].shape[1:]), np.uint8)
    bodies = np.random.default_rng(1).random((3, 17, 3)).astype(np.float32)
    together = network(crops, bodies)
    for i in range(3):
        for batch, single in zip(together, network(crops[i : i + 1], bodies[i : i + 1]), strict=True):
            assert np.allclose(batch[i], single[0], atol=1e-3)


def test_whose_torso_is_unknown_is_nobody_else() -> None:
    truth = np.full((19, 3), np.nan)
    truth[0] = 100, 100, 1
    assert not is_somebody_else(truth[:17] + 1, truth)


def test_a_table_is_judged_where_the_labelled_person_was_looked_at(tmp_path: Path) -> None:
    finder, capture = body_detector(), cv2.VideoCapture(str(models_folder() / "demo.mp4"))
    head = [f"kp{k}_{axis}" for k in range(19) for axis in ("x", "y", "conf")]
    rows = [["image_path", "label", "label_name", *head]]
    with (HERE / "demo_ends.csv").open(newline="") as stream:
        truth = list(csv.DictReader(stream))[1:4]
    for shift_px, ends in zip((0, 0, 300), truth, strict=True):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(ends["frame"]))
        frame = capture.read()[1]
        keypoints = finder.detect(frame, None, "", 0.0)[0].keypoints.copy()
        keypoints[:, 0] += shift_px  # as if the label were of somebody beside
        stick = [[float(ends[f"{end}_x"]) + shift_px, float(ends[f"{end}_y"]), 1.0] for end in ("grip", "tip")]
        cv2.imwrite(str(tmp_path / f"{ends['frame']}.jpg"), frame)
        points = [*keypoints.tolist(), *stick]
        rows.append([f"{ends['frame']}.jpg", "0", "crown_thrust", *(str(value) for point in points for value in point)])
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    command = ["detector", "--judge", "--model", "stick_heatmap", "--table", str(tmp_path / "table.csv")]
    assert app.main([*command, "--json", str(tmp_path / "new" / "judged.json")]) == 0
    figures = json.loads((tmp_path / "new" / "judged.json").read_text())["views"]["all"]
    assert figures["pictures_with_stick"] == 2 and figures["grip_found_rate"] == 1
    assert app.main([*command, "--threshold", "1", "--json", str(tmp_path / "strict.json")]) == 0
    assert json.loads((tmp_path / "strict.json").read_text())["views"]["all"]["reported_rate"] == 0


def test_the_shipped_weights_are_those_of_the_shipped_graph() -> None:
    """So that others may begin with them: `arnis-train detector --init stick_heatmap`."""
    served = Served(load_weights(weights_file("stick_heatmap"))).eval()
    image, body = KINDS["heatmap"].form.example(4)
    with torch.no_grad():
        points, presence = served(image, body)
    session = onnxruntime.InferenceSession(str(FILE), providers=["CPUExecutionProvider"])
    answers = session.run(None, {"image": image.numpy(), "body": body.numpy()})
    assert np.abs(answers[0] - points.numpy()).max() < 1e-4 and np.abs(answers[1] - presence.numpy()).max() < 1e-4


def test_sticks_that_are_drawn_into_a_held_out_clip_are_judged_where_they_were_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = ["detector", "--judge", "--model", "stick_heatmap"]
    clips = ["--clips", str(HERE.parent / "clips"), "--limit", "60"]
    assert app.main([*judge, *clips, "--json", str(tmp_path / "judged.json")]) == 0
    judged = json.loads((tmp_path / "judged.json").read_text())
    assert set(judged["drawn_by_clip"]) == {"sam2_juggle"}, "training has seen the others"
    figures = judged["drawn_into_clips"]
    assert figures["pictures_with_stick"] >= 20 and figures["found_of_reported"] > 0.6
    assert app.main(judge) == 2
    assert "--judge needs --table" in capsys.readouterr().err
