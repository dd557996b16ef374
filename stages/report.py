"""A session as a page for the coach: which poses were held, for how long, and what there was to correct.

It is made at the end from the lines of results, so that it tells nothing that they don't, whatever was restarted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec

from engine.errors import UserError
from engine.packet import Ending
from stages.cards import load_card
from stages.classes import either_text
from stages.classify import classes_of, settings_of
from stages.packets import LONGEST_STEP_S, Hand
from stages.tally import PoseTally

SHORTEST_HOLD_S = 0.5
"""What is named for less is no hold."""
LONGEST_BREAK_S = 0.25
"""A hold goes on over so much of anything else: a doubt, or a frame in which the person was missed."""
SHORTEST_ADVICE_S = 0.3
"""A sentence that was to be read for less in a hold is not repeated."""
_ADVICE_SHOWN = 2

_EITHER = "either"
_CAUSES = {
    "no_person": "nobody was seen",
    "no_stick": "no stick was seen: stand where it differs from what is behind it",
    "body_unsure": "the body was not seen clearly: the whole of it must be in the picture, in good light",
    "grip_unsure": "the grip was not seen clearly",
    "tip_unsure": "the tip of the stick was not seen clearly",
    "not_upright": "the body was not upright: stand straight; if the picture lies on its side, turn the camera",
    _EITHER: "it was one of two poses, not sure which",
    "doubt": "the pose was in doubt",
}
"""Why nothing was named."""
_NOT_LOOKED_AT = get_args(Ending)
_TOO_FAST = ("replaced", "too_old", "late", "overrun")
"""Why a frame was dropped that a faster machine would have looked at."""
_WORTH_SAYING = 0.01
_SECONDS = (
    "Seconds count as long as a pose is named, with the way into it and out of it; a hold is named for "
    f"{SHORTEST_HOLD_S} s or longer, and what is shorter counts into the sum of a pose that was held."
)
_LEFT_HANDED = "A left-hander's poses are named as a right-hander does them: left is right in their names."
_NOT_APART = "People are not told apart, nor two views of one: all that was seen is added up."
_FEWEST_PEOPLE = 5
"""Of fewer in a model's test no share is told."""
_CAVEAT = "Advice compares with good examples; where none is given there may still be something to correct."


class _Pose(msgspec.Struct):
    label: str
    confidence: float
    accepted: bool
    alternative: str | None = None


class _Cue(msgspec.Struct):
    sentence: str


class _Person(msgspec.Struct):
    track: int


class _Stick(msgspec.Struct):
    hand: Hand


class Line(msgspec.Struct):
    """What the page needs of a result."""

    stream: str
    pts: float
    status: str
    reason: str | None = None
    picture: str | None = None
    person: _Person | None = None
    stick: _Stick | None = None
    pose: _Pose | None = None
    feedback: list[_Cue] = []

    @property
    def named(self) -> str | None:
        """The pose that counts, if any."""
        return self.pose.label if self.pose and self.pose.accepted else None

    @property
    def either(self) -> str:
        """In words, the two poses of which it is told to be one, if it is."""
        pose = self.pose
        return either_text(pose.label, pose.alternative) if pose and pose.alternative and not pose.accepted else ""

    @property
    def names(self) -> frozenset[str]:
        """What it may be, of what is told: one pose, two or none."""
        if self.pose is None or not (self.named or self.either):
            return frozenset()
        return frozenset(name for name in (self.pose.label, self.named or self.pose.alternative) if name)

    @property
    def cause(self) -> str | None:
        """Why nothing is named, where somebody looked."""
        if self.status == "no_person":
            return "no_person"
        if self.status != "unsure" or self.reason == "nothing_seen_yet":
            return None
        doubt = _EITHER if self.either else "doubt"
        return self.reason if self.reason in _CAUSES else doubt


