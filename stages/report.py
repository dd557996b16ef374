"""A session as a page for the coach: which poses were held, for how long, and what there was to correct.

It is made at the end from the lines of results, so that it tells nothing that they don't, whatever was restarted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

import msgspec

from engine.errors import UserError

SHORTEST_HOLD_S = 0.5
LONGEST_GAP_S = 0.5
"""A pose that is not named for longer ends a hold."""
_ADVICE_SHOWN = 2

_CAUSES = {
    "no_person": "nobody was seen",
    "no_stick": "no stick was seen: stand where it differs from what is behind it",
    "body_unsure": "the body was not seen clearly: the whole of it must be in the picture, in good light",
    "grip_unsure": "the grip was not seen clearly",
    "tip_unsure": "the tip of the stick was not seen clearly",
    "not_upright": "the picture lay on its side: turn the camera",
    "doubt": "the pose was in doubt",
}
"""Why nothing was named."""
_CAVEAT = """About nine of ten poses that are named are right, on people whom the program has never met. Advice compares
with photographs of students; where none is given there may still be something to correct."""


class _Pose(msgspec.Struct):
    label: str
    confidence: float
    accepted: bool


class _Cue(msgspec.Struct):
    sentence: str


class Line(msgspec.Struct):
    """What the page needs of a result."""

    stream: str
    pts: float
    status: str
    reason: str | None = None
    picture: str | None = None
    pose: _Pose | None = None
    feedback: list[_Cue] = []

    @property
    def named(self) -> str | None:
        """The pose that counts, if any."""
        return self.pose.label if self.pose and self.pose.accepted and self.status in ("ok", "held") else None

    @property
    def cause(self) -> str | None:
        """Why nothing is named, where somebody looked."""
        if self.status == "no_person":
            return "no_person"
        return (self.reason if self.reason in _CAUSES else "doubt") if self.status == "unsure" else None


class Hold(msgspec.Struct):
    """A pose that was held, or that a picture shows."""

    stream: str
    label: str
    start_s: float
    end_s: float
    confidences: list[float]
    advice: Counter[str]
    """Sentences, by how many frames showed them."""
    picture: str | None = None

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


def read_lines(file: Path) -> Iterator[Line]:
    """The results of a session. Raises UserError where a line is none."""
    decoder = msgspec.json.Decoder(Line)
    with file.open("rb") as stream:
        for number, text in enumerate(stream, 1):
            try:
                yield decoder.decode(text)
            except msgspec.DecodeError as error:
                raise UserError(f"line {number} of {file} is no result ({error}); give a file of --results") from None


def holds_of(lines: Sequence[Line], neutral: str) -> list[Hold]:
    """Holds in the order of their beginning; of pictures that stand alone, each that is named."""
    holds: list[Hold] = []
    last: dict[str, Hold] = {}
    for line in lines:
        label = line.named
        if label is None or label == neutral or line.pose is None:
            if label == neutral:
                last.pop(line.stream, None)
            continue
        hold = last.get(line.stream)
        goes_on = hold is not None and hold.label == label and 0 <= line.pts - hold.end_s <= LONGEST_GAP_S
        if hold is None or not goes_on or line.picture is not None:
            hold = last[line.stream] = Hold(line.stream, label, line.pts, line.pts, [], Counter(), line.picture)
            holds.append(hold)
        hold.end_s = line.pts
        hold.confidences.append(line.pose.confidence)
        hold.advice.update(cue.sentence for cue in line.feedback)
    return [hold for hold in holds if hold.picture is not None or hold.duration_s >= SHORTEST_HOLD_S]


def write_report(results: Path, page: Path, sources: Sequence[str], neutral: str) -> None:
    """The page of a session, from its results. Raises UserError when they are none."""
    lines = list(read_lines(results))
    page.write_text(report_html(lines, holds_of(lines, neutral), sources, datetime.now()), encoding="utf-8")


def report_html(lines: Sequence[Line], holds: Sequence[Hold], sources: Sequence[str], ended: datetime) -> str:
    """One page without anything from elsewhere."""
    seen_s = sum(_length_s([line.pts for line in lines if line.stream == name]) for name in _streams(lines))
    pictures = {line.picture for line in lines if line.picture is not None}
    over = f"{len(pictures)} pictures" if pictures else _clock(seen_s)
    head = f"{len(holds)} holds of {len({hold.label for hold in holds})} poses in {over}"
    parts = [
        f"<h1>Session of {ended:%Y-%m-%d, %H:%M}</h1>",
        f"<p>{escape(', '.join(sources))}: {head}.</p>",
        _table("Poses", ("pose", "holds", "seconds in all", "longest", "most often to correct"), _pose_rows(holds)),
        _table("In order", ("when", "pose", "seconds", "how sure", "to correct"), _hold_rows(holds, len(sources) > 1)),
        _table("Not named", ("share of the time", "because"), _cause_rows(lines)),
        f"<p class=soft>{_CAVEAT}</p>",
    ]
    return _PAGE.format(body="\n".join(part for part in parts if part))


def _pose_rows(holds: Sequence[Hold]) -> list[tuple[str, ...]]:
    by_pose: dict[str, list[Hold]] = {}
    for hold in holds:
        by_pose.setdefault(hold.label, []).append(hold)
    rows: list[tuple[str, ...]] = []
    for label, members in sorted(by_pose.items(), key=lambda item: -len(item[1])):
        advice = Counter(sentence for hold in members for sentence in hold.advice)
        told = "<br>".join(f"{escape(s)} ({n} of {len(members)})" for s, n in advice.most_common(_ADVICE_SHOWN))
        total, longest = sum(hold.duration_s for hold in members), max(hold.duration_s for hold in members)
        alone = members[0].picture is not None
        times = ("", "") if alone else (f"{total:.1f}", f"{longest:.1f}")
        rows.append((_words(label), str(len(members)), *times, told))
    return rows


def _hold_rows(holds: Sequence[Hold], with_stream: bool) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for hold in holds:
        when = escape(hold.picture) if hold.picture is not None else _clock(hold.start_s)
        when = f"[{escape(hold.stream)}] {when}" if with_stream else when
        told = "<br>".join(escape(sentence) for sentence, _ in hold.advice.most_common())
        sure = f"{100 * sum(hold.confidences) / len(hold.confidences):.0f} %"
        rows.append((when, _words(hold.label), "" if hold.picture else f"{hold.duration_s:.1f}", sure, told))
    return rows


def _cause_rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    looked = [line for line in lines if line.status in ("ok", "held", "unsure", "no_person")]
    causes = Counter(line.cause for line in looked if line.cause)
    return [(f"{100 * n / len(looked):.0f} %", _CAUSES[cause]) for cause, n in causes.most_common()]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; empty without rows."""
    if not rows:
        return ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    titles = "".join(f"<th>{name}</th>" for name in head)
    return f"<h2>{title}</h2>\n<table><tr>{titles}</tr>\n{body}</table>"


def _streams(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.stream for line in lines))


def _length_s(times: Sequence[float]) -> float:
    return max(times) - min(times) if times else 0.0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _words(label: str) -> str:
    return escape(label.replace("_", " "))


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>arnis-stream session</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.15rem; margin-top: 2rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8884 }}
th {{ font-weight: 600 }} td {{ font-variant-numeric: tabular-nums }} .soft {{ opacity: .7 }}
@media print {{ body {{ margin: 0 }} }}
</style>
{body}
</html>
"""
