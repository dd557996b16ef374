"""The card of a model that training made, as a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from stages.cards import CARD_FILE, Card


def save_card(card: Card, folder: Path) -> None:
    """Write the card into a model's folder: plain values first, tables after, which TOML demands."""
    values = msgspec.to_builtins(card)
    inputs = values.pop("inputs")
    text = _table({key: value for key, value in values.items() if value not in (None, "", (), [], {})})
    start = text.find("\n[")
    plain, tables = (text, "") if start < 0 else (text[:start], text[start:])
    text = plain + "".join("\n[[inputs]]\n" + _table(item) for item in inputs) + tables
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def _table(values: dict[str, Any], prefix: str = "") -> str:
    """Keys and values of a table, nested tables after them under their full names."""
    lines = [f"{_key(key)} = {_value(value)}\n" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            lines.append(f"\n[{prefix}{_key(key)}]\n" + _table(value, f"{prefix}{_key(key)}."))
    return "".join(lines)


def _key(name: str) -> str:
    """Figures go by what people call their views and clips: `front left`, `v1.2`."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: object) -> str:
    # JSON's escapes of what lies beyond 16 bits are none of TOML's.
    return json.dumps(value, ensure_ascii=False)