class Hold(msgspec.Struct):
    """A pose that was held, or that a picture shows; or two of which it was one."""

    stream: str
    names: frozenset[str]
    """What it may have been all the time."""
    start_s: float
    end_s: float
    picture: str | None = None
    label: str = ""
    """The pose, where it was named alone."""
    named_s: float = 0.0
    """Without the breaks."""
    either_s: dict[str, float] = {}
    """By the words for two poses, for how long it was told to be one of them."""
    confidences: list[float] = []
    """Of the frames in which it was named alone."""
    left_handed: int = 0
    """How many of these frames show the stick in the left hand."""
    told_s: dict[str, float] = {}
    """By sentence, for how long it was to be read."""

    @property
    def is_either(self) -> bool:
        """Whether it was never named alone, or not long enough."""
        return not self.label or (self.picture is None and self.named_s < SHORTEST_HOLD_S)

    @property
    def told(self) -> str:
        """The pose, or in words the two that it was told to be longest."""
        return max(self.either_s, key=lambda two: self.either_s[two]) if self.is_either else self.label

    @property
    def told_for_s(self) -> float:
        """Without the breaks: where it was named alone for that, else for how long it was told to be one of two too."""
        return self.named_s + (sum(self.either_s.values()) if self.is_either else 0.0)

    @property
    def lasts(self) -> bool:
        """Whether it was told long enough to be a hold; a picture always is."""
        return self.picture is not None or self.told_for_s >= SHORTEST_HOLD_S

    @property
    def advice(self) -> list[str]:
        """What was to be read long enough, the longest first; all of a picture that stands alone."""
        long = [said for said, told_s in self.told_s.items() if self.picture or told_s >= SHORTEST_ADVICE_S]
        return sorted(long, key=lambda said: -self.told_s[said])


def read_lines(file: Path) -> Iterator[Line]:
    """The results of a session, but for a last line that was cut off. Raises UserError where another is none."""
    decoder = msgspec.json.Decoder(Line)
    with file.open("rb") as stream:
        for number, text in enumerate(stream, 1):
            if not text.endswith(b"\n"):
                return
            try:
                yield decoder.decode(text)
            except msgspec.DecodeError as error:
                raise UserError(f"line {number} of {file} is no result ({error}); give a file of --results") from None


def holds_of(lines: Sequence[Line], neutral: str, tally: PoseTally) -> list[Hold]:
    """Holds in the order of their beginning; of pictures that stand alone, each that is named. All time goes into
    `tally`, also that of what is too short for a hold."""
    holds = []
    for stream in dict.fromkeys(line.stream for line in lines):
        own = [line for line in lines if line.stream == stream and line.status not in _NOT_LOOKED_AT]
        holds += [hold for hold in _joined(_runs(own, tally)) if hold.label != neutral]
    return sorted(holds, key=lambda hold: hold.start_s)


def stand_alone(lines: Sequence[Line]) -> bool:
    """Whether these are pictures of a folder that is not played as a film."""
    times = [line.pts for line in lines if line.picture is not None]
    return bool(times) and all(after - before > LONGEST_STEP_S for before, after in pairwise(times))


def _runs(lines: Sequence[Line], tally: PoseTally) -> Iterator[Hold]:
    """Stretches of one answer without a break; of pictures that stand alone, each."""
    run: Hold | None = None
    alone = stand_alone(lines)
    for line in lines:
        step_s = tally.add(line.stream, line.pts, line.named, line.picture)
        if run is not None and (line.names != run.names or not step_s):
            yield run
            run = None
        if not line.names or line.pose is None:
            continue
        if run is None:
            run = Hold(line.stream, line.names, line.pts - step_s, line.pts, line.picture if alone else None)
        run.end_s = line.pts
        if line.named is None:
            run.either_s[line.either] = run.either_s.get(line.either, 0.0) + step_s
            continue
        run.label = line.named
        run.named_s += step_s
        run.confidences.append(line.pose.confidence)
        run.left_handed += line.stick is not None and line.stick.hand == "left"
        for cue in line.feedback:
            run.told_s[cue.sentence] = run.told_s.get(cue.sentence, 0.0) + step_s
    if run is not None:
        yield run


