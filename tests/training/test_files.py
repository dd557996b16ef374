"""What is written in the place of something is there whole, or what was there stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine.errors import UserError
from stages.cards import CARD_FILE
from stages.classes import CLASSES_FILE, load_classes
from stages.skeleton import NODE_COUNT
from training import files
from training.data.readers import write_any
from training.data.table import Table, make_table
from training.files import whole_file, whole_model


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever writes a whole file is killed at its end."""

    def replace(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files.os, "replace", replace)
        yield


def people(count: int) -> Table:
    keypoints, names = np.ones((count, NODE_COUNT, 3)), ["a.jpg"] * count
    return make_table(Path(), names, ["neutral"] * count, np.ones((count, 2)), keypoints, names)


def test_a_file_is_what_was_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(OSError), whole_file(file) as part:
        part.write_text("ne")
        raise OSError
    assert file.read_text() == "old"
    with whole_file(file) as part, part.open("a") as stream:
        stream.write("new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


def test_a_place_without_a_name_is_no_file() -> None:
    with pytest.raises(UserError, match=r"\. is a folder; give the name of a file"), whole_file(Path()):
        pass


def test_a_model_is_what_was_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    for name in ("model.onnx", CARD_FILE, CLASSES_FILE):
        (tmp_path / name).write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_model(tmp_path) as part:
        (part / "model.onnx").write_text("ne")
        raise KeyboardInterrupt
    assert {file.read_text() for file in tmp_path.iterdir()} == {"old"}
    with whole_model(tmp_path) as part:
        assert (part / CLASSES_FILE).read_text() == "old", "for the new card to look at"
        for name in ("model.onnx", CARD_FILE):
            (part / name).write_text("new")
    texts = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert texts == {"model.onnx": "new", CARD_FILE: "new", CLASSES_FILE: "old"}


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_corrections_survive_a_writer_that_is_killed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name
    write_any(people(2), file, load_classes().names)
    before = file.read_bytes()
    with killed(monkeypatch):
        write_any(people(1), file, load_classes().names)
    assert file.read_bytes() == before


def test_the_best_weights_survive_a_training_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs the training extra: torch")
    pytest.importorskip("lightning", reason="needs the training extra: lightning")
    from training.geopose.loop import Best

    best, network = tmp_path / "best.pt", torch.nn.Linear(1, 1)
    figures = {"inner_loss": 2.0, "inner_top1": 0.5, "inner_macro_f1": 0.5}
    trainer = SimpleNamespace(callback_metrics=figures, current_epoch=0)
    task = SimpleNamespace(average=SimpleNamespace(module=network))
    callback = Best(best, 10, {})
    callback.on_fit_start(trainer, task)  # type: ignore[arg-type]
    callback.on_validation_end(trainer, task)  # type: ignore[arg-type]
    figures["inner_loss"] = 1.0
    for step in (callback.on_validation_end, callback.on_fit_end):
        with killed(monkeypatch):
            step(trainer, task)  # type: ignore[arg-type]
        assert torch.load(best, weights_only=True)["loss"] == 2.0
