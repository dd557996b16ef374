"""The page's sections, each from figures to HTML text; an empty text where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import msgspec

from training.geopose.explain import Explained, Explanation
from training.geopose.folds import GROUPED
from training.geopose.hiding import FEWEST_SAMPLES
from training.geopose.measure import interval_text
from training.geopose.report import charts
from training.geopose.report.figures import ClassRow, RunReport, class_rows, look_alike_pairs, mixed_pairs, names_text
from training.geopose.report.history import History
from training.geopose.report.html import Number, card, facts, figure, folded, key, table, words

_CARDS = (
    ("top2", "{:.1%}", "right name among the first two", ""),
    ("top1_hand_from_one_picture", "{:.1%}", "named right, weapon hand from one picture", "elsewhere it is known"),
    ("top1_without_crop", "{:.1%}", "named right without the hand's picture", ""),
    ("coverage", "{:.1%}", "answered", "the rest is called unsure"),
    ("accepted_accuracy", "{:.1%}", "right among the answered", ""),
    ("poses_top1", "{:.1%}", "named right, poses only", "neutral left out"),
    ("poses_top2", "{:.1%}", "among the first two, poses only", "neutral left out"),
    ("neutral_taken_for_pose", "{:.1%}", "of neutral taken for a pose", ""),
    ("macro_f1", "{:.3f}", "macro-F1", "all poses weigh alike"),
    ("kappa", "{:.3f}", "Cohen's kappa", "0 is chance, 1 perfect"),
    ("ece", "{:.3f}", "calibration error", "how far confidence is off"),
)
"""Figure, how it is written, what it says, and a hint."""
_ENOUGH = 5
"""Fewer samples of a class say too little to praise or blame it."""
_STRONG, _WEAK = 0.85, 0.5

_UNCERTAIN = "The people it was chosen by were too few to be certain that nine of ten accepted answers are right."


def overview(report: RunReport) -> str:
    """The sentence for everybody, and the figures as cards."""
    by = "picture" if report.people == report.samples else "person"
    interval = f"95 % interval by {by}: {interval_text(report.top1_interval_by_person, '.1%')}"
    values = msgspec.structs.asdict(report) | {f"poses_{name}": value for name, value in report.poses.items()}
    cards = card(f"{report.top1:.1%}", "named right (top-1)", interval, main=True) + _cards(values)
    doubt = report.groups if report.groups != GROUPED else ""
    warning = f'<div class="warning">Tested on {escape(doubt)}.</div>' if doubt else ""
    return f'<p class="lead">{_sentence(report)}</p>{warning}<div class="cards">{cards}</div>{_folds(report)}'


def poses(report: RunReport) -> str:
    """By class: recall with its interval, and what it is taken for."""
    head = ["pose", "pictures", "named right", "", "95 %", "precision", "F1", "most often taken for"]
    note = (
        "<p class='soft'>Precision: how often it is that pose when this one is named. Intervals count pictures as if "
        "they were independent; those of one person are not, so they are rather too narrow.</p>"
    )
    return table(head, [_pose_row(row) for row in class_rows(report)]) + note


def by_view(report: RunReport) -> str:
    """Top-1 by view."""
    rows = [
        [words(view or "unknown"), Number(str(v.samples)), Number(f"{v.top1:.0%}"), charts.interval_bar(v.top1, None)]
        for view, v in report.by_view.items()
    ]
    return table(["view", "pictures", "named right", ""], rows)


def confusion(report: RunReport) -> str:
    """The matrix, and the pairs that are mixed up most."""
    known, pairs = look_alike_pairs(report), mixed_pairs(report)
    caption = "Row: what it was. Column: what was said. The stronger the colour, the larger the share of the row."
    if known:
        caption += " Framed: pairs that look alike, which differ in little but the height of the hand."
    chart = figure(charts.confusion_chart(report.confusion, report.classes, known), caption)
    parts = []
    if pairs:
        tag = '<span class="tag">look alike</span>'
        most = pairs[:6]
        items = (f"<li>{words(p.first)} and {words(p.second)}: {p.count}{tag if p.known else ''}</li>" for p in most)
        parts.append(f"<h3>Mixed up most often</h3><ul>{''.join(items)}</ul>")
    if pairs and known:
        inside = sum(pair.count for pair in pairs if pair.known) / sum(pair.count for pair in pairs)
        parts.append(f"<p>{inside:.0%} of all mistakes are within pairs that look alike.</p>")
    return f'<div class="beside">{chart}<div>{"".join(parts)}</div></div>'


def confidence(report: RunReport) -> str:
    """Reliability diagram and risk-coverage curve."""
    parts = []
    if report.reliability:
        caption = (
            "Dot: how often it is right where it says so. Orange: how far that is from what it says. On the dashed "
            "line confidence means what it says. Above: number of pictures."
        )
        parts.append(figure(charts.reliability_chart(report.reliability), caption))
    if report.risk_coverage:
        chosen = None
        if report.coverage and report.accepted_accuracy is not None:
            chosen = (report.coverage, 1 - report.accepted_accuracy)
        caption = "The surest answers come first: how many are wrong when it answers that share of the pictures."
        parts.append(figure(charts.risk_chart(report.risk_coverage, chosen), caption))
    text = f'<div class="pair">{"".join(parts)}</div>' if parts else ""
    if report.temperature is not None and report.threshold is not None:
        text += (
            f"<p>Temperature {report.temperature:g}; answers are accepted from a confidence of {report.threshold:.0%}. "
            "Both were chosen on other pictures than those tested here"
            + (", which ask for less." if report.threshold_raised else ".")
        )
        if not report.threshold_certain:
            text += f" {_UNCERTAIN}"
        text += "</p>"
    return text


def real_people(report: RunReport) -> str:
    """Figures on real keypoints, where they were measured."""
    real = report.real_keypoints_without_crop
    if not real:
        return ""
    text = f"<p>{real['samples']:,.0f} real photographs, of which only the keypoints are known.</p>"
    cards = card(f"{real['top1']:.1%}", "named right (top-1)", main=True) + _cards(real)
    return f'{text}<div class="cards">{cards}</div>'


def seen(report: RunReport) -> str:
    """What the keypoints say about themselves, and how far the sticks were off."""
    checks = [[words(name), Number(f"{share:.1%}")] for name, share in report.validity.items()]
    stick = [[words(name), Number(f"{v:,.0f}" if v >= 10 else f"{v:.3f}")] for name, v in report.stick.items()]
    tables = table(
        ["bodies and sticks as seen (before correction only with <code>see --correct off</code>)", "share"], checks
    ) + table(["sticks against the truth", ""], stick)
    return f'<div class="pair">{tables}</div>' if tables else ""


def attention(explanation: Explanation | None, pictures: Mapping[str, str]) -> str:
    """Warnings, pictures by class (data URIs) and the verdicts on the tip."""
    if explanation is None:
        return ""
    boxes = "".join(f'<div class="warning">{words(text)}.</div>' for text in explanation.warnings)
    boxes = boxes or '<div class="fine">No pose is decided by the tip of the stick alone, as far as can be told.</div>'
    text = (
        "<p>Left: which joints the others read from, against even attention. Right: how much of the answer's "
        "probability is lost when a joint is hidden. The second is the test: attention alone proves nothing, and other "
        "paths through the network pass it by.</p>"
    )
    images = [
        f'<img loading="lazy" alt="what is looked at in: {words(entry.name)}" src="{pictures[entry.name]}">'
        for entry in explanation.explained
        if entry.name in pictures
    ]
    first, rest = "".join(images[:1]), "".join(images[1:])
    more = folded("Pose by pose", f'<div class="gallery">{rest}</div>') if rest else ""
    tips = folded("Does the tip alone decide?", _tips(explanation))
    overall = f'<div class="pair"><figure>{first}</figure>{_hiding(explanation.explained[0])}</div>'
    return boxes + text + overall + more + tips


def speed(report: RunReport) -> str:
    """Precisions on both runtimes, and how exactly they follow torch."""
    head = ["precision", "runtime", "named right", "95 %", "answered", "right among them", "same answer as FP32",
            "logits moved by", "at most", "MB", "ms, best", "ms, median"]  # fmt: skip
    rows = [
        [r.precision, r.runtime, Number(f"{r.top1:.1%}"), interval_text(r.top1_interval, ".1%"),
         Number(f"{r.coverage:.0%}"), Number(f"{r.accepted_accuracy:.0%}"), Number(f"{r.same_answer:.1%}"),
         *(Number("" if gap is None else f"{gap:.1e}") for gap in (r.mean_logit_gap, r.largest_logit_gap)),
         Number(f"{r.megabytes:.1f}"), Number(f"{r.best_ms:.2f}"), Number(f"{r.median_ms:.2f}")]
        for r in report.precisions
    ]  # fmt: skip
    text = table(head, rows)
    if rows:
        text += "<p class='soft'>One picture at a time, one thread, on the machine that exported it.</p>"
    if report.parity_200:
        gaps = ", ".join(f"{words(name)} {gap:.1e}" for name, gap in report.parity_200.items())
        text += f"<p>Largest difference of a logit from torch over up to 200 inputs each: {gaps}.</p>"
    return text


def training(history: History) -> str:
    """Curves of the losses and of what is right on inner people."""
    curves = {name: values for name, values in history.items() if len(values) > 1}
    parts = []
    for marks, label, percent in ((("loss",), "loss", False), (("top1", "f1"), "share, on inner people", True)):
        chosen = [(name, values) for name, values in curves.items() if any(mark in name for mark in marks)]
        if chosen:
            styles = ("accent", "warm", "good")
            series = [(name.replace("_", " "), v, s) for (name, v), s in zip(chosen, styles, strict=False)]
            keys = "".join(key(name, style) for name, _, style in series)
            parts.append(figure(charts.curve_chart(series, label, percent), keys))
    return f'<div class="pair">{"".join(parts)}</div>' if parts else ""


def origin(report: RunReport) -> str:
    """Data, settings, seed: what it takes to do it again."""
    settings = report.training.get("settings", {})
    plain = {"data": report.data, "test_pictures": report.samples, "test_people": report.people or ""}
    plain |= {"seed": settings.get("seed", ""), "training of one fold, seconds": _short(report.train_seconds_per_fold)}
    plain |= {"judging one sample, ms": _short(report.infer_ms_per_sample)}
    mixture = {f"trained on: {name}": value for name, value in report.training.get("mixture", {}).items()}
    told = {key: value for key, value in report.training.items() if key not in ("settings", "mixture", "classes")}
    plain |= mixture | told
    parts = [facts(plain)]
    if settings:
        parts.append(folded("All settings of the training", facts(settings)))
    if report.notes:
        parts.append(f"<p class='soft'>{escape(report.notes)}</p>")
    return "".join(parts)


def _cards(values: Mapping[str, Any]) -> str:
    """Those figures that are there."""
    there = [entry for entry in _CARDS if values.get(entry[0]) is not None]
    unanswered = () if values.get("coverage", 1) else ("accepted_accuracy",)
    return "".join(
        card("–" if name in unanswered else form.format(values[name]), text, hint) for name, form, text, hint in there
    )


def _sentence(report: RunReport) -> str:
    people = "one person" if report.people == 1 else f"{report.people} people"
    people = f" of {people}" if 0 < report.people < report.samples else ""
    if report.groups == GROUPED:
        people = f"{people or ' of people'} it never saw"
    text = f"On {report.samples:,} pictures{people}, it names {report.top1:.0%} right{_hand(report)}."
    if report.coverage is not None and report.accepted_accuracy is not None:
        right = f"{report.coverage:.0%} of them, and {report.accepted_accuracy:.0%} of those answers are right"
        text += f" Where it may say “unsure”, it answers {right if report.coverage else 'none'}."
    ranked = sorted((r for r in class_rows(report) if r.samples >= _ENOUGH), key=lambda row: -row.recall)
    if len(ranked) >= 6:
        best = [row.name for row in ranked[:3] if row.recall >= _WEAK]
        text += f" Surest: {names_text(best)}." if best else ""
        text += f" Hardest: {names_text([row.name for row in ranked[-3:]])}."
    return escape(text)


def _hand(report: RunReport) -> str:
    """What one picture tells less of than a video does, where that was measured."""
    single = report.top1_hand_from_one_picture
    return (
        ""
        if single is None or not report.hand_mistaken
        else f" once it knows the weapon hand ({single:.0%} from a single picture)"
    )


def _folds(report: RunReport) -> str:
    names = [n for n in ("top1", "macro_f1", "top2", "kappa", "ece", "coverage") if n in report.over_folds]
    if not names:
        return ""
    rows = [[f"fold {i}", *(Number(f"{fold[n]:.3f}") for n in names)] for i, fold in enumerate(report.folds, 1)]
    means = ("{mean:.3f} ± {std:.3f}".format(**report.over_folds[n]) for n in names)
    rows.append(["mean ± spread", *(Number(text, "mean") for text in means)])
    text = "" if report.threshold_certain else f"<p>{_UNCERTAIN}</p>"
    return f"<h3>{len(report.folds)} folds</h3>" + table(["", *map(words, names)], rows) + text


def _pose_row(row: ClassRow) -> list[str | Number]:
    tone = "strong" if row.recall >= _STRONG else "weak" if row.recall < _WEAK else ""
    return [
        words(row.name), Number(str(row.samples)), Number(f"{row.recall:.0%}", tone),
        charts.interval_bar(row.recall, row.recall_interval), "{:.0%} to {:.0%}".format(*row.recall_interval),
        Number(f"{row.precision:.0%}"), Number(f"{row.f1:.2f}"),
        f"{words(row.mistaken_for)} ({row.mistaken})" if row.mistaken else "",
    ]  # fmt: skip


def _hiding(entry: Explained) -> str:
    """The parts whose hiding costs most."""
    parts = sorted(entry.hiding, key=lambda part: -part.effect)[:8]
    rows = [[words(p.name), Number(f"{p.effect:.0%}"), Number(f"{p.changes:.0%}")] for p in parts]
    return table(["hidden", "probability lost", "answers changed"], rows)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _tips(explanation: Explanation) -> str:
    head = ["pose", "pictures with a tip", "change without the tip", "most telling other part", "change without it",
            "by the tip alone", "stay with torso and tip only"]  # fmt: skip
    rows = [
        [words(e.name), Number(str(t.samples)), Number(f"{t.changes:.0%}"), words(t.strongest_other),
         Number(f"{t.strongest_other_changes:.0%}"),
         Number(f"{t.alone:.0%} ({interval_text(t.alone_interval, '.0%')})"),
         Number(f"{t.stays_with_tip_only:.0%}")]
        for e in explanation.explained
        if (t := e.tip) is not None
    ]  # fmt: skip
    note = (
        "<p class='soft'>“By the tip alone”: hiding the tip changes the answer and hiding any other single part - a "
        "joint, an arm, the legs, the head, the picture of the hand - does not. More than a half is a "
        f"warning, where {FEWEST_SAMPLES} pictures or more have a tip.</p>"
    )
    return table(head, rows) + note
