"""Charts as SVG text: pure functions of numbers. Colours are classes of `page.css`, so that they follow the scheme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from training.geopose.report.figures import ReliabilityBin

_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 22, 22, 42
"""Room around the plot, in units of the drawing."""


@dataclass(frozen=True)
class Axis:
    """One axis of a plot."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    percent: bool = False

    def text(self, value: float) -> str:
        return f"{value:.0%}" if self.percent else f"{value:g}"


SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Plot:
    """A frame with axes, on which layers are drawn; `svg` is the whole."""

    def __init__(self, x: Axis, y: Axis, width: int = 420, height: int = 300) -> None:
        self._x, self._y, self._width, self._height = x, y, width, height
        self._layers: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a value, cut to the frame."""
        across = (min(max(x, self._x.low), self._x.high) - self._x.low) / ((self._x.high - self._x.low) or 1)
        up = (min(max(y, self._y.low), self._y.high) - self._y.low) / ((self._y.high - self._y.low) or 1)
        room = self._width - _LEFT - _RIGHT, self._height - _TOP - _BOTTOM
        return _LEFT + across * room[0], _TOP + (1 - up) * room[1]

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        if points:
            places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
            self._layers.append(f'<polyline class="line {style}" points="{places}"/>')

    def dot(self, x: float, y: float, style: str, title: str, radius: float = 4) -> None:
        a, b = self.at(x, y)
        self._layers.append(
            f'<circle class="dot {style}" cx="{a:.1f}" cy="{b:.1f}" r="{radius:.1f}">'
            f"<title>{escape(title)}</title></circle>"
        )

    def bar(self, x: float, y: float, base: float, half_width: float, style: str) -> None:
        left, right = self.at(x - half_width, 0)[0], self.at(x + half_width, 0)[0]
        ends = sorted((self.at(x, y)[1], self.at(x, base)[1]))
        self._layers.append(
            f'<rect class="{style}" x="{left:.1f}" y="{ends[0]:.1f}" width="{right - left:.1f}" '
            f'height="{ends[1] - ends[0]:.1f}"/>'
        )

    def note(self, x: float, y: float, text: str, anchor: str = "start", dx: float = 0, dy: float = 0) -> None:
        a, b = self.at(x, y)
        self._layers.append(
            f'<text class="note" x="{a + dx:.1f}" y="{b + dy:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def svg(self, title: str) -> str:
        return _svg(self._width, self._height, title, [*self._axes(), *self._layers])

    def _axes(self) -> list[str]:
        parts = []
        for tick in self._y.ticks:
            x0, y = self.at(self._x.low, tick)
            parts.append(f'<line class="grid" x1="{x0:.1f}" x2="{self._width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{x0 - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">'
                         f"{self._y.text(tick)}</text>")  # fmt: skip
        for tick in self._x.ticks:
            x, y0 = self.at(tick, self._y.low)
            parts.append(f'<text class="tick" x="{x:.1f}" y="{y0 + 17:.1f}" text-anchor="middle">'
                         f"{self._x.text(tick)}</text>")  # fmt: skip
        middle = (_LEFT + self._width - _RIGHT) / 2
        parts.append(f'<text class="axis" x="{middle}" y="{self._height - 5}" text-anchor="middle">'
                     f"{escape(self._x.label)}</text>")  # fmt: skip
        parts.append(f'<text class="axis" transform="translate(13 {(_TOP + self._height - _BOTTOM) / 2}) rotate(-90)" '
                     f'text-anchor="middle">{escape(self._y.label)}</text>')  # fmt: skip
        return parts


def reliability_chart(bins: Sequence[ReliabilityBin]) -> str:
    """How often it is right (dots) where it says how sure it is; on the diagonal, confidence means what it says."""
    plot = Plot(Axis("what it says: confidence", 0, 1, SHARES, True), Axis("what is right", 0, 1, SHARES, True))
    for confidence, accuracy, count in bins:
        plot.bar(confidence, min(accuracy, confidence), 0, 0.035, "bar")
        plot.bar(confidence, confidence, accuracy, 0.035, "gap")
        plot.dot(confidence, accuracy, "accent", f"said {confidence:.0%}, right {accuracy:.0%}, {count} samples", 4)
        plot.note(confidence, max(confidence, accuracy), str(count), "middle", dy=-8)
    plot.line([(0, 0), (1, 1)], "faint dashed")
    return plot.svg("Reliability diagram")


def risk_chart(points: Sequence[tuple[float, float]], chosen: tuple[float, float] | None) -> str:
    """Share of wrong answers among those given, as ever more are given; `chosen` is where the threshold stands."""
    highest = max((risk for _, risk in points), default=0.1)
    top = next(limit for limit in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0) if highest <= limit)
    ticks = tuple(round(top * i / 4, 3) for i in range(5))
    plot = Plot(Axis("answered", 0, 1, SHARES, True), Axis("wrong among them", 0, top, ticks, True))
    plot.line(points, "accent")
    if chosen is not None:
        plot.line([(chosen[0], 0), chosen], "warm dashed")
        plot.dot(*chosen, "warm", f"threshold: {chosen[0]:.0%} answered, {chosen[1]:.1%} of them wrong", 5)
        left = chosen[0] > 0.6
        plot.note(*chosen, "threshold", "end" if left else "start", dx=-9 if left else 9, dy=4)
    return plot.svg("Risk against coverage")


def curve_chart(series: Sequence[tuple[str, Sequence[float], str]], label: str, percent: bool = False) -> str:
    """Values by epoch; each series has a name, its values and a style."""
    every = [value for _, values, _ in series for value in values]
    epochs = max(len(values) for _, values, _ in series)
    low, high = (0.0, 1.0) if percent else (min(0.0, *every), max(every) * 1.05)
    ticks = SHARES if percent else tuple(float(f"{low + (high - low) * i / 4:.2g}") for i in range(5))
    numbers = sorted({1, *(round(1 + (epochs - 1) * i / 4) for i in range(5))})
    plot = Plot(Axis("epoch", 1, max(2, epochs), tuple(map(float, numbers))), Axis(label, low, high, ticks, percent))
    for name, values, style in series:
        points = list(enumerate(map(float, values), 1))
        plot.line(points, style)
        plot.dot(*points[-1], style, f"{name}: {values[-1]:.3f} after {len(values)} epochs", 3)
    return plot.svg(label)


def interval_bar(value: float, interval: tuple[float, float] | None, width: int = 150, height: int = 18) -> str:
    """A share as a dot on a track from 0 to 100 %, with its interval."""
    middle, room = height / 2, width - 10
    parts = [f'<line class="track" x1="5" x2="{width - 5}" y1="{middle}" y2="{middle}"/>']
    if interval is not None:
        low, high = (5 + share * room for share in interval)
        parts.append(f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle class="dot accent" cx="{5 + value * room:.1f}" cy="{middle}" r="4.5"/>')
    return _svg(width, height, f"{value:.0%}", parts, "spark")


def confusion_chart(matrix: Sequence[Sequence[int]], names: Sequence[str], look_alikes: set[frozenset[str]]) -> str:
    """Rows: what it was; columns: what was said; the darker, the larger the share of the row. Pairs that look alike are
    framed."""
    cell, left, top = 38, 148, 128
    width, height = left + cell * len(names) + 76, top + cell * len(names) + 8
    parts = []
    for i, name in enumerate(names):
        middle = cell * i + cell / 2
        text = escape(name.replace("_", " "))
        parts.append(f'<text class="tick" x="{left - 8}" y="{top + middle + 4}" text-anchor="end">{text}</text>')
        place = f"translate({left + middle + 4} {top - 8}) rotate(-52)"
        parts.append(f'<text class="tick" transform="{place}">{text}</text>')
        total = sum(matrix[i]) or 1
        for j, count in enumerate(matrix[i]):
            parts.extend(_confusion_cell(
                left + cell * j, top + middle - cell / 2, cell, count, count / total, i == j,
                frozenset((name, names[j])) in look_alikes,
                f"{name} named {names[j]}: {count} of {total}".replace("_", " "),
            ))  # fmt: skip
    return _svg(width, height, "Confusion matrix", parts, "confusion")


def _confusion_cell(
    x: float, y: float, side: int, count: int, share: float, right: bool, alike: bool, title: str
) -> list[str]:
    style = "hit" if right else "miss"
    box = f'x="{x + 1.5}" y="{y + 1.5}" width="{side - 3}" height="{side - 3}" rx="4"'
    parts = [f'<rect class="cell" {box}/>']
    if count:  # never so strong that the number on it is hard to read
        parts.append(f'<rect class="{style}" fill-opacity="{0.08 + 0.44 * share:.2f}" {box}/>')
    if alike:
        parts.append(f'<rect fill="none" stroke="currentColor" class="alike" {box}/>')
    if count:
        parts.append(f'<text class="count" x="{x + side / 2}" y="{y + side / 2 + 4.5}" text-anchor="middle">'
                     f"{count}</text>")  # fmt: skip
    return [f"<g><title>{escape(title)}</title>", *parts, "</g>"]


def _svg(width: float, height: float, title: str, parts: Sequence[str], style: str = "chart") -> str:
    return (
        f'<svg class="{style}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
