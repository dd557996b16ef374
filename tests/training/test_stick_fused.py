"""The fused network: its data, its two phases, what it is served as; and how bodies are compared with Thunder's."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the training extra: torch")
pytest.importorskip("efficientnet_lite_pytorch", reason="needs the training extra: efficientnet_lite_pytorch")
onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402

from engine.errors import UserError  # noqa: E402
from stages.detectors import Runtime, open_model  # noqa: E402
from stages.detectors.yolo import Yolo  # noqa: E402
from stages.skeleton import GRIP, LEFT_WRIST, NODE_COUNT, RIGHT_KNEE, TIP  # noqa: E402
from training import app  # noqa: E402
from training.onnx_file import export_onnx  # noqa: E402
from training.stick import agree, evaluate, export, fused, fused_data, fused_judge, int8  # noqa: E402

ENDED = -1


def someone(scale: float = 1.0, at: tuple[float, float] = (300.0, 250.0)) -> np.ndarray:
    """Keypoints (17, 3) of somebody whose torso is 60 px times `scale`, all of them sure."""
    x = [0, 4, -4, 8, -8, 22, -22, 40, -40, 55, -55, 12, -12, 14, -14, 14, -14]
    y = [-85, -88, -88, -86, -86, -60, -60, -35, -35, -55, -55, 0, 0, 45, 45, 90, 90]
    points = np.full((17, 3), 0.9, np.float32)
    points[:, :2] = np.stack([x, y], 1) * scale + at
    return points


# --- phases ---------------------------------------------------------------------------------------------------------


def checkpoints(run: Path, **epochs: int) -> None:
    """Files that stand for checkpoints; each holds its epoch."""
    for phase, epoch in epochs.items():
        file = run / phase / "weights" / "last.pt"
        file.parent.mkdir(parents=True)
        file.write_text(str(epoch))


def actions(run: Path, resume: bool = True) -> list[str]:
    return [step.action for step in fused.plan(run, resume, lambda file: int(file.read_text()))]


def test_the_sigmas_are_wide_first_and_the_true_ones_at_the_end() -> None:
    assert [phase.name for phase in fused.PHASES] == ["wide", "narrow"]
    assert fused.PHASES[0].widen > fused.PHASES[1].widen == 1


@pytest.mark.parametrize("epochs, expected", [(20, [12, 8]), (2, [1, 1]), (1, [1, 1])])
def test_every_phase_gets_its_epochs(epochs: int, expected: list[int]) -> None:
    assert fused.phase_epochs(epochs) == expected


def test_a_run_goes_on_in_the_phase_in_which_it_was_stopped(tmp_path: Path) -> None:
    checkpoints(tmp_path / "a", wide=3)
    assert actions(tmp_path / "a") == ["resume", "start"]
    checkpoints(tmp_path / "b", wide=ENDED)
    assert actions(tmp_path / "b") == ["done", "start"]
    checkpoints(tmp_path / "c", wide=ENDED, narrow=0)
    assert actions(tmp_path / "c") == ["done", "resume"]
    checkpoints(tmp_path / "d", wide=ENDED, narrow=ENDED)
    assert actions(tmp_path / "d") == ["done", "done"]
    assert actions(tmp_path / "d", resume=False) == ["start", "start"]
    assert actions(tmp_path / "e", resume=False) == ["start", "start"]
    for name in "abc":
        with pytest.raises(UserError, match=f"{name} holds a training that was stopped; add --resume"):
            actions(tmp_path / name, resume=False)


def head(keypoints: int) -> torch.nn.Sequential:
    """The head of a pose network in small: its width follows the number of keypoints."""
    width = 3 * keypoints
    return torch.nn.Sequential(
        torch.nn.Conv2d(8, width, 3), torch.nn.BatchNorm2d(width), torch.nn.Conv2d(width, width, 1)
    ).eval()


def test_weights_for_fewer_keypoints_are_kept_to_the_letter_in_a_larger_head() -> None:
    small, large, image = head(17), head(19), torch.rand(1, 8, 9, 9)
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        before = large(image)
        assert fused.graft(large, small.state_dict()) == 8
        torch.testing.assert_close(large(image)[:, :51], small(image))
        assert not torch.equal(large(image), before)
    assert large[2].weight[51:].any(), "the new keypoints have something to begin with"


def test_with_nothing_to_resume_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --resume"):
        fused.plan(tmp_path, True, lambda file: 0)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--kind fused"):
        fused.read_settings(tmp_path)


# --- data -----------------------------------------------------------------------------------------------------------


def test_the_description_of_the_data_widens_the_sigmas(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a.jpg\n")
    wide, narrow = (json.loads(fused_data.write_yaml(tmp_path, factor).read_text()) for factor in (4.0, 1.0))
    assert wide["kpt_shape"] == [NODE_COUNT, 3] and len(wide["flip_idx"]) == NODE_COUNT
    assert narrow["kpt_oks_sigmas"][GRIP] == 0.04 and narrow["kpt_oks_sigmas"][TIP] == 0.03
    assert np.allclose(wide["kpt_oks_sigmas"], 4 * np.array(narrow["kpt_oks_sigmas"]))
    assert wide["train"] == ["train.txt"]
    ends = json.loads(fused_data.write_yaml(tmp_path, 4.0, ends_only=True).read_text())["kpt_oks_sigmas"]
    assert ends == [*narrow["kpt_oks_sigmas"][:GRIP], *wide["kpt_oks_sigmas"][GRIP:]]


def test_real_frames_get_a_stick_at_the_hand_and_a_label_inside_the_picture() -> None:
    frame, sticks = np.full((600, 700, 3), 90, np.uint8), 0
    for seed in range(12):
        image, keypoints = fused_data.clip_sample(frame, someone(), np.random.default_rng(seed))
        there = np.isfinite(keypoints[:, 0])
        assert keypoints.shape == (NODE_COUNT, 3) and (keypoints[there, 2] == 1).all()
        assert (keypoints[there, :2] >= 0).all()
        assert (keypoints[there, :2] < (image.shape[1], image.shape[0])).all()
        values = [float(v) for v in fused_data.pose_label(keypoints, image.shape[1], image.shape[0]).split()]
        assert len(values) == 5 + 3 * NODE_COUNT and all(0 <= v <= 2 for v in values)
        sticks += bool(there[GRIP])
        if there[GRIP] and there[[LEFT_WRIST, LEFT_WRIST + 1]].all():
            wrists = keypoints[[LEFT_WRIST, LEFT_WRIST + 1], :2]
            assert np.linalg.norm(wrists - keypoints[GRIP, :2], axis=1).min() < 30
    assert 3 <= sticks <= 11, "some have a stick, some have none"


def test_an_unsure_keypoint_is_not_learned() -> None:
    body = someone()
    body[RIGHT_KNEE, 2] = 0.2
    _, keypoints = fused_data.clip_sample(np.zeros((600, 700, 3), np.uint8), body, np.random.default_rng(1))
    assert np.isnan(keypoints[RIGHT_KNEE, 0]) and keypoints[RIGHT_KNEE, 2] == 0


def test_only_labelled_renders_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    rows = []
    for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(b"")
        empty = np.zeros((NODE_COUNT, 3), np.float32)
        rows.append(evaluate.Row(tmp_path / "images" / f"{name}.jpg", empty, split, "front"))
    monkeypatch.setattr(fused_data, "read_rows", lambda path: rows)
    with pytest.raises(UserError, match="no pose labels"):
        fused_data.write_lists(tmp_path / "table.csv", tmp_path / "out")
    (tmp_path / "labels" / "b.txt").write_text("")
    assert fused_data.write_lists(tmp_path / "table.csv", tmp_path / "out") == 1
    assert (tmp_path / "out" / "train.txt").read_text().strip().endswith("images/b.jpg")


# --- served ---------------------------------------------------------------------------------------------------------


class Rows(torch.nn.Module):
    """A network that answers the same rows for any picture, as ultralytics' do."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(rows)[None])

    def forward(self, images):  # type: ignore[no-untyped-def]
        return (self.rows + images.sum() * 0,)


