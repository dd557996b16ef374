"""What was measured stands beside what was wanted, and the README shows the last report's table."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.aims import compare_with_aims
from benchmarks.chart import draw_charts
from benchmarks.figures import Part
from benchmarks.report import Report, as_markdown, table

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_an_aim_is_judged_by_the_side_of_its_bound() -> None:
    rows = [
        {"way": "30 fps", "p50_ms": 12.0, "p95_ms": 31.0, "cpu_ms_per_frame": 20.0},
        {"way": "30 fps, gate off", "cpu_ms_per_frame": 50.0},
        {"way": "fast", "fps": 60.0},
        {"way": "fast, gate off", "fps": 40.0, "of_bare": 0.95},
    ]
    aims = compare_with_aims([Part(name="program", title="", rows=rows)])
    assert aims is not None
    judged = {(row["wanted"], row["measured"]): row["met"] for row in aims.rows}
    assert judged == {
        ("at most 20", 12.0): "yes", ("at most 30", 31.0): "no", ("at least 40", 60.0): "yes",
        ("at least 0.95", 0.95): "yes", ("at least 2", 1.5): "no", ("at most 0.5", 0.4): "yes",
    }  # fmt: skip


def test_the_better_runtime_counts_for_batches() -> None:
    rows = [
        {"network": "geopose", "runtime": runtime, "threads": 1, "precision": "f32", "batch": batch, "items_per_s": n}
        for runtime, batch, n in (("onnxruntime", 1, 100.0), ("onnxruntime", 16, 120.0), ("openvino", 1, 50.0),
                                  ("openvino", 16, 75.0))
    ]  # fmt: skip
    aims = compare_with_aims([Part(name="networks", title="", rows=rows)])
    assert aims is not None and [row["measured"] for row in aims.rows] == [1.5]


def test_nothing_measured_is_compared_with_nothing() -> None:
    assert compare_with_aims([Part(name="stages", title="", rows=[{"stage": "detect", "p50_ms": 1.0}])]) is None


@pytest.mark.parametrize("file", sorted((FOLDER / "results").glob("*.json")), ids=lambda file: file.stem)
def test_page_and_chart_of_a_stored_report_are_those_of_its_figures(file: Path) -> None:
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert file.with_suffix(".md").read_text() == as_markdown(report, f"{file.stem}.svg")
    assert file.with_suffix(".svg").read_text() == draw_charts(report.parts)


def test_the_readme_shows_the_table_of_the_report_that_it_links() -> None:
    readme = (FOLDER / "README.md").read_text()
    linked = re.findall(r"\(results/(.+)\.md\)", readme)
    report = msgspec.json.decode((FOLDER / "results" / f"{linked[0]}.json").read_bytes(), type=Report)
    aims = compare_with_aims(report.parts)
    assert aims is not None and table(aims.rows) in readme
