"""The few forms that the page is made of, as HTML text. Cells and captions are HTML already; `words` makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Number:
    """A cell that stands to the right; `tone` is weak, strong, mean or empty."""

    text: str
    tone: str = ""


def words(name: object) -> str:
    """A name as people read it, safe in HTML."""
    return escape(str(name).replace("_", " "))


def table(head: Sequence[str], rows: Sequence[Sequence[str | Number]]) -> str:
    """A table that scrolls sideways where it is too wide; empty text without rows."""
    if not rows:
        return ""
    heads = "".join(
        f"<th scope=col{' class=number' if isinstance(cell, Number) else ''}>{text}</th>"
        for text, cell in zip(head, rows[-1], strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="panel"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def card(value: str, text: str, more: str = "", main: bool = False) -> str:
    """One figure, large."""
    extra = f"<span>{more}</span>" if more else ""
    return f'<div class="card{" main" if main else ""}"><b>{value}</b><span>{text}</span>{extra}</div>'


def figure(chart: str, caption: str = "") -> str:
    """A chart in a frame with what it shows."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="panel">{chart}{below}</figure>'


def folded(summary: str, inside: str) -> str:
    """What only some want to see."""
    return f"<details><summary>{summary}</summary>{inside}</details>"


def key(name: str, style: str) -> str:
    """The name of a line in a chart, in its colour."""
    return f'<span class="key {style}">{words(name)}</span>'


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, whatever they are; those that are empty are left out."""
    kept = {name: value for name, value in values.items() if value not in ("", None, [], {})}
    return "<dl>" + "".join(f"<dt>{words(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in kept.items()) + "</dl>"


def _cell(cell: str | Number) -> str:
    return f'<td class="number {cell.tone}">{cell.text}</td>' if isinstance(cell, Number) else f"<td>{cell}</td>"