def rows_of(*tip_scores: float) -> np.ndarray:
    """float32 (62, anchors): the same person in each anchor, ever less sure, with a tip of such a score."""
    columns = []
    for i, tip_score in enumerate(tip_scores):
        nodes = np.concatenate([someone(0.5, (48, 48)), [(70, 20, 0.9), (80, 10, tip_score)]]).astype(np.float32)
        columns.append(np.concatenate([(48, 48, 60, 90), [0.9 - 0.2 * i], nodes.ravel()]))
    return np.stack(columns, 1).astype(np.float32)


def test_a_stick_with_one_unsure_end_is_given_no_score_at_all() -> None:
    rows = rows_of(0.8, 0.3)
    served = fused.ServedFused(Rows(rows), 0.5)(torch.zeros(1, 3, 96, 96))[0].numpy()
    scores = served[5:].reshape(NODE_COUNT, 3, 2)[:, 2]
    assert scores[[GRIP, TIP], 0] == pytest.approx([0.9, 0.8]) and (scores[[GRIP, TIP], 1] == 0).all()
    unchanged = [*range(5 + 3 * 17 + 2), 5 + 3 * 17 + 3, 5 + 3 * 17 + 4]
    assert np.array_equal(served[unchanged], rows[unchanged])


def test_the_exported_folder_is_served(tmp_path: Path) -> None:
    kind = fused_judge.kind_of(fused.FusedSettings(size=96, init="mine.pt"))
    export_onnx(fused.ServedFused(Rows(rows_of(0.3)), 0.5).eval(), tmp_path / "model.onnx", kind.form)
    assert "mine.pt" in kind.source
    export.write_card(tmp_path, kind, 0.25, {"test": {"found_rate": 0.5}})
    card, network = open_model(str(tmp_path), Runtime("onnxruntime", 1), ["fused"])
    body = Yolo("model", card, network).detect(np.zeros((192, 192, 3), np.uint8), None, "", 0.0)[0]
    assert body.keypoints[0, :2] == pytest.approx(2 * someone(0.5, (48, 48))[0, :2], abs=0.1)
    assert body.stick is not None and (body.stick.points[:, 2] == 0).all(), "its tip is below the threshold"
    answer = fused_judge.FusedModel(tmp_path)(np.zeros((192, 192, 3), np.uint8), someone(1, (96, 96)))
    assert answer.presence == 0


