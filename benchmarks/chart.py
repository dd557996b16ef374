"""Bar charts as SVG text: panels for each part that names a column to draw."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.figures import Part, Value, as_cell

WIDTH, LABELS, ROW, MARGIN = 900, 360, 20, 16
"""Pixels: width of the picture, room for labels, height of a bar with its gap, border."""
_BAR = WIDTH - LABELS - 2 * MARGIN - 80


def draw_charts(parts: Sequence[Part]) -> str:
    """All panels, one below the other."""
    panels, y = [], MARGIN
    for part in parts:
        for title, bars in panels_of(part).items():
            panels.append(_panel(title, bars, y))
            y += (len(bars) + 3) * ROW
    style = "text{font:13px sans-serif;fill:#222}.t{font-weight:bold}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + MARGIN}">'
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, f"<style>{style}</style>", paper, *panels, "</svg>", ""])


def panels_of(part: Part) -> dict[str, list[tuple[str, float]]]:
    """Label and length of the bars, by the title of their panel."""
    panels: dict[str, list[tuple[str, float]]] = {}
    if (chart := part.chart) is None:
        return panels
    for row in part.rows:
        value = row.get(chart.value)
        if isinstance(value, int | float):
            title = f"{part.title}, {row[chart.panels]}" if chart.panels else part.title
            words = [_word(column, row.get(column)) for column in chart.labels]
            panels.setdefault(f"{title}: {_drawn(chart.value)}", []).append((" ".join(words), float(value)))
    return panels


def _word(column: str, value: Value) -> str:
    return str(value) if isinstance(value, str) else f"{column} {value}"


def _drawn(column: str) -> str:
    return f"{column.replace('_', ' ')}, {'less' if column.endswith('_ms') else 'more'} is better"


def _panel(title: str, bars: Sequence[tuple[str, float]], top: int) -> str:
    longest = max(value for _, value in bars) or 1.0
    lines = [f'<text class="t" x="{MARGIN}" y="{top + 14}">{escape(title)}</text>']
    for number, (label, value) in enumerate(bars, 1):
        y = top + number * ROW + 6
        length = max(1.0, value / longest * _BAR)
        lines += [
            f'<text x="{LABELS + MARGIN - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>',
            f'<rect fill="#3b7dd8" x="{LABELS + MARGIN}" y="{y}" width="{length:.1f}" height="{ROW - 5}"/>',
            f'<text x="{LABELS + MARGIN + length + 6:.1f}" y="{y + 12}">{as_cell(value)}</text>',
        ]
    return "\n".join(lines)
