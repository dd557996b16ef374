"""The person and the stick are found, followed, and refused where they cannot be."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from engine.errors import UserError
from engine.frames import OwnedFrames
from engine.stage import Context
from stages.cards import sha256_of
from stages.detect import (
    Detect,
    DetectSettings,
    DetectStick,
    HandVote,
    StickChoice,
    choose_person,
    is_plausible,
    wrist_distances,
)
from stages.detectors import BodyCandidate, Runtime, StickCandidate, box_around, mark_missing, open_model, overlap
from stages.detectors.square import parts_of_frame, square_around, whole_frame
from stages.detectors.yolo import Yolo, decode, letterbox
from stages.packets import ArnisPacket, GateDecision, Person, Stick
from stages.skeleton import LEFT_ANKLE, LEFT_HIP, LEFT_SHOULDER, LEFT_WRIST, NOSE, RIGHT_SHOULDER, RIGHT_WRIST

CLIPS = Path(__file__).parent.parent / "clips"
BODY_ONLY = DetectSettings(stick="", threads=1, backend="onnxruntime")
MISSING = (float("nan"), float("nan"), 0.0)


def frames_of(clip: str, every: int = 1) -> list[np.ndarray]:
    """Frames of a clip, uint8 BGR."""
    with av.open(str(CLIPS / clip)) as container:
        return [f.to_ndarray(format="bgr24") for i, f in enumerate(container.decode(video=0)) if i % every == 0]


class Runner:
    """Feeds pictures to the stage as the engine does."""

    def __init__(self, settings: DetectSettings) -> None:
        self._frames = OwnedFrames()
        self._sequence = 0
        self.detect, self.stick = Detect(settings), DetectStick(settings)
        for stage in (self.detect, self.stick):
            stage.open(
                Context(worker="detect", streams=["0"], frames=self._frames, request_stop=lambda: None, health=dict)
            )

    def __call__(
        self, image: np.ndarray, pts: float | None = None, stream: str = "0", gate: GateDecision | None = None
    ) -> ArnisPacket:
        self._sequence += 1
        self._frames.begin(image.shape[0], image.shape[1], busy=())[:] = image
        packet = ArnisPacket(
            stream=stream,
            sequence=self._sequence,
            pts=self._sequence / 30 if pts is None else pts,
            captured_at_ns=0,
            frame=self._frames.commit(self._sequence),
            gate=gate,
        )
        return self.stick.process(self.detect.process(packet))


def standing_person(scale: float = 100, at: tuple[float, float] = (300, 200)) -> np.ndarray:
    """Keypoints (17, 3) of somebody facing the camera, arms hanging; the torso is one `scale` long."""
    x = [0, 0.1, -0.1, 0.2, -0.2, 0.4, -0.4, 0.5, -0.5, 0.55, -0.55, 0.25, -0.25, 0.25, -0.25, 0.25, -0.25]
    y = [-0.4, -0.5, -0.5, -0.45, -0.45, 0, 0, 0.5, 0.5, 0.9, 0.9, 1, 1, 1.8, 1.8, 2.6, 2.6]
    points = np.ones((17, 3), np.float32)
    points[:, :2] = np.stack([x, y], axis=1) * scale + at
    return points


def candidate(keypoints: np.ndarray, score: float = 0.9) -> BodyCandidate:
    return BodyCandidate(keypoints, score, box_around(keypoints, 2000, 2000))


def stick_at(grip: tuple[float, float], tip: tuple[float, float]) -> StickCandidate:
    return StickCandidate(np.array([(*grip, 0.9), (*tip, 0.9)], np.float32), 0.9)


# --- the person, with the shipped network ---------------------------------------------------------------------------


@pytest.mark.parametrize("clip", ["sam2_juggle.mp4", "pose2sim_single_cam01.mp4", "tfjs_pose_1.mp4"])
def test_a_person_is_found_in_nearly_every_frame_and_stays_the_same(clip: str) -> None:
    run = Runner(BODY_ONLY)
    people = [run(image).person for image in frames_of(clip, every=3)]
    found = [person for person in people if person is not None]
    assert len(found) >= 0.95 * len(people)
    assert {person.track for person in found} == {1}


def test_the_keypoints_lie_where_the_body_is() -> None:
    person = Runner(BODY_ONLY)(frames_of("sam2_juggle.mp4", every=100)[0]).person
    assert person is not None
    assert person.keypoints.shape == (17, 3) and person.keypoints.dtype == np.float32
    x, y, confidence = person.keypoints.T
    assert y[NOSE] < y[LEFT_SHOULDER] < y[LEFT_HIP] < y[LEFT_ANKLE]
    assert x[LEFT_SHOULDER] > x[RIGHT_SHOULDER], "he faces the camera"
    assert confidence.mean() > 0.6
    x0, y0, x1, y1 = person.box
    assert (x >= x0).all() and (x <= x1).all() and (y >= y0).all() and (y <= y1).all()


@pytest.mark.parametrize("kind", ["grey", "noise", "garden", "gradient"])
def test_nobody_is_seen_in_an_empty_picture(kind: str) -> None:
    rng = np.random.default_rng(0)
    garden = frames_of("sam2_juggle.mp4", every=100)[0][:, :400]
    image = {
        "grey": np.full((720, 1280, 3), 128, np.uint8),
        "noise": rng.integers(0, 255, (720, 1280, 3), dtype=np.uint8),
        "garden": cv2.resize(np.hstack([garden, garden[:, ::-1], garden]), (1280, 720)),
        "gradient": np.repeat(np.linspace(0, 255, 1280, dtype=np.uint8)[None, :, None], 720, axis=0).repeat(3, axis=2),
    }[kind]
    run = Runner(BODY_ONLY)
    assert [run(image).person for _ in range(6)] == [None] * 6


def test_somebody_who_was_away_for_long_is_a_new_track_but_not_after_a_short_while() -> None:
    image, empty = frames_of("sam2_juggle.mp4", every=200)[0], np.full((720, 1280, 3), 128, np.uint8)
    run = Runner(BODY_ONLY)
    tracks = []
    for pts, picture in ((0.0, image), (0.1, empty), (0.3, image), (0.4, empty), (2.0, empty), (2.1, image)):
        person = run(picture, pts).person
        tracks.append(person.track if person else None)
    assert tracks == [1, None, 1, None, None, 2]


def test_streams_are_followed_separately() -> None:
    image, empty = frames_of("sam2_juggle.mp4", every=200)[0], np.full((720, 1280, 3), 128, np.uint8)
    run = Runner(BODY_ONLY)
    for turn in range(3):
        assert run(image, turn / 30, "left").person is not None
        assert run(empty, turn / 30, "right").person is None


def test_a_held_picture_is_not_looked_at() -> None:
    image = frames_of("sam2_juggle.mp4", every=200)[0]
    packet = Runner(BODY_ONLY)(image, gate=GateDecision(detect=False, classify=False, reason="still"))
    assert packet.person is None and packet.stick is None


def test_small_and_odd_pictures_are_no_obstacle() -> None:
    run = Runner(BODY_ONLY)
    for shape in ((8, 8), (1, 500), (719, 1281), (90, 30)):
        run(np.zeros((*shape, 3), np.uint8))


def test_it_says_what_runs_where() -> None:
    text = Runner(BODY_ONLY).detect.describe()
    assert text["body"].startswith("movenet_lightning: onnxruntime") and "1 thread" in text["body"]


# --- where MoveNet looks --------------------------------------------------------------------------------------------


def test_the_square_follows_the_person_and_holds_all_of_them() -> None:
    keypoints = standing_person(scale=60, at=(600, 300))
    x, y, side = square_around(keypoints, 1280, 720)
    assert (x, y) == pytest.approx((600, 360))
    assert (np.abs(keypoints[:, :2] - (x, y)) <= side / 2).all()
    assert side < 720


def test_without_a_sure_torso_the_whole_frame_is_looked_at() -> None:
    keypoints = standing_person()
    keypoints[[11, 12], 2] = 0.1
    assert square_around(keypoints, 1280, 720) == whole_frame(1280, 720) == (640, 360, 1280)


def test_the_parts_of_a_long_frame_cover_it() -> None:
    assert sorted(x - side / 2 for x, _, side in parts_of_frame(1280, 720)) == [0, 280, 560]
    assert parts_of_frame(600, 600) == []
    assert [y for _, y, _ in parts_of_frame(720, 1280)] == [640, 360, 920]


# --- whom to follow -------------------------------------------------------------------------------------------------


def test_the_person_followed_so_far_is_followed_on() -> None:
    small, large = candidate(standing_person(50, (100, 100))), candidate(standing_person(200, (900, 300)))
    assert choose_person([small, large], None) is large
    assert choose_person([small, large], candidate(standing_person(50, (110, 105)))) is small
    assert choose_person([], small) is None


def test_missing_points_have_no_place() -> None:
    points = np.array([(5, 5, 0.9), (5, 5, 0.01), (-3, 5, 0.9), (5, 50, 0.9)], np.float32)
    marked = mark_missing(points, 20, 20)
    assert marked[0].tolist() == pytest.approx([5, 5, 0.9])
    assert np.isnan(marked[1:, :2]).all() and (marked[1:, 2] == 0).all()


def test_overlap_is_a_share() -> None:
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (2, 2, 3, 3)) == 0


# --- whether it is a stick, and in which hand -----------------------------------------------------------------------


def test_a_grip_far_from_both_wrists_is_no_grip() -> None:
    body = standing_person(100)
    x, y = body[RIGHT_WRIST, :2].tolist()
    assert is_plausible(stick_at((x + 10, y), (x - 100, y)), body, 100, 0.5, 1.6)
    assert not is_plausible(stick_at((x - 60, y), (x - 160, y)), body, 100, 0.5, 1.6)


def test_a_stick_longer_than_any_is_none_and_one_without_a_tip_is_one() -> None:
    body = standing_person(100)
    x, y = body[RIGHT_WRIST, :2].tolist()
    assert not is_plausible(stick_at((x, y), (x - 165, y)), body, 100, 0.5, 1.6)
    tipless = StickCandidate(np.array([(x, y, 0.9), MISSING], np.float32), 0.9)
    assert is_plausible(tipless, body, 100, 0.5, 1.6)


def test_without_wrists_or_grip_nothing_is_believed() -> None:
    body = standing_person(100)
    x, y = body[RIGHT_WRIST, :2].tolist()
    assert not is_plausible(StickCandidate(np.array([MISSING, (x, y, 0.9)], np.float32), 0.9), body, 100, 0.5, 1.6)
    body[[LEFT_WRIST, RIGHT_WRIST]] = MISSING
    assert wrist_distances(np.array([x, y, 1.0]), body, 100) == (math.inf, math.inf)
    assert not is_plausible(stick_at((x, y), (x - 100, y)), body, 100, 0.5, 1.6)


def test_the_hand_is_voted_over_time() -> None:
    vote = HandVote()
    for _ in range(10):
        assert vote.cast(left=1.1, right=0.1, confidence=0.9) == "right"
    assert vote.cast(left=0.1, right=0.3, confidence=0.9) == "right", "one odd frame changes nothing"
    for _ in range(30):
        verdict = vote.cast(left=0.1, right=1.1, confidence=0.9)
    assert verdict == "left", "but a stick may change hands"


def test_close_hands_count_as_right_handed_until_the_left_one_is_clearly_nearer() -> None:
    vote = HandVote()
    assert vote.cast(left=0.1, right=0.2, confidence=0.9) == "right"
    for _ in range(5):
        verdict = vote.cast(left=0.1, right=0.6, confidence=0.9)
    assert verdict == "left"


def test_somebody_else_begins_a_new_vote_and_streams_vote_apart() -> None:
    choice, keypoints = StickChoice(DetectSettings()), standing_person(100)

    def hand(stream: str, track: int, wrist: int) -> str:
        x, y = keypoints[wrist, :2].tolist()
        person = Person(track=track, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints)
        stick = choice.choose(stream, person, [stick_at((x, y), (x, y + 80))])
        assert stick is not None
        return stick.hand

    assert {hand("0", 1, LEFT_WRIST) for _ in range(20)} == {"left"}
    assert hand("0", 1, RIGHT_WRIST) == "left", "one odd frame"
    assert hand("1", 1, RIGHT_WRIST) == "right"
    assert hand("0", 2, RIGHT_WRIST) == "right"


# --- other networks -------------------------------------------------------------------------------------------------


def write_card(
    folder: Path, task: str, architecture: str, shape: list[int], threshold: float, outputs: tuple[str, ...] = ()
) -> str:
    """A card for `folder/model.onnx`; returns the folder."""
    (folder / "card.toml").write_text(
        f'task = "{task}"\narchitecture = "{architecture}"\nfile = "model.onnx"\n'
        f'sha256 = "{sha256_of(folder / "model.onnx")}"\noutputs = {list(outputs)}\n'
        f'licence = "-"\nsource = "-"\ndata = "-"\n'
        f'threshold = {threshold}\n[[inputs]]\nname = "images"\ndtype = "float32"\nshape = {shape}\n'
    )
    return str(folder)


def make_stick_network(folder: Path, size: int = 64, told: bool = False) -> str:
    """A network that sees the grip at the crop's centre and the tip left of it, when the picture is bright; or one that
    is told of the body and puts grip and tip to its wrists."""
    helper = pytest.importorskip("onnx.helper")
    points = helper.make_tensor("points_value", 1, [1, 2, 3], [0.5, 0.5, 0.9, 0.25, 0.5, 0.8])
    wrists = helper.make_tensor("wrists_value", 7, [2], [9, 10])
    inputs = [helper.make_tensor_value_info("image", 2, [1, size, size, 3])]
    nodes = [
        helper.make_node("Cast", ["image"], ["bright"], to=1),
        helper.make_node("ReduceMean", ["bright"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Constant", [], ["white"], value=helper.make_tensor("w", 1, [1], [255.0])),
        helper.make_node("Div", ["mean", "white"], ["presence"]),
    ]
    if told:
        inputs.append(helper.make_tensor_value_info("body", 1, [1, 17, 3]))
        nodes.append(helper.make_node("Constant", [], ["wrists"], value=wrists))
        nodes.append(helper.make_node("Gather", ["body", "wrists"], ["points"], axis=1))
    else:
        nodes.append(helper.make_node("Constant", [], ["points"], value=points))
    outputs = {"points": [1, 2, 3], "presence": [1]}
    graph = helper.make_graph(
        nodes, "stick", inputs, [helper.make_tensor_value_info(name, 1, shape) for name, shape in outputs.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return write_card(folder, "stick", "stick_heatmap", [1, size, size, 3], 0.4, tuple(outputs))


@pytest.mark.parametrize("brightness", [250, 10])
def test_the_sticks_places_come_back_into_the_picture(tmp_path: Path, brightness: int) -> None:
    from stages.detect import make_stick_detector
    from stages.stick_crop import stick_crop

    detector = make_stick_detector(make_stick_network(tmp_path), Runtime("onnxruntime", 1))
    body = standing_person(100, (400, 200))
    found = detector.detect(np.full((800, 800, 3), brightness, np.uint8), body)
    if brightness == 10:
        assert not found, "presence is below the card's threshold"
        return
    x, y, side = stick_crop(body, 800, 800)
    grip, tip = found[0].points
    assert grip == pytest.approx([x, y, 0.9], abs=0.01)
    assert tip == pytest.approx([x - side / 4, y, 0.8], abs=0.01)


def test_the_stick_network_is_told_where_the_wrists_are(tmp_path: Path) -> None:
    from stages.detect import make_stick_detector

    detector = make_stick_detector(make_stick_network(tmp_path, told=True), Runtime("onnxruntime", 1))
    body = standing_person(100, (400, 200))
    body[9, 2], body[10] = 0.7, np.nan
    (found,) = detector.detect(np.full((800, 800, 3), 250, np.uint8), body)
    grip, tip = found.points
    assert grip == pytest.approx(body[9], abs=0.01)
    assert tip[2] == 0, "a wrist that was not found has no place"


def test_a_missing_model_is_named() -> None:
    for settings in (DetectSettings(body="no_such"), DetectSettings(stick="no_such"), DetectSettings(fused="no_such")):
        with pytest.raises(UserError, match="no_such"):
            Runner(settings)


def test_a_model_for_another_task_is_refused() -> None:
    with pytest.raises(UserError, match="task body, not for stick"):
        Runner(DetectSettings(stick="movenet_lightning"))


def test_a_missing_mediapipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pose\.task does not exist"):
        Runner(DetectSettings(body=str(tmp_path / "pose.task"), stick=""))
    (tmp_path / "pose.task").write_bytes(b"x")
    with pytest.raises(UserError, match="runs on the CPU, not on cuda"):
        Runner(DetectSettings(body=str(tmp_path / "pose.task"), stick="", device="cuda"))
    wanted = "cannot load" if importlib.util.find_spec("mediapipe") else r"pip install arnis-stream\[mediapipe\]"
    with pytest.raises(UserError, match=wanted):
        Runner(DetectSettings(body=str(tmp_path / "pose.task"), stick=""))


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
        write_card(tmp_path, task, f"{kind}n-pose", [1, 3, 128, 160], 0.25), Runtime("onnxruntime", 1), [task]
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
    write_card(tmp_path, "fused", "yolo11n-pose", [1, 3, 128, 160], 0.25)
    run = Runner(DetectSettings(fused=str(tmp_path), backend="onnxruntime", threads=1, grip_within=5, longest_stick=5))
    packets = [run(image) for image in frames_of("sam2_juggle.mp4", every=60)]
    assert any(packet.person is not None for packet in packets)
    assert all(isinstance(packet.stick, Stick | None) for packet in packets)
    assert list(run.detect.describe()) == ["fused"]