# --- agreement ------------------------------------------------------------------------------------------------------


def test_distances_are_in_body_heights() -> None:
    reference, other = someone(), someone()
    other[LEFT_WRIST, 0] += 0.06 * 60 * agree.BODY_HEIGHT_TORSOS
    distances = agree.keypoint_distances(reference, other)
    assert distances[LEFT_WRIST] == pytest.approx(0.06, abs=1e-4)
    assert agree.figures(distances[None])["agreeing_rate"] == pytest.approx(16 / 17, abs=1e-4)
    assert agree.worst_keypoint(distances[None]) == ("left_wrist", 0.0)


def test_what_thunder_does_not_see_is_not_counted_and_what_the_other_misses_is() -> None:
    reference, other = someone(), someone()
    reference[0, 2] = 0.1
    other[RIGHT_KNEE] = (np.nan, np.nan, 0)
    values = agree.figures(agree.keypoint_distances(reference, other)[None])
    assert values["keypoints"] == 16
    assert values["missing_rate"] == pytest.approx(1 / 16, abs=1e-4)
    assert values["agreeing_rate"] == pytest.approx(15 / 16, abs=1e-4)


def test_a_frame_in_which_nobody_is_found_agrees_in_nothing() -> None:
    rows = np.stack([agree.keypoint_distances(someone(), other) for other in (someone(), None)])
    values = agree.figures(rows)
    assert (values["frames"], values["nobody_found_rate"], values["agreeing_rate"]) == (2, 0.5, 0.5)


