"""What `export` writes beside a model: its classes, where they are not the shipped ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stages.cards import load_card  # noqa: E402
from stages.classes import ClassFile, load_classes  # noqa: E402
from stages.classify import check_card  # noqa: E402
from stages.runtime import Network, load_network  # noqa: E402
from training.classifiers import NETWORKS, network_model  # noqa: E402
from training.geopose import export as export_module  # noqa: E402
from training.geopose.export import PARITY_BOUND, export_onnx, parity, random_inputs, write_card  # noqa: E402
from training.geopose.settings import FitSettings  # noqa: E402

SHIPPED = load_classes()
TOLD = "“Gunting”: cut \\ and 刺"
OWN = ClassFile(tuple(msgspec.structs.replace(c, name=f"my_{c.name}", text=TOLD) for c in SHIPPED.classes[:3]))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_exported_for_batches_of_any_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_model(name).build(len(SHIPPED.classes), FitSettings()).eval()
    file = tmp_path / "model.onnx"
    export_onnx(network, file)
    differences = parity(network, file, random_inputs(60, np.random.default_rng(0)))
    assert max(differences.values()) <= PARITY_BOUND


def test_an_export_that_gives_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = network_model("geopose_graph").build(len(SHIPPED.classes), FitSettings()).eval()
    export_onnx(network, tmp_path / "model.onnx")

    def broken(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        count = len(inputs[0])
        return [np.full((count, len(SHIPPED.classes)), np.nan, np.float32)]

    def load(*args: Any, **kwargs: Any) -> Network:
        return msgspec.structs.replace(load_network(*args, **kwargs), run=broken)

    monkeypatch.setattr(export_module, "load_network", load)
    with pytest.raises(RuntimeError, match="the export is faulty"):
        parity(network, tmp_path / "model.onnx", random_inputs(60, np.random.default_rng(0)))


def written(folder: Path, classes: ClassFile, has_pictures: bool = True) -> Path:
    """A model folder with a card; the model itself is not looked at."""
    (folder / "model.onnx").write_bytes(b"model")
    settings = {"backbone": "mobilenet_v3_small", "pretrained": False}
    trained = {"network": "geopose", "settings": settings, "data_sha256": "ab" * 32}
    write_card(folder, classes, 1.0, 0.5, "noise", {}, "", trained, has_pictures)
    return folder / "classes.toml"


def test_own_classes_go_with_the_model_and_fit_its_card(tmp_path: Path) -> None:
    classes = load_classes(written(tmp_path, OWN))
    assert classes == OWN
    check_card(load_card(tmp_path)[0], classes, "model")


def test_shipped_classes_are_not_written_again(tmp_path: Path) -> None:
    assert not written(tmp_path, SHIPPED).exists()


def test_a_class_file_that_is_there_stays_as_it_was_written(tmp_path: Path) -> None:
    file = written(tmp_path, OWN)
    file.write_text(f"# What we practise.\n{file.read_text(encoding='utf-8')}", encoding="utf-8")
    assert written(tmp_path, OWN).read_text(encoding="utf-8").startswith("# What we practise.")


def test_a_class_file_of_an_earlier_model_is_replaced(tmp_path: Path) -> None:
    written(tmp_path, OWN)
    assert load_classes(written(tmp_path, SHIPPED)) == SHIPPED


def test_a_network_without_pictures_is_not_called_by_a_backbone(tmp_path: Path) -> None:
    written(tmp_path, SHIPPED)
    assert load_card(tmp_path)[0].architecture == "geopose_mobilenet_v3_small"
    written(tmp_path, SHIPPED, has_pictures=False)
    assert load_card(tmp_path)[0].architecture == "geopose"
