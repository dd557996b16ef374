"""The detectors that ultralytics trains, trained in earnest on a few frames of a real clip, stopped and served."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the training extra: torch")
pytest.importorskip("ultralytics", reason="needs the training extra: ultralytics")
pytest.importorskip("efficientnet_lite_pytorch", reason="needs the training extra: efficientnet_lite_pytorch")

from engine.errors import UserError  # noqa: E402
from stages.skeleton import NODE_COUNT  # noqa: E402
from training import app  # noqa: E402
from training.stick import fused, yolo  # noqa: E402
from training.stick.cache import save_samples  # noqa: E402
from training.stick.data import CACHE_PX  # noqa: E402
from training.stick.network import SIZE_PX  # noqa: E402

CLIP = Path(__file__).parent.parent / "clips" / "tfjs_pose_1.mp4"
SETTINGS = fused.FusedSettings(size=64, epochs=2, pictures=4, batch=2)


def epoch_count(run: Path, phase: str) -> int:
    return len((run / phase / "results.csv").read_text().splitlines()) - 1


def test_the_fused_network_learns_from_a_real_clip_and_goes_on_where_it_was_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = fused.fit_fused(None, [CLIP], tmp_path, SETTINGS)
    labels = sorted((tmp_path / "dataset" / "clips" / "labels").glob("*.txt"))
    assert labels and all(len(file.read_text().split()) == 5 + 3 * NODE_COUNT for file in labels)
    assert [epoch_count(tmp_path, phase.name) for phase in fused.PHASES] == [1, 1]
    wide = torch.load(tmp_path / "wide" / "weights" / "last.pt", weights_only=False)["model"].state_dict()
    learnt = torch.load(weights, weights_only=False)["model"].state_dict()
    assert any(not torch.equal(wide[name], learnt[name]) for name in wide)

    rows = fused.load_fused(weights)(torch.zeros(1, 3, 64, 64))
    assert rows.shape[:2] == (1, 5 + 3 * NODE_COUNT) and torch.isfinite(rows).all()

    shutil.rmtree(tmp_path / "narrow")  # as if it had been stopped after the first phase
    with caplog.at_level(logging.INFO):
        again = fused.fit_fused(None, [], tmp_path, msgspec.structs.replace(SETTINGS, epochs=9), resume=True)
    assert "phase wide: done" in caplog.text and "phase narrow: start, 1 epochs" in caplog.text
    repeated = torch.load(again, weights_only=False)["model"].state_dict()
    assert all(torch.equal(learnt[name], repeated[name]) for name in learnt)


def test_weights_that_know_bodies_are_trained_on_gently_with_a_larger_head(tmp_path: Path) -> None:
    own = yolo.yolo_class()("yolo11n-pose.yaml", task="pose")
    own.save(str(tmp_path / "bodies.pt"))
    bodies = own.model.state_dict()
    weights = fused.fit_fused(None, [CLIP], tmp_path / "run", SETTINGS, init=tmp_path / "bodies.pt")
    learnt = torch.load(weights, weights_only=False)["model"].state_dict()
    (last,) = [name for name in bodies if name.endswith("cv4.0.2.weight")]
    assert len(bodies[last]) == 17 * 3 and len(learnt[last]) == NODE_COUNT * 3
    rate = float((tmp_path / "run" / "wide" / "args.yaml").read_text().split("lr0: ")[1].split()[0])
    assert rate == pytest.approx(fused.PHASES[0].rate * fused.FINE_TUNING), "gently"
    moved = (learnt[last][: 17 * 3, : bodies[last].shape[1]].float() - bodies[last]).abs().max()
    assert 0 < moved < 0.05
    assert fused.read_settings(tmp_path / "run").knows_bodies


def test_the_same_command_does_not_overwrite_a_training_of_yolo_that_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "yolo" / "yolo" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    torch.save({"epoch": 2}, last)
    assert app.main(["detector", "--kind", "yolo", "--clips", str(CLIP.parent), "--work", str(tmp_path)]) == 2
    assert "holds a training that was stopped after epoch 3; add --resume" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["yolo"] and not (tmp_path / "yolo" / "begun.json").exists()


def test_of_the_sticks_own_network_the_surest_box_is_served_in_shares_of_the_crop() -> None:
    rows = torch.zeros(1, 5 + 6, 2)  # box, score and two points of two anchors
    rows[0, 4] = torch.tensor([0.3, 0.8])
    rows[0, 5:, 0], rows[0, 5:, 1] = torch.full((6,), SIZE_PX / 2), torch.full((6,), SIZE_PX / 4)
    rows[0, [7, 10]] = torch.tensor([[0.6, 0.7], [0.6, 0.7]])
    served = yolo.ServedYolo(lambda images: rows)
    points, presence = served(torch.zeros(1, SIZE_PX, SIZE_PX, 3, dtype=torch.uint8))
    assert presence.tolist() == pytest.approx([0.8])
    assert points[0].flatten().tolist() == pytest.approx([0.25, 0.25, 0.7] * 2)


def test_the_sticks_own_network_is_trained_on_crops_and_served(tmp_path: Path) -> None:
    keypoints = np.full((NODE_COUNT, 3), np.nan, np.float32)
    keypoints[:, 2] = 0
    for joint, x, y in ((5, 22, -60), (6, -22, -60), (7, 40, -35), (8, -40, -35), (9, 55, -55), (10, -55, -55),
                        (11, 12, 0), (12, -12, 0), (17, 50, -50), (18, 20, -90)):  # fmt: skip
        keypoints[joint] = (CACHE_PX / 2 + x, CACHE_PX / 2 + y, 0.9)
    images = [np.full((CACHE_PX, CACHE_PX, 3), 60 * k, np.uint8) for k in range(3)]
    save_samples(tmp_path, "train", images, [keypoints] * 3, [keypoints[:17]] * 3, ["a.jpg 1"])
    settings = yolo.YoloSettings(epochs=1, pictures=3, batch=2, clip_share=0.0)
    weights = yolo.fit_yolo(tmp_path, tmp_path / "run", settings)
    served = yolo.load_yolo(weights)
    points, presence = served(torch.zeros(2, SIZE_PX, SIZE_PX, 3, dtype=torch.uint8))
    assert points.shape == (2, 2, 3) and presence.shape == (2,) and ((presence >= 0) & (presence <= 1)).all()
    torch.save(torch.load(weights, weights_only=False) | {"epoch": 0}, weights)
    with pytest.raises(UserError, match="run holds a training that was stopped after epoch 1; add --resume"):
        yolo.refuse_unfinished(tmp_path / "run")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last.pt is damaged; delete"):
        yolo.refuse_unfinished(tmp_path / "run")
