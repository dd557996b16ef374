"""Explanations say what the network really weighs, and find a network that looks at the tip alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stages.classes import load_classes, models_folder  # noqa: E402
from stages.graph import DIRECTED_EDGES, build_graph  # noqa: E402
from stages.skeleton import EDGES, GRIP, KEYPOINT_NAMES, LEFT_HIP, NODE_COUNT, RIGHT_WRIST, TIP  # noqa: E402
from training import app  # noqa: E402
from training.classifiers.geopose import build  # noqa: E402
from training.geopose import explain, hiding  # noqa: E402
from training.geopose.attention import attend, edge_attention  # noqa: E402
from training.geopose.data import PoseTable  # noqa: E402
from training.geopose.explain_command import one_sample  # noqa: E402
from training.geopose.explain_picture import typical  # noqa: E402
from training.geopose.network import DenseGATv2  # noqa: E402
from training.geopose.pose_statistics import PoseStatistics  # noqa: E402
from training.geopose.settings import FitSettings  # noqa: E402

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[2] / "training" / "synth" / "pose_statistics.json"


def drawn(count: int, pixels_per_torso: float = 60) -> PoseTable:
    keypoints, labels = PoseStatistics(STATISTICS, CLASSES.names).draw(count, np.random.default_rng(0))
    keypoints[..., :2] = keypoints[..., :2] * pixels_per_torso + [160, 120]
    people = np.array([f"p{i // 4}" for i in range(count)])
    return PoseTable(
        keypoints, labels, people, np.full(count, "front"), np.zeros((count, 128, 128, 3), np.uint8),
        np.ones(count, np.float32), np.full(count, ""), np.zeros(count, bool), np.arange(count),
    )  # fmt: skip


def test_attention_is_what_the_layer_weighs_its_neighbours_with() -> None:
    torch.manual_seed(0)
    layer = DenseGATv2(48, 32, 1, 8, DIRECTED_EDGES, NODE_COUNT)
    nodes, edges = torch.randn(3, NODE_COUNT, 48), torch.randn(3, len(DIRECTED_EDGES), 8)
    mask = torch.ones(3, NODE_COUNT)
    mask[:, TIP] = 0
    with torch.no_grad():
        weights = edge_attention(layer, nodes, edges, mask)
        source, target = torch.from_numpy(DIRECTED_EDGES.T)
        read = torch.zeros(3, NODE_COUNT, 32)
        read.index_add_(1, target, weights.unsqueeze(-1) * layer.lin_l(nodes)[:, source])
        wanted = layer(nodes, edges, mask)
    torch.testing.assert_close((read + layer.bias)[:, :TIP], wanted[:, :TIP], atol=1e-5, rtol=1e-4)
    assert not weights[:, source == TIP].any()


def test_even_attention_counts_as_one_and_a_missing_node_gets_none() -> None:
    model = build(13, FitSettings())
    for module in model.modules():
        if isinstance(module, DenseGATv2):
            torch.nn.init.zeros_(module.att)
    table = drawn(4)
    table.keypoints[:, :, 2] = 1
    table.keypoints[:, GRIP, 2] = 0
    attention = attend(model, table.keypoints)
    there = ~(DIRECTED_EDGES == GRIP).any(1)
    np.testing.assert_allclose(attention.edges[:, there], 1, atol=1e-5)
    np.testing.assert_allclose(np.delete(attention.nodes, GRIP, 1), 1, atol=1e-5)
    assert not attention.nodes[:, GRIP].any() and not attention.edges[:, DIRECTED_EDGES[:, 0] == GRIP].any()


def answers_by(monkeypatch: pytest.MonkeyPatch, *nodes: int) -> None:
    """Put a judge in the place of the network that names another class when one of `nodes` is missing."""

    def predict(model: object, table: PoseTable) -> tuple[torch.Tensor, torch.Tensor]:
        seen = (table.keypoints[:, list(nodes), 2] > 0).all(1)
        return torch.from_numpy(np.stack([seen * 4.0, 2.0 + 0 * seen], 1)), torch.from_numpy(table.labels)

    monkeypatch.setattr(hiding, "predict", predict)


def verdict(table: PoseTable) -> hiding.TipVerdict:
    found = hiding.judge_tip(hiding.hide_parts(build(2, FitSettings()), table), table.people, np.ones(len(table), bool))
    assert found is not None
    return found


def test_a_network_that_looks_at_the_tip_alone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table = drawn(40)
    table.keypoints[:, :, 2] = 1
    table.keypoints[:4, TIP, 2] = 0
    answers_by(monkeypatch, TIP)
    found = verdict(table)
    assert found.samples == 36 and found.changes == found.alone == found.stays_with_tip_only == 1
    assert found.decides_alone and found.alone_interval == (1, 1)


@pytest.mark.parametrize("other", [GRIP, RIGHT_WRIST, LEFT_HIP])
def test_a_network_that_needs_more_than_the_tip_is_not_blamed(monkeypatch: pytest.MonkeyPatch, other: int) -> None:
    table = drawn(40)
    table.keypoints[:, :, 2] = 1
    answers_by(monkeypatch, TIP, other)
    found = verdict(table)
    assert found.changes == 1 and found.strongest_other_changes == 1 and found.alone == 0
    assert not found.decides_alone


def test_the_warning_gives_the_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = drawn(24)
    table.keypoints[:, :, 2] = 1
    answers_by(monkeypatch, TIP)
    written = explain.explain_table(build(13, FitSettings()), table, CLASSES.names, tmp_path)
    assert written.warnings[0].startswith("all: the tip alone decides 100% of 24 answers")
    answers_by(monkeypatch, RIGHT_WRIST)
    assert not explain.explain_table(build(13, FitSettings()), table, CLASSES.names, tmp_path).warnings


@pytest.mark.parametrize(("pictures", "blamed"), [(1, False), (9, False), (10, True)])
def test_a_few_pictures_say_nothing_of_a_network(
    monkeypatch: pytest.MonkeyPatch, pictures: int, blamed: bool
) -> None:
    table = drawn(pictures)
    table.keypoints[:, :, 2] = 1
    answers_by(monkeypatch, TIP)
    found = verdict(table)
    assert found.alone == 1 and found.decides_alone == blamed


def test_without_a_tip_there_is_no_verdict_on_it() -> None:
    table = drawn(4)
    table.keypoints[:, [GRIP, TIP], 2] = 0
    found = hiding.hide_parts(build(13, FitSettings()), table)
    assert hiding.judge_tip(found, table.people, np.ones(4, bool)) is None


def test_the_typical_sample_is_whole_and_near_the_others() -> None:
    table = drawn(12)
    poses = np.repeat(table.keypoints[:1], 5, 0)
    poses[:, :, 2] = 1
    poses[0, RIGHT_WRIST, :2] += 80
    poses[1, RIGHT_WRIST, 2] = 0
    assert typical(poses, np.ones(5)) == 2


def seen_folder(folder: Path) -> Path:
    """What `see` would have written of twelve people."""
    table = replace(drawn(48), splits=np.array([("train", "val", "test")[i // 4 % 3] for i in range(48)]))
    head = ["image_path", "label", "label_name", "group", "view", "width", "height", "grip_hand", "true_hand", "split"]
    names = [f"kp{node}_{part}" for node in range(NODE_COUNT) for part in ("x", "y", "conf")]
    rows = [",".join([*head, *names])]
    for i in range(len(table)):
        cells = [f"{v:.2f}" if c > 0 else "" for x, y, c in table.keypoints[i].tolist() for v in (x, y, c)]
        label = int(table.labels[i])
        rows.append(",".join([f"{i}.jpg", str(label), CLASSES.names[label], table.people[i], "front", "640", "480",
                              "right", "right", table.splits[i], *cells]))  # fmt: skip
    (folder / "crops").mkdir(parents=True)
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    np.save(folder / "crops" / "00000.npy", np.full((48, 128, 128, 3), 90, np.uint8))
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an untrained network."""
    run = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    weights = build(len(CLASSES.classes), FitSettings()).state_dict()
    facts = {"network": "geopose", "classes": list(CLASSES.names), "settings": asdict(FitSettings()) | {"without": []}}
    torch.save({**facts, "weights": weights, "temperature": 1.5}, run / "best.pt")
    return run


