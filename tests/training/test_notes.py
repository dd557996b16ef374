"""The notes that commands leave for later calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UserError
from training.notes import read_note


@pytest.mark.parametrize("content", [b"", b'{"seed": ', b'{"seed": "\xff"}', b"[1]"])
def test_a_damaged_note_is_one_sentence_with_the_mend(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is damaged \(.*\); delete it$"):
        read_note(tmp_path / "a.json", dict[str, int], "delete it")


def test_the_notes_of_detectors_are_read_so(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the training extra: torch")
    from training.stick.card_text import read_begun
    from training.stick.fused import read_settings

    (tmp_path / "begun.json").write_text('{"init": "a", "da')
    (tmp_path / "settings.json").write_text('{"epochs": 2')
    with pytest.raises(UserError, match=r"begun\.json is damaged"):
        read_begun(tmp_path)
    with pytest.raises(UserError, match=r"settings\.json is damaged"):
        read_settings(tmp_path)
