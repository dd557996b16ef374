"""Puts the sections together and writes `report.html` beside `report.json`."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from training.geopose.explain import Explanation
from training.geopose.report import sections
from training.geopose.report.figures import RunReport, read_report
from training.geopose.report.history import History, read_history
from training.notes import read_note


def write_report(source: Path) -> Path:
    """Write the page of a run folder beside its report.json, with explain/ and the logger's files where they are there;
    or the page of a JSON file that `evaluate` wrote, beside it.

    Raises UserError when there is no report to read.
    """
    run, file = (source.parent, source) if source.is_file() else (source, source / "report.json")
    report = read_report(file)
    explained, pictures, history = None, {}, {}
    if file.name == "report.json":
        history = read_history(run)
        if (run / "explain" / "explain.json").is_file():
            explained = read_note(run / "explain" / "explain.json", Explanation, "make it anew with `explain`")
            files = sorted((run / "explain").glob("*.png"))
            pictures = {f.stem: "data:image/png;base64," + base64.b64encode(f.read_bytes()).decode() for f in files}
    page = file.with_suffix(".html")
    name = run.resolve().name if file.name == "report.json" else file.stem
    page.write_text(page_text(report, name, explained, pictures, history), encoding="utf-8")
    return page


def page_text(
    report: RunReport, run: str, explained: Explanation | None, pictures: dict[str, str], history: History
) -> str:
    """The whole page; `pictures` are data URIs by class."""
    parts = [
        ("poses", "Pose by pose", sections.poses(report)),
        ("views", "From each side", sections.by_view(report)),
        ("confusion", "What is taken for what", sections.confusion(report)),
        ("confidence", "Is its confidence worth anything?", sections.confidence(report)),
        ("real", "On real people", sections.real_people(report)),
        ("seen", "What the detectors gave it", sections.seen(report)),
        ("attention", "What it looks at", sections.attention(explained, pictures)),
        ("speed", "Size and speed", sections.speed(report)),
        ("training", "Training", sections.training(history)),
        ("origin", "Where it comes from", sections.origin(report)),
    ]
    shown = [part for part in parts if part[2]]
    links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title, _ in shown)
    body = "".join(f'<section id="{anchor}"><h2>{escape(title)}</h2>{text}</section>' for anchor, title, text in shown)
    title = f"{report.model}: figures of the run {run}"
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<header><h1>{escape(report.model)}</h1><div class="soft">figures of the run <code>{escape(run)}</code></div>'
        f"{sections.overview(report)}<nav>{links}</nav></header>{body}</main></body></html>\n"
    )
