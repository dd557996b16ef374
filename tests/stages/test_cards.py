"""A model folder: found by path or by a shipped name, with classes of its own or the shipped ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.errors import UserError
from stages.cards import load_card, load_model_classes, model_folder
from stages.classes import load_classes, models_folder
from stages.detectors import Runtime, open_model
from stages.runtime import Backend


def test_a_shipped_model_is_found_by_its_name_and_any_other_by_its_folder(tmp_path: Path) -> None:
    assert model_folder("geopose") == models_folder() / "geopose"
    assert model_folder(tmp_path) == tmp_path
    assert load_card("geopose")[1] == load_card(models_folder() / "geopose")[1]


def test_a_folder_of_one_s_own_comes_before_a_shipped_model_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "geopose").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_folder("geopose").resolve() == tmp_path / "geopose"


def test_the_shipped_list_of_classes_stands_in_one_place() -> None:
    assert not list(models_folder().glob("*/classes.toml"))
    assert load_model_classes("geopose") == load_classes()


def test_a_folder_without_a_class_file_has_the_shipped_classes(tmp_path: Path) -> None:
    assert load_model_classes(tmp_path) == load_classes()


def test_a_class_file_in_the_folder_comes_first_and_must_be_sound(tmp_path: Path) -> None:
    text = (models_folder() / "classes.toml").read_text(encoding="utf-8")
    (tmp_path / "classes.toml").write_text(text.replace("crown_thrust", "corona"), encoding="utf-8")
    assert load_model_classes(tmp_path).names[0] == "corona"
    (tmp_path / "classes.toml").write_text("[[class")
    with pytest.raises(UserError, match="is not valid"):
        load_model_classes(tmp_path)


IMAGE, BODY = ("image", "uint8", [0, 224, 224, 3]), ("body", "float32", [0, 17, 3])


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
@pytest.mark.parametrize(
    "told",
    [
        [("image", "uint8", [0, 100, 100, 3]), BODY],
        [("image", "float32", [0, 224, 224, 3]), BODY],
        [("image", "uint8", [0, 224, 224]), BODY],
        [("picture", "uint8", [0, 224, 224, 3]), BODY],
        [BODY, IMAGE],
        [IMAGE],
        [],
    ],
    ids=["size", "dtype", "rank", "name", "order", "count", "none"],
)
def test_a_file_that_takes_other_inputs_than_its_card_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, str, list[int]]], backend: Backend
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(model_folder("stick_heatmap"), tmp_path / "mine")
    card = tmp_path / "mine" / "card.toml"
    head, tail = card.read_text().split("[[inputs]]", 1)[0], card.read_text().partition("[metrics]")[2]
    rows = [f'{{name = "{name}", dtype = "{dtype}", shape = {shape}}}' for name, dtype, shape in told]
    card.write_text(f"inputs = [{', '.join(rows)}]\n{head}\n[metrics]{tail}")
    with pytest.raises(UserError, match=r"its card says .* but it takes image uint8 \[0, 224, 224, 3\], body float32"):
        open_model(str(tmp_path / "mine"), Runtime(backend, 1), ["stick"])