def _joined(runs: Iterable[Hold]) -> list[Hold]:
    """Runs of one pose with only a short break between them are one hold, whatever was named in it, and so are runs of
    two poses of which it may be one; what is short then is none."""
    holds: list[Hold] = []
    for run in runs:
        broken_off = len(holds) - 1
        while broken_off >= 0 and run.start_s - holds[broken_off].end_s <= LONGEST_BREAK_S:
            if holds[broken_off].names & run.names:
                break
            broken_off -= 1
        else:
            holds.append(run)
            continue
        hold = holds[broken_off]
        del holds[broken_off + 1 :]  # of no more than the break
        hold.end_s, hold.names, hold.label = run.end_s, hold.names & run.names, hold.label or run.label
        hold.named_s += run.named_s
        hold.confidences += run.confidences
        hold.left_handed += run.left_handed
        for two, told_s in run.either_s.items():
            hold.either_s[two] = hold.either_s.get(two, 0.0) + told_s
        for sentence, told_s in run.told_s.items():
            hold.told_s[sentence] = hold.told_s.get(sentence, 0.0) + told_s
    return [hold for hold in holds if hold.lasts]


def write_report(results: Path, page: Path, sources: Sequence[str], sections: Mapping[str, Any]) -> None:
    """The page of a session, from its results and the program's settings. Raises UserError when they are none."""
    lines = list(read_lines(results))
    tally = PoseTally()
    holds = holds_of(lines, classes_of(sections).neutral, tally)
    text = report_html(lines, holds, tally.seconds(), sources, datetime.now(), caveat(sections))
    page.write_text(text, encoding="utf-8")


def caveat(sections: Mapping[str, Any]) -> str:
    """How far the page can be believed: by the model's card, where its threshold is used."""
    settings = settings_of(sections)
    card, _ = load_card(settings.model)
    right, people = card.metrics.get("accepted_accuracy"), card.metrics.get("people", _FEWEST_PEOPLE)
    # A card of somebody's own may hold anything there, and 0 where no answer was accepted.
    if settings.threshold or not (isinstance(right, float) and right and isinstance(people, int)):
        return _CAVEAT
    if people < _FEWEST_PEOPLE:
        return f"The model was tested on too few people to say how often a named pose is right. {_CAVEAT}"
    tested = f"In the test on the model's card {100 * right:.0f} % of the named poses were right"
    whom = "single pictures of drawn people" if card.data.startswith("Renders") else "single pictures"
    return f"{tested} ({whom}, the weapon hand known); on you nobody has tested it. {_CAVEAT}"


def report_html(
    lines: Sequence[Line], holds: Sequence[Hold], named_s: Mapping[str, float], sources: Sequence[str],
    ended: datetime, said: str,
) -> str:
    """One page without anything from elsewhere; `named_s` has the seconds by pose; `said` stands at its end."""
    pictures = {(line.stream, line.picture) for line in lines if line.picture is not None}
    folders = {stream for stream, _ in pictures}
    times = [line.pts for line in lines if line.stream not in folders]
    over = ([_clock(_length_s(times))] if times else []) + ([_count(len(pictures), "picture")] if pictures else [])
    named = [hold for hold in holds if not hold.is_either]
    poses = _count(len({hold.label for hold in named}), "pose")
    head = f"{_count(len(named), 'hold')} of {poses} in {' and '.join(over)}"
    if len(holds) > len(named):
        head += f", and {len(holds) - len(named)} that may be one of two"
    names = [f"camera {name}" if name.isdigit() else name for name in sources]
    if len(names) > 1:
        names = [f"[{number}] {name}" for number, name in enumerate(names)]
    frames = "frames" if times else "pictures"
    lasting, shown = [hold for hold in named if hold.picture is None], [hold for hold in named if hold.picture]
    alone = all(hold.picture for hold in holds)
    said = " ".join([*_notes(lines, named), *([] if alone else [_SECONDS]), said])
    parts = [
        f"<h1>Session of {ended:%Y-%m-%d, %H:%M}</h1>",
        f"<p>{escape(', '.join(names))}: {head}.{_losses(lines)}</p>",
        _table("Poses", ("pose", "holds", "named for, s", "longest, s", "most often to correct"),
               _pose_rows(lasting, named_s, alone=False)),
        _table("Poses in pictures" if lasting else "Poses", ("pose", "pictures", "most often to correct"),
               _pose_rows(shown, named_s, alone=True)),
        _table("In order",
               (*(("picture", "pose") if alone else ("when", "pose", "told for, s")), "how sure it was", "to correct"),
               _hold_rows(holds, len(sources) > 1, alone)),
        _table("Not named", (f"share of the {frames}", "because"), _cause_rows(lines)),
        f"<p class=soft>{escape(said)}</p>",
    ]  # fmt: skip
    return _PAGE.format(body="\n".join(part for part in parts if part))


