"""The classifier answers for the packets that ask, in batches or alone, and refuses models that do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.chain import Chain, WorkerBroken
from engine.errors import UserError
from engine.frames import OwnedFrames
from engine.stage import Context
from stages.cards import load_card
from stages.classes import ClassFile, load_classes, models_folder
from stages.classify import Classify, ClassifySettings, check_card, class_probabilities, name_pose
from stages.graph import build_graph
from stages.packets import ArnisPacket, GraphInput

CLASSES = load_classes()

# Keypoints in torsos, origin mid-hip, as somebody stands who shows the pose to the camera's side or front.
HEAD = [[0.07, -1.29], [0.14, -1.36], [0.0, -1.37], [0.19, -1.35], [-0.07, -1.36]]
LEFT_KNEE_BLOCK = np.array([
    *HEAD, [0.36, -0.99], [-0.29, -1.01], [0.42, -0.51], [-0.35, -0.52], [0.03, -0.54], [-0.36, -0.1], [0.2, 0],
    [-0.2, 0], [0.3, 0.72], [-0.23, 0.65], [0.41, 1.39], [-0.28, 1.2], [-0.41, 0.0], [-0.25, 1.1],
])  # fmt: skip
IDLE = np.array([
    *HEAD, [0.33, -1.0], [-0.33, -1.0], [0.4, -0.5], [-0.4, -0.5], [0.4, -0.05], [-0.4, -0.05], [0.2, 0], [-0.2, 0],
    [0.2, 0.72], [-0.2, 0.72], [0.2, 1.4], [-0.2, 1.4], [0, 0], [0, 0],
])  # fmt: skip


def graph_of(points: np.ndarray, stick: bool = True, crop: np.ndarray | None = None) -> GraphInput:
    keypoints = np.column_stack([points, np.full(19, 0.9)]).astype(np.float32)
    if not stick:
        keypoints[17:] = (np.nan, np.nan, 0)
    nodes, edges, mask = build_graph(keypoints)
    return GraphInput(nodes=nodes, edges=edges, mask=mask, crop=crop)


def packet_of(graph: GraphInput | None, stream: str = "0") -> ArnisPacket:
    return ArnisPacket(stream=stream, sequence=0, pts=0.0, captured_at_ns=0, graph=graph)


def stage(**settings: object) -> Classify:
    classify = Classify(ClassifySettings(**{"backend": "onnxruntime", **settings}))  # type: ignore[arg-type]
    classify.open(Context(streams=["0"], frames=OwnedFrames(), request_stop=lambda: None, health=dict))
    return classify


@pytest.fixture(scope="module")
def classify() -> Classify:
    return stage()


def test_a_low_block_is_told_from_standing_idle(classify: Classify) -> None:
    block, idle = classify.process_batch([packet_of(graph_of(LEFT_KNEE_BLOCK)), packet_of(graph_of(IDLE, stick=False))])
    assert block.pose is not None and block.pose.chamber == "low"
    assert idle.pose is not None and idle.pose.label == "neutral"
    assert idle.pose.probabilities["neutral"] > block.pose.probabilities["neutral"]


def test_probabilities_are_named_and_sum_to_one_and_the_status_follows_acceptance(classify: Classify) -> None:
    packet = classify.process(packet_of(graph_of(LEFT_KNEE_BLOCK)))
    assert packet.pose is not None and tuple(packet.pose.probabilities) == CLASSES.names
    assert sum(packet.pose.probabilities.values()) == pytest.approx(1)
    assert packet.status == ("ok" if packet.pose.accepted else "unsure")


def test_an_answer_does_not_depend_on_its_batch(classify: Classify) -> None:
    crop = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    graphs = [graph_of(LEFT_KNEE_BLOCK, crop=crop), graph_of(IDLE), graph_of(LEFT_KNEE_BLOCK)]
    together = classify.process_batch([packet_of(g, stream=str(i)) for i, g in enumerate(graphs)])
    for packet, graph in zip(together, graphs, strict=True):
        alone = classify.process(packet_of(graph))
        assert packet.pose is not None and alone.pose is not None
        assert packet.pose.confidence == pytest.approx(alone.pose.confidence, abs=1e-4)


def test_a_network_that_always_fails_breaks_its_worker_though_most_packets_only_pass_through() -> None:
    failing = stage()

    def fail(*inputs: np.ndarray) -> None:
        raise RuntimeError("the device is lost")

    failing._network = fail
    chain = Chain([failing], errors_in_a_row=2)
    chain.run([packet_of(graph_of(IDLE))])
    chain.run([packet_of(None)])
    with pytest.raises(WorkerBroken, match="the device is lost"):
        chain.run([packet_of(graph_of(IDLE))])


def test_what_has_no_graph_passes_unchanged(classify: Classify) -> None:
    packets = [packet_of(None), packet_of(graph_of(LEFT_KNEE_BLOCK)), packet_of(None)]
    answers = classify.process_batch(packets)
    assert answers == packets
    assert [p.pose is not None for p in answers] == [False, True, False]
    assert classify.process_batch([packet_of(None)])[0].pose is None


def test_how_many_wait_for_each_other_is_told_to_the_engine() -> None:
    asked = Classify(ClassifySettings(max_batch=3, max_wait_ms=7.0))
    assert (asked.max_batch, asked.max_wait_ms) == (3, 7.0)


def model_with(tmp_path: Path, **changes: float) -> str:
    """The shipped model with other numbers in its card."""
    folder = tmp_path / "-".join(changes)
    shutil.copytree(models_folder() / "geopose", folder)
    lines = (folder / "card.toml").read_text().split("\n")
    lines = [next((f"{k} = {v}" for k, v in changes.items() if line.startswith(f"{k} = ")), line) for line in lines]
    (folder / "card.toml").write_text("\n".join(lines))
    return str(folder)


def test_temperature_and_threshold_of_the_card_count(tmp_path: Path, classify: Classify) -> None:
    usual = classify.process(packet_of(graph_of(LEFT_KNEE_BLOCK))).pose
    doubting = stage(model=model_with(tmp_path, temperature=9.0)).process(packet_of(graph_of(LEFT_KNEE_BLOCK))).pose
    strict = stage(model=model_with(tmp_path, threshold=1.0)).process(packet_of(graph_of(LEFT_KNEE_BLOCK))).pose
    assert usual is not None and doubting is not None and strict is not None
    assert doubting.confidence < usual.confidence - 0.1
    assert (usual.accepted, strict.accepted) == (True, False) and strict.confidence == usual.confidence


def test_the_picture_of_the_hand_counts(classify: Classify) -> None:
    crop = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    graphs = graph_of(LEFT_KNEE_BLOCK), graph_of(LEFT_KNEE_BLOCK, crop=crop)
    without, seen = classify.process_batch([packet_of(graph) for graph in graphs])
    assert without.pose is not None and seen.pose is not None
    assert without.pose.confidence != pytest.approx(seen.pose.confidence, abs=1e-4)


def test_an_own_threshold_replaces_the_card_s() -> None:
    sure = stage(threshold=1.0).process(packet_of(graph_of(LEFT_KNEE_BLOCK)))
    easy = stage(threshold=0.01).process(packet_of(graph_of(LEFT_KNEE_BLOCK)))
    assert (sure.status, easy.status) == ("unsure", "ok")


def test_an_accepted_neutral_is_an_answer_like_any_other() -> None:
    row = np.zeros(len(CLASSES.names))
    row[CLASSES.names.index("neutral")] = 1.0
    pose = name_pose(row, CLASSES, 0.6)
    assert pose.accepted and (pose.label, pose.family, pose.chamber) == ("neutral", "none", "none")


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_an_accepted_answer_does_not_contradict_itself(threshold: float) -> None:
    rng = np.random.default_rng(0)
    for row in class_probabilities(rng.normal(0, 4, (300, len(CLASSES.names))), 1.0):
        pose = name_pose(row, CLASSES, threshold)
        label = next(c for c in CLASSES.classes if c.name == pose.label)
        if pose.accepted:
            assert (pose.family, pose.chamber) == (label.family, label.chamber)


def test_family_and_chamber_of_a_guess_are_sums() -> None:
    spread = np.zeros(len(CLASSES.names))
    spread[[CLASSES.names.index(n) for n in ("left_knee_block", "left_eye_thrust", "crown_thrust")]] = 0.36, 0.32, 0.32
    assert (name_pose(spread, CLASSES, 0.5).chamber, name_pose(spread, CLASSES, 0.3).chamber) == ("high", "low")
    left, right = ([c for c in CLASSES.classes if c.family == family] for family in CLASSES.families[:2])
    row = np.array([{left[0]: 0.36, right[0]: 0.32, right[1]: 0.32}.get(c, 0.0) for c in CLASSES.classes])
    guess = name_pose(row, CLASSES, 0.5)
    assert (guess.label, guess.family, guess.accepted) == (left[0].name, right[0].family, False)
    assert name_pose(row, CLASSES, 0.36).accepted, "from the threshold on"


def test_a_refused_answer_is_narrowed_to_two_poses_that_are_sure_enough_together() -> None:
    def alternative(threshold: float, **shares: float) -> str | None:
        return name_pose(np.array([shares.get(name, 0.0) for name in CLASSES.names]), CLASSES, threshold).alternative

    shares = {"right_chest_thrust": 0.3, "right_eye_thrust": 0.45, "crown_thrust": 0.25}
    assert alternative(0.75, **shares) == "right_chest_thrust", "from the threshold on"
    assert alternative(0.76, **shares) is None, "it may be a third"
    assert alternative(0.45, **shares) is None, "the answer alone is accepted"
    assert alternative(0.75, right_eye_thrust=0.45, neutral=0.3, crown_thrust=0.25) is None
    assert alternative(0.75, right_eye_thrust=0.3, neutral=0.45, crown_thrust=0.25) is None
    alone = ClassFile(classes=tuple(c for c in CLASSES.classes if c.name in ("left_knee_block", "right_knee_block")))
    assert name_pose(np.array([0.5, 0.5]), alone, 0.75).alternative is None, "of two classes that says nothing"


def test_probabilities_of_any_score_are_finite() -> None:
    assert class_probabilities(np.array([[1500.0, -1500.0, 0.0]], np.float32), 1.0).tolist() == [[1.0, 0.0, 0.0]]


def test_both_runtimes_agree() -> None:
    stages = [stage(backend=name) for name in ("onnxruntime", "openvino")]
    first, second = (s.process(packet_of(graph_of(LEFT_KNEE_BLOCK))).pose for s in stages)
    assert first is not None and second is not None
    assert list(first.probabilities.values()) == pytest.approx(list(second.probabilities.values()), abs=1e-3)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ('task = "pose_classifier"', 'task = "body"', "made for the task body"),
        ('classes_sha256 = "', 'classes_sha256 = "0', "trained for other classes"),
        ('name = "nodes"', 'name = "joints"', "takes other inputs"),
        ('sha256 = "', 'sha256 = "0', "does not match the SHA-256"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_one_sentence(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models_folder() / "geopose", folder)
    card = folder / "card.toml"
    lines = card.read_text().split("\n")
    # Whole starts of lines only: `sha256` is also the end of `classes_sha256`.
    card.write_text("\n".join(after + line[len(before) :] if line.startswith(before) else line for line in lines))
    with pytest.raises(UserError, match=complaint):
        stage(model=str(folder))


def test_a_network_of_more_answers_than_its_card_has_classes_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models_folder() / "geopose", folder)
    own, card = folder / "classes.toml", folder / "card.toml"
    own.write_text((models_folder() / "classes.toml").read_text().rpartition("[[class]]")[0])
    told = card.read_text().replace(', "neutral"]', "]")
    card.write_text(told.replace(load_card("geopose")[0].classes_sha256, load_classes(own).digest()))
    with pytest.raises(UserError, match=r"names 12 classes, but model\.onnx gives 13 answers"):
        stage(model=str(folder))


def test_inputs_in_another_order_or_of_another_file_are_refused(tmp_path: Path) -> None:
    card, _ = load_card("geopose")
    with pytest.raises(UserError, match="takes other inputs"):
        check_card(msgspec.structs.replace(card, inputs=card.inputs[::-1]), CLASSES, "geopose")
    shutil.copytree(models_folder() / "geopose", tmp_path / "model")
    other, file = load_card("weapon_hand")
    shutil.copy(file, tmp_path / "model")
    told = tmp_path / "model" / "card.toml"
    told.write_text(told.read_text().replace(card.sha256, other.sha256))
    with pytest.raises(UserError, match=r"crop_present float32 \[0\], but it takes nodes .*\[0, 75, 8\]; correct"):
        stage(model=str(tmp_path / "model"), backend="auto")
