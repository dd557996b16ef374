"""Ultralytics' networks: what ultralytics itself would say, in the square around whom we follow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from looking import Runner, candidate, frames_of, standing_person, stick_at, write_card

from engine.errors import UserError
from stages.detect import DetectSettings
from stages.detectors import SAME_PERSON, BodyCandidate, Runtime, box_around, open_model, overlap
from stages.detectors.yolo import Yolo, decode, letterbox
from stages.sessions import TensorSpec


def test_letterboxed_places_come_back() -> None:
    canvas = np.zeros((256, 320, 3), np.uint8)
    fitted = letterbox(np.full((1080, 810, 3), 200, np.uint8), canvas)
    assert canvas[0, 160].tolist() == [200] * 3 and canvas[128, 0].tolist() == [114] * 3
    corner = np.array([fitted.left, fitted.top], float) + np.array([810, 1080]) * fitted.scale
    assert fitted.to_picture(corner) == pytest.approx([810, 1080])


def test_weaker_boxes_of_the_same_thing_are_suppressed() -> None:
    raw = np.zeros((4 + 1 + 6, 3), np.float32)
    raw[:5, 0], raw[:5, 1], raw[:5, 2] = (50, 50, 20, 20, 0.6), (51, 50, 20, 20, 0.9), (90, 50, 20, 20, 0.7)
    raw[5:, 1] = range(6)
    boxes, scores, points = decode(raw, 2, 0.25)
    assert scores.tolist() == pytest.approx([0.9, 0.7])
    assert boxes[0].tolist() == [41, 40, 61, 60]
    assert points[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="does not hold 17 points"):
        decode(raw, 17, 0.25)


def export_yolo(folder: Path, kind: str, points: int, **how: Any) -> None:
    """`model.onnx` of a small Ultralytics network of random weights that sees many things."""
    ultralytics, torch = pytest.importorskip("ultralytics"), pytest.importorskip("torch")
    from ultralytics.utils import YAML

    torch.manual_seed(1)
    configs = Path(ultralytics.__file__).parent / "cfg" / "models"
    config = YAML.load(next(configs.rglob(f"{kind}-pose.yaml"))) | {"scale": "n", "kpt_shape": [points, 3], "nc": 1}
    YAML.save(folder / f"{kind}n-pose.yaml", config)
    model = ultralytics.YOLO(str(folder / f"{kind}n-pose.yaml"), task="pose")
    with torch.no_grad():
        for module in model.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 1.5)
                module.weight.uniform_(0.5, 2)
                module.bias.normal_(0, 0.5)
        head = model.model.model[-1]
        for branch in [*head.cv3, *(getattr(head, "one2one_cv3", None) or [])]:
            branch[-1].weight.mul_(40)
            branch[-1].bias.fill_(-4.0)
    made = model.export(format="onnx", imgsz=(128, 160), opset=17, verbose=False, **how)
    Path(made).rename(folder / "model.onnx")


@pytest.mark.parametrize(
    ("kind", "points", "task", "how"),
    [
        ("yolo11", 19, "fused", {"nms": True, "conf": 0.25}),
        ("yolo26", 2, "stick", {}),
        ("yolo26", 17, "body", {"nms": False}),
    ],
    ids=["suppressed", "raw", "end-to-end"],
)
def test_yolo_gives_what_ultralytics_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, points: int, task: str, how: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    export_yolo(tmp_path, kind, points, **how)
    import ultralytics

    image = frames_of("sam2_juggle.mp4", every=200)[0]
    theirs = ultralytics.YOLO("model.onnx", task="pose").predict(
        image, imgsz=(128, 160), conf=0.25, iou=0.7, max_det=20, verbose=False
    )[0]
    card, network = open_model(
        write_card(tmp_path, task, f"{kind}n-pose", 0.25), Runtime("onnxruntime", 1), [task]
    )
    ours = Yolo("model", card, network)._instances(image)
    assert len(ours) == len(theirs.boxes) > 0
    assert [score for _, score, _ in ours] == pytest.approx(theirs.boxes.conf.tolist(), abs=1e-4)
    limits = (image.shape[1], image.shape[0])
    our_points = np.clip(np.array([found[..., :2] for _, _, found in ours]), 0, limits)
    their_points = np.clip(theirs.keypoints.xy.numpy(), 0, limits)
    assert np.abs(our_points - their_points).max() < 0.5


def test_a_fused_network_gives_body_and_stick_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export_yolo(tmp_path, "yolo11", 19, nms=True, conf=0.25)
    write_card(tmp_path, "fused", "yolo11n-pose", 0.25)
    run = Runner(DetectSettings(fused=str(tmp_path), backend="onnxruntime", threads=1, grip_within=5, longest_stick=5))
    packets = [run(image) for image in frames_of("sam2_juggle.mp4", every=60)]
    assert any(packet.person is not None and packet.stick is not None for packet in packets)
    assert list(run.detect.describe()) == ["fused"]


def test_a_network_of_two_points_finds_the_stick_in_the_whole_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_yolo(tmp_path, "yolo11", 2, nms=True, conf=0.25)
    write_card(tmp_path, "stick", "yolo11n-pose", 0.25)
    # What random weights see may be anywhere; without these limits it would be nobody's.
    limits = {"grip_within": 50.0, "longest_stick": 50.0}
    run = Runner(DetectSettings(stick=str(tmp_path), closer="", backend="onnxruntime", threads=1, **limits))
    sticks = []
    for image in frames_of("sam2_juggle.mp4", every=60):
        packet, bare = run(image), run.stick._stick.detect(image, np.zeros((17, 3)), (None,))
        if packet.person is not None:
            assert (packet.stick is None) == (not bare)
            assert packet.stick is None or packet.stick.grip in [tuple(c.points[0].tolist()) for c in bare]
            sticks.append(packet.stick)
    assert any(sticks)


class Middle(Yolo):
    """A stand-in for the network that sees somebody in the middle of its input, whatever that shows."""

    def __init__(self, points: int = 19) -> None:
        self._points = points
        self.seen: list[tuple[int, ...]] = []

    def _instances(self, image: np.ndarray) -> list[tuple[np.ndarray, float, np.ndarray]]:
        self.seen.append(image.shape[:2])
        size = np.array(image.shape[1::-1], float)
        points = np.full((self._points, 3), 0.9, np.float32)
        points[:, :2] = np.linspace(0.4 * size, 0.6 * size, self._points)
        return [(np.concatenate([0.3 * size, 0.7 * size]), 0.9, points)]


def test_whom_it_follows_is_looked_at_in_a_part_of_the_picture() -> None:
    image, network, person = np.zeros((720, 1280, 3), np.uint8), Middle(), candidate(standing_person(60, (900, 250)))
    (found,) = network.detect(image, person, "0", 0.0)
    assert network.seen[0][0] < 720 and network.seen[0][1] < 640
    centre = found.keypoints[8, :2]
    assert abs(centre[0] - 900) < 60 and abs(centre[1] - 310) < 60, "in pixels of the whole picture"
    assert found.box == box_around(found.keypoints, 1280, 720), "its own box may hold the stick"
    for ends, narrower in (((930, 300), (1000, 250)), True), (((930, 300), (np.nan, np.nan)), False):
        stick = stick_at(*ends)
        stick.points[np.isnan(stick.points[:, 0]), 2] = 0
        network.detect(image, BodyCandidate(person.keypoints, 0.9, person.box, stick), "0", 0.0)
        assert (network.seen[-1][1] < network.seen[0][1]) == narrower, "no search for a known tip"
    network.detect(image, None, "0", 0.0)
    assert network.seen[-1] == (720, 1280)


def test_after_a_larger_picture_a_smaller_one_is_searched_whole() -> None:
    run, network = Runner(DetectSettings(stick="", closer="", threads=1, backend="onnxruntime")), Middle(17)
    run.detect._body = network
    for shape in ((720, 1280), (200, 300)):
        assert run(np.zeros((*shape, 3), np.uint8)).person is not None
    assert network.seen == [(720, 1280), (200, 300)]


def test_boxes_come_back_too_and_somebody_else_in_the_part_ends_no_search() -> None:
    image, network, person = np.zeros((720, 1280, 3), np.uint8), Middle(17), candidate(standing_person(60, (900, 250)))
    (found,) = network.detect(image, person, "0", 0.0)
    assert len(network.seen) == 1 and overlap(found.box, person.box) > SAME_PERSON
    corner = BodyCandidate(person.keypoints, 0.9, (0.0, 0.0, 50.0, 50.0))
    network.detect(image, corner, "0", 0.0)
    assert network.seen[-1] == (720, 1280)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float16", (1, 3, 128, 160)), ("float32", (1, 128, 160, 3)), ("float32", (1, 3, 128))]
)
def test_what_takes_other_pictures_than_it_would_get_is_refused(dtype: str, shape: tuple[int, ...]) -> None:
    card: Any = SimpleNamespace(task="body", threshold=0.25)
    network: Any = SimpleNamespace(inputs=[TensorSpec("images", np.dtype(dtype), shape)])
    with pytest.raises(UserError, match="not float32"):
        Yolo("mine", card, network)
