"""The cache holds what is named now and nothing else; and a card tells what was learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the training extra: torch")

import torch

from engine.errors import UserError
from stages.cards import load_card
from stages.classes import load_classes
from training import app
from training.data.table import Table, make_table, write_table
from training.stick import cache as cache_module
from training.stick import clips, command, fused, yolo
from training.stick.cache import extend_cache, load_samples, save_samples
from training.stick.card_text import data_text
from training.stick.data import CACHE_PX

NAMES = load_classes().names


def people(folder: Path, count: int = 3, name: str = "s1p{:04d}") -> Table:
    """Pictures of so many people of the training, one each."""
    pictures, groups = [], [name.format(i) for i in range(count)]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for group in groups:
        cv2.imwrite(str(folder / "images" / f"{group}_00.jpg"), np.zeros((400, 400, 3), np.uint8))
        pictures.append(f"images/{group}_00.jpg")
    points = np.random.default_rng(0).uniform(100, 300, (count, 19, 3)).astype(np.float32)
    points[..., 2] = 1
    return make_table(
        folder, pictures, ["neutral"] * count, np.full((count, 2), 400), points, pictures, groups=groups,
        splits=["train"] * count,
    )  # fmt: skip


def fill(table: Table | None, folder: Path) -> int:
    """Into the folder's cache; nobody is found in any picture, so the true bodies are taken."""
    if table is not None:
        write_table(table, folder / "table.csv", NAMES)
    file = folder / "table.csv" if table is not None else None
    return extend_cache(file, folder / "cache", "train", lambda image, name: None)


def moved(table: Table) -> Table:
    return replace(table, splits=np.array(["test", *table.splits[1:]]))


def corrected(table: Table) -> Table:
    return replace(table, keypoints=table.keypoints + (1, 1, 0))


def others(table: Table) -> Table:
    return people(table.folder, 2, "s2p{:04d}")