def test_explaining_a_table_writes_data_and_pictures(run_folder: Path, tmp_path: Path) -> None:
    words = ["explain", "--model", str(run_folder / "best.pt"), "--seen", str(seen_folder(tmp_path / "seen"))]
    assert app.main([*words, "--out", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "explain.json").read_text())
    everything = written["explained"][0]
    assert everything["name"] == "all" and set(everything["nodes"]) == set(KEYPOINT_NAMES)
    assert len(everything["edges"]) == len(DIRECTED_EDGES) == 2 * len(EDGES) + NODE_COUNT
    assert {part["name"] for part in everything["hiding"]} == {*KEYPOINT_NAMES, *hiding.LIMBS, hiding.CROP}
    for entry in written["explained"]:
        drawing = cv2.imread(str(tmp_path / "out" / f"{entry['name']}.png"))
        assert drawing.shape[1] > drawing.shape[0] and drawing.std() > 5


def test_a_class_that_no_test_person_shows_is_said_to_be_missing(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = seen_folder(tmp_path / "seen")
    lines = (folder / "table.csv").read_text().splitlines()
    kept = [line.replace(",test,", ",train,", int("crown_thrust" in line)) for line in lines]
    people = {line.split(",")[3] for line in kept if ",test," in line}
    alone = [line.replace(f",{line.split(',')[3]},", f",{line.split(',')[3]}b,") if ",train," in line else line
             for line in kept]  # fmt: skip
    (folder / "table.csv").write_text("\n".join(alone) + "\n")
    words = ["explain", "--model", str(run_folder / "best.pt"), "--seen", str(folder), "--class", "crown_thrust"]
    assert app.main([*words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"none of the test people of {folder} ({len(people)}) shows crown_thrust; leave --class out" in said


def test_the_shipped_model_explains_a_held_pose(tmp_path: Path) -> None:
    capture = cv2.VideoCapture(str(models_folder() / "demo.mp4"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 100)
    cv2.imwrite(str(tmp_path / "held.jpg"), capture.read()[1])
    assert app.main(["explain", "--picture", str(tmp_path / "held.jpg"), "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "held.json").read_text())["label"] == "crown_thrust"
    assert cv2.imread(str(tmp_path / "held.png")).std() > 5


def test_a_left_hander_is_explained_in_their_own_picture() -> None:
    table = drawn(1)
    image = np.zeros((480, 640, 3), np.uint8)
    keypoints = table.keypoints[0].copy()
    keypoints[:, 2] = 1
    mirrored = keypoints[[0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 17, 18]] * [-1, 1, 1] + [640, 0, 0]
    torch.manual_seed(0)
    model = build(13, FitSettings()).eval()
    right = one_sample(image, keypoints, left_handed=False)
    left = one_sample(image, mirrored, left_handed=True)
    for a, b in zip(build_graph(right.keypoints), build_graph(left.keypoints), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    drawings = [
        explain.explain_picture(model, sample, image, is_left, "pose")[1][60:-60]  # without title and legend
        for sample, is_left in ((right, False), (left, True))
    ]
    lit = [(drawing[:, : drawing.shape[1] // 2].max(2) > 120) for drawing in drawings]
    assert (lit[0] & lit[1][:, ::-1]).sum() > 0.8 * lit[0].sum()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seen", "gone", "--class", "high_five"], "--class high_five is not in the class file"),
        (["--picture", "gone.jpg"], "gone.jpg does not exist"),
        (["--seen", "gone"], "gone does not exist"),
    ],
)
def test_mistakes_end_in_one_sentence(
    words: list[str], sentence: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["explain", "--model", str(run_folder / "best.pt"), *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