def test_the_report_says_whether_the_gate_is_reached(tmp_path: Path) -> None:
    near = agree.keypoint_distances(someone(), someone())[None]
    far = np.concatenate([near, agree.keypoint_distances(someone(), None)[None]])
    assert "95% is reached" in agree.report("m", {"a": near})
    assert "95% is not reached" in agree.report("m", {"a": far}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["clips"]["all"]["agreeing_rate"] == 0.5


def test_no_clip_with_a_person_gives_no_figures() -> None:
    assert agree.figures(np.empty((0, 17)))["keypoints"] == 0


# --- INT8 -----------------------------------------------------------------------------------------------------------


def small_network(file: Path) -> None:
    """Two convolutions, of which the second one takes a mean over distances as YOLO's head does."""
    kernel = np.random.default_rng(0).normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["features"], name="features", kernel_shape=[3, 3]),
        helper.make_node("Softmax", ["features"], ["shares"], axis=1),
        helper.make_node("Conv", ["shares", "distances"], ["mean"], name="mean", kernel_shape=[1, 1]),
    ]
    constants = {"kernel": kernel, "distances": np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)}
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("images", 1, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("mean", 1, [1, 1, 14, 14])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def test_the_mean_over_distances_stays_in_fp32(tmp_path: Path) -> None:
    small_network(tmp_path / "model.onnx")
    assert int8.decoding_convolutions(onnx.load(tmp_path / "model.onnx")) == ["mean"]
    pytest.importorskip("nncf")
    rng = np.random.default_rng(0)
    asked = [[rng.uniform(0, 1, (1, 3, 16, 16)).astype(np.float32)] for _ in range(4)]
    int8.quantise(tmp_path / "model.onnx", asked, tmp_path / "int8" / "model.onnx")
    graph = onnx.load(tmp_path / "int8" / "model.onnx").graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    fed_by = {n.name: {producers.get(i) for i in n.input} for n in graph.node if n.op_type == "Conv"}
    assert "DequantizeLinear" in fed_by["features"] and "DequantizeLinear" not in fed_by["mean"]


def test_the_inputs_to_calibrate_on_are_those_that_serving_gives(tmp_path: Path) -> None:
    small_network(tmp_path / "model.onnx")
    recorder = int8.Recorder("onnxruntime", 1)
    given = np.ones((1, 3, 16, 16), np.float32)
    recorder.load(tmp_path / "model.onnx")(given)
    given[:] = 0
    assert len(recorder.asked) == 1 and (recorder.asked[0][0] == 1).all()


def test_without_pictures_nothing_is_quantised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture to calibrate on"):
        int8.quantise(tmp_path / "model.onnx", [], tmp_path / "out.onnx")


def test_the_table_of_precisions_has_a_place_for_each_figure() -> None:
    row = int8.Row("FP32", "onnxruntime", {"found_rate": 0.5, "median_tip_error": 0.04}, 3.0, 7.0, 6.0)
    lines = int8.table_text([row, int8.Row("INT8", "openvino", {"found_rate": 0.4}, 1.0, 5.0, 4.0)]).splitlines()
    assert len(lines) == 3 and "nan" in lines[2] and len(lines[1]) == len(lines[2])


def test_a_run_can_begin_anew_with_its_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new start removes the checkpoints of the run before, of which the weights may be one."""
    own = tmp_path / "narrow" / "weights" / "last.pt"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"learnt")
    begun: list[bytes] = []

    def start(phase: fused.Phase, epochs: int, data: Path, run: Path, settings: object, weights: Path) -> None:
        begun.append(weights.read_bytes())
        (run / phase.name / "weights").mkdir(parents=True, exist_ok=True)
        (run / phase.name / "weights" / "last.pt").write_bytes(phase.name.encode())

    monkeypatch.setattr(fused, "yolo_class", lambda: lambda file: SimpleNamespace(task="pose"))
    monkeypatch.setattr(fused, "write_data", lambda *args: None)
    monkeypatch.setattr(fused, "write_yaml", lambda folder, widen, ends_only: folder)
    monkeypatch.setattr(fused, "_start", start)
    fused.fit_fused(None, [], tmp_path, fused.FusedSettings(epochs=2), init=own)
    assert begun == [b"learnt", b"wide"]
    assert fused.read_settings(tmp_path).knows_bodies


# --- command --------------------------------------------------------------------------------------------------------


def test_the_command_knows_the_three_kinds_and_two_sizes() -> None:
    from training.stick import command

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--kind", "fused", "--size", "480"])
    assert (args.kind, args.size, args.int8, args.agree) == ("fused", 480, False, None)


def test_int8_says_which_pictures_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["detector", "--int8", "--model", "stick_heatmap"]) == 2
    assert "--int8 needs --table" in capsys.readouterr().err


def test_without_ultralytics_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(UserError, match=r"pip install '.\[train\]'"):
        fused.fit_fused(None, [], tmp_path, fused.FusedSettings())