@pytest.mark.parametrize("change", [moved, corrected, others, lambda table: None])
def test_pictures_that_are_not_so_in_the_table_any_more_are_not_learnt_from(change, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table = people(tmp_path)
    assert fill(table, tmp_path) == 3
    with pytest.raises(UserError, match=r"s1p0000_00\.jpg, .*; delete the cache, .* --work"):
        fill(change(table), tmp_path)
    assert fill(table, tmp_path) == 0, "as it was, it serves on"


def test_a_table_that_has_grown_adds_what_is_new(tmp_path: Path) -> None:
    fill(people(tmp_path, 2), tmp_path)
    grown = replace(people(tmp_path, 5), keypoints=np.concatenate([people(tmp_path, 2).keypoints] * 3)[:5])
    assert fill(grown, tmp_path) == 3
    assert [len(shard) for shard in load_samples(tmp_path / "cache", "train")] == [2, 3]


def test_a_making_that_was_killed_is_made_again_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for where in ("cache_sample", "_finish"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(cache_module, where, killed)
            fill(people(tmp_path), tmp_path)
    assert fill(people(tmp_path), tmp_path) == 3
    assert [len(shard) for shard in load_samples(tmp_path / "cache", "train")] == [3]


def test_other_clips_are_not_learnt_from(tmp_path: Path) -> None:
    for name in ("old.mp4", "new.mp4"):
        (tmp_path / name).write_bytes(b"video")
    crop, body = np.zeros((CACHE_PX, CACHE_PX, 3), np.uint8), np.zeros((19, 3), np.float32)
    save_samples(tmp_path / "cache", "clips", [crop], [body], [body[:17]], ["old.mp4 5:60"])
    for given in (["new.mp4"], []):
        with pytest.raises(UserError, match=r"old\.mp4, .*--clips.*; delete the cache"):
            clips.cache_clips([tmp_path / name for name in given], tmp_path / "cache", 60)
    assert clips.cache_clips([tmp_path / "old.mp4"], tmp_path / "cache", 60) == 0


def test_the_command_refuses_a_cache_of_another_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = people(tmp_path)
    fill(table, tmp_path)
    write_table(moved(table), tmp_path / "table.csv", NAMES)
    assert app.main(["detector", "--table", str(tmp_path / "table.csv"), "--work", str(tmp_path)]) == 2
    assert "s1p0000_00.jpg, which is not, or no longer so, in split train of" in capsys.readouterr().err


@pytest.mark.parametrize("lacking", ["split", "picture"])
@pytest.mark.parametrize("beside", [[], ["--clips"]])
def test_a_table_without_a_picture_to_train_on_is_refused(
    beside: list[str], lacking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gym.mp4").write_bytes(b"video")
    table = people(tmp_path)
    if lacking == "split":
        table = replace(table, splits=np.array(["", "val", "test"]))
    else:
        table = replace(table, pictures=np.array(["gone.jpg"] * 3))
    write_table(table, tmp_path / "table.csv", NAMES)
    words = ["detector", "--work", str(tmp_path), "--table", str(tmp_path / "table.csv")]
    assert app.main([*words, *beside, *([str(tmp_path)] if beside else [])]) == 2
    assert "table.csv names no picture of split train that is there" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_pictures_written_for_an_earlier_run_are_not_trained_on(tmp_path: Path) -> None:
    fill(people(tmp_path), tmp_path)
    old = tmp_path / "dataset" / "images" / "train" / "clip_000007.jpg"
    old.parent.mkdir(parents=True)
    old.touch()
    yolo.write_dataset(tmp_path / "cache", tmp_path / "dataset", yolo.YoloSettings(pictures=2))
    assert not old.exists() and list(old.parent.glob("render_*.jpg"))
    stale = tmp_path / "fused" / "clips" / "images" / "old_0000_0.jpg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "s1p0000_00.txt").write_text("")
    fused.write_data(tmp_path / "table.csv", [], tmp_path / "fused", fused.FusedSettings())
    assert not stale.exists() and (tmp_path / "fused" / "train.txt").is_file()


def test_a_card_names_whom_and_which_clips_were_learnt_from(tmp_path: Path) -> None:
    write_table(people(tmp_path), tmp_path / "renders.csv", NAMES)
    write_table(people(tmp_path, 2, "anna{}"), tmp_path / "photos.csv", NAMES)
    assert data_text(tmp_path / "renders.csv", []).startswith("Renders of 3 synthetic people")
    both = data_text(tmp_path / "photos.csv", [Path("gym.mp4"), Path("sam2_juggle.mp4")])
    assert both.startswith("Pictures of 2 people or recordings; Sticks drawn anew into frames of gym.mp4 (")
    assert "sam2_juggle" not in both, "it is held out"


def test_crops_of_an_earlier_size_are_refused(tmp_path: Path) -> None:
    crop, body = np.zeros((CACHE_PX // 2, CACHE_PX // 2, 3), np.uint8), np.zeros((19, 3), np.float32)
    save_samples(tmp_path, "train", [crop], [body], [body[:17]], ["a.jpg 1"])
    with pytest.raises(UserError, match="is of an earlier version; delete it"):
        load_samples(tmp_path, "train")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command without what takes its time."""

    def export(kind: str, work: Path, output: Path) -> None:
        (output / "model.onnx").write_bytes(b"graph")

    monkeypatch.setattr(command, "export", export)
    monkeypatch.setattr(command, "judge", lambda *_: (0.5, {}))
    monkeypatch.setattr(command.evaluate, "StickModel", lambda folder: None)
    monkeypatch.setattr(command, "train", lambda *_: None)


@pytest.mark.usefixtures("untrained")
def test_a_model_stays_as_it_was_while_the_next_one_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(people(tmp_path), tmp_path / "renders.csv", NAMES)
    words = ["detector", "--work", str(tmp_path), "--table", str(tmp_path / "renders.csv")]
    assert app.main(words) == 0
    before = load_card(str(tmp_path / "stick_heatmap"))[0]

    def judge(*_: object) -> None:
        raise UserError("the disk was taken out")

    monkeypatch.setattr(command, "judge", judge)
    monkeypatch.setattr(command, "export", lambda kind, work, output: (output / "model.onnx").write_bytes(b"another"))
    assert app.main([*words, "--evaluate-only"]) == 2
    assert load_card(str(tmp_path / "stick_heatmap"))[0] == before


@pytest.mark.usefixtures("untrained")
def test_the_card_tells_of_the_run_whoever_writes_it_later(tmp_path: Path) -> None:
    write_table(people(tmp_path), tmp_path / "renders.csv", NAMES)
    write_table(people(tmp_path, 2, "anna{}"), tmp_path / "photos.csv", NAMES)
    words = ["detector", "--work", str(tmp_path), "--output", str(tmp_path / "mine"), "--table"]
    assert app.main([*words, str(tmp_path / "renders.csv"), "--init", "stick_heatmap"]) == 0
    assert app.main([*words, str(tmp_path / "photos.csv"), "--evaluate-only"]) == 0
    card = load_card(str(tmp_path / "mine"))[0]
    assert card.data == "Renders of 3 synthetic people with a stick (training/synth; no real person)"
    assert card.source.endswith(", by way of stick_heatmap")


@pytest.mark.usefixtures("untrained")
def test_the_card_counts_the_minutes_of_a_training_that_was_resumed(tmp_path: Path) -> None:
    write_table(people(tmp_path), tmp_path / "table.csv", NAMES)
    (tmp_path / "heatmap").mkdir()
    torch.save({"minutes": 50.0}, tmp_path / "heatmap" / "checkpoint.pt")
    words = ["detector", "--work", str(tmp_path), "--output", str(tmp_path / "mine"), "--resume", "--table"]
    assert app.main([*words, str(tmp_path / "table.csv")]) == 0
    assert 50 <= load_card(str(tmp_path / "mine"))[0].metrics["training_minutes"] < 60