def _losses(lines: Sequence[Line]) -> str:
    """What the session lacks, in sentences; empty where it is whole."""
    lost, before = 0, dict[str, str]()
    for line in lines:
        lost += line.status == "source_lost" != before.get(line.stream)
        before[line.stream] = line.status
    frames = [line for line in lines if line.status not in ("source_lost", "end")]
    passed_over = sum(line.status == "dropped" and line.reason in _TOO_FAST for line in frames) / max(1, len(frames))
    dropped = sum(line.status == "dropped" for line in frames) / max(1, len(frames)) - passed_over
    said = f" The source was lost {_count(lost, 'time')}." if lost else ""
    if passed_over >= _WORTH_SAYING:
        said += f" {100 * passed_over:.0f} % of the frames were not looked at, as it went too fast."
    if dropped >= _WORTH_SAYING:
        said += f" {100 * dropped:.0f} % of the frames were lost."
    return said


def _notes(lines: Sequence[Line], holds: Sequence[Hold]) -> Iterator[str]:
    """What to know of the people before one reads the rows."""
    named = [line for line in lines if line.named]
    if len({(line.stream, line.person.track) for line in named if line.person}) > 1:
        yield _NOT_APART
    if any(2 * hold.left_handed > len(hold.confidences) for hold in holds):
        yield _LEFT_HANDED


def _pose_rows(holds: Sequence[Hold], named_s: Mapping[str, float], alone: bool) -> list[tuple[str, ...]]:
    by_pose: dict[str, list[Hold]] = {}
    for hold in holds:
        by_pose.setdefault(hold.label, []).append(hold)
    rows: list[tuple[str, ...]] = []
    for label, members in sorted(by_pose.items(), key=lambda item: -len(item[1])):
        advice, told_s = Counter[str](), Counter[str]()
        for hold in members:
            advice.update(hold.advice)
            told_s.update(hold.told_s)
        ranked = sorted(advice, key=lambda said: (-advice[said], -told_s[said]))[:_ADVICE_SHOWN]
        of = f"of {len(members)} {'pictures' if alone else 'holds'}"
        told = "<br>".join(f"{escape(said)} (in {advice[said]} {of})" for said in ranked)
        times = () if alone else (f"{named_s[label]:.1f}", f"{max(hold.named_s for hold in members):.1f}")
        rows.append((_words(label), str(len(members)), *times, told))
    return rows


def _hold_rows(holds: Sequence[Hold], with_stream: bool, alone: bool) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for hold in holds:
        when = escape(hold.picture) if hold.picture is not None else _clock(hold.start_s)
        when = f"[{escape(hold.stream)}] {when}" if with_stream else when
        told = "<br>".join(map(escape, hold.advice))
        sure = "one of two" if hold.is_either else f"{100 * sum(hold.confidences) / len(hold.confidences):.0f} %"
        times = () if alone else ("" if hold.picture else f"{hold.told_for_s:.1f}",)
        rows.append((when, _words(hold.told), *times, sure, told))
    return rows


def _cause_rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    looked = [line for line in lines if line.status in ("ok", "held", "unsure", "no_person")]
    causes = Counter(line.cause for line in looked if line.cause)
    shares = {_CAUSES[cause]: n / len(looked) for cause, n in causes.most_common()}
    return [(f"{100 * share:.0f} %", said) for said, share in shares.items() if share >= _WORTH_SAYING]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; empty without rows."""
    if not rows:
        return ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    titles = "".join(f"<th scope=col>{name}</th>" for name in head)
    return f"<h2>{title}</h2>\n<table><thead><tr>{titles}</tr></thead>\n{body}</table>"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


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
tr {{ border-bottom: 1px solid #8884; break-inside: avoid }} p, td {{ overflow-wrap: anywhere }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0 }}
tr > :not(:last-child) {{ min-width: 4rem }}
th {{ font-weight: 600 }} td {{ font-variant-numeric: tabular-nums }} .soft {{ opacity: .7 }}
@media (max-width: 40rem) {{
  tr {{ display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)) }}
  tr > :last-child {{ grid-column: 1 / -1; padding-top: 0 }} td:empty {{ display: none }}
}}
@media print {{ body {{ margin: 0 }} }}
</style>
{body}
</html>
"""
