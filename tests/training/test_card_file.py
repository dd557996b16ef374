"""A card says what training found out, whatever people call their data."""

from __future__ import annotations

from pathlib import Path

from stages.cards import Card, CardInput, load_card, sha256_of
from training.card_file import save_card


def test_a_written_card_is_read_back_unchanged(tmp_path: Path) -> None:
    metrics = {
        "test": {"rate": 0.5}, "minutes": 3.0, "top1_by_view": {"front left": 0.5, "v1.2": 0.25, '"high"': 0.0},
        "drawn_by_clip": {"in the gym 🥋": {"found_rate": 1.0}},
    }  # fmt: skip
    (tmp_path / "model.onnx").write_bytes(b"graph")
    card = Card(
        task="stick", architecture="a", file="model.onnx", sha256=sha256_of(tmp_path / "model.onnx"), licence="b",
        inputs=(CardInput("image", "uint8", (0, 8, 8, 3), "NHWC", "RGB"),), outputs=("points",), source='said "so"',
        data="clips 🥋", threshold=0.5, metrics=metrics, made_with={"torch": "2"},
    )  # fmt: skip
    save_card(card, tmp_path)
    assert load_card(tmp_path)[0] == card
