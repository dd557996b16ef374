"""The page says what the figures say, needs nothing from outside, and leaves out what was not measured."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from torch.utils.tensorboard import SummaryWriter

from stages.classes import load_classes
from training import app
from training.geopose import measure
from training.geopose.explain import EdgeAttention, Explained, Explanation
from training.geopose.folds import GROUPED, UNGROUPED
from training.geopose.hiding import Part, TipVerdict
from training.geopose.report import charts, figures
from training.geopose.report.history import read_history
from training.geopose.report.page import write_report

CLASSES = load_classes()
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Fails on tags that do not close; collects text and what is fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for n, v in attrs if n in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def measured(samples: int = 400) -> dict[str, Any]:
    """A report as `fit` and `export` write it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES.classes), samples)
    probabilities = rng.dirichlet(np.full(len(CLASSES.classes), 0.4), samples)
    probabilities[np.arange(samples), labels] += rng.uniform(0, 2, samples)
    probabilities /= probabilities.sum(1, keepdims=True)
    people = np.array([f"p{i // 8}" for i in range(samples)])
    views = np.where(np.arange(samples) % 2, "front", "left")
    return measure.report(probabilities, labels, people, views, CLASSES, 0.6)


def page_of(run: Path, report: dict[str, Any]) -> Page:
    (run / "report.json").write_text(json.dumps(report))
    page = Page()
    page.feed(write_report(run).read_text(encoding="utf-8"))
    assert not page.open
    return page


def full_report() -> dict[str, Any]:
    row = {
        "precision": "INT8", "runtime": "openvino", "top1": 0.9123, "top1_interval": [0.88, 0.94], "coverage": 0.8,
        "accepted_accuracy": 0.97, "same_answer": 0.995, "mean_logit_gap": 0.02, "largest_logit_gap": 0.12,
        "megabytes": 2.2, "best_ms": 1.25, "median_ms": 1.5,
    }  # fmt: skip
    folds = [{"top1": 0.6 + i / 100, "macro_f1": 0.5, "note": "x"} for i in range(5)]
    return measured() | {
        "model": "geopose", "temperature": 1.2, "threshold": 0.6, "precisions": [row], "folds": folds,
        "over_folds": {"top1": {"mean": 0.62, "std": 0.0158}, "macro_f1": {"mean": 0.5, "std": 0.0}},
        "groups": "people or recordings", "parity_200": {"random_onnxruntime": 4e-6}, "data": "Renders <of> people",
        "real_keypoints_without_crop": {"samples": 1852, "top1": 0.661, "poses_top2": 0.812},
        "validity": {"stick not too long": 0.987}, "stick": {"tip_error_median": 0.034, "sticks": 640},
        "training": {"settings": {"seed": 7, "epochs": 100}, "data_sha256": "ab" * 32, "revision": "abc1234"},
        "a_figure_of_the_future": 1,
    }  # fmt: skip


def test_a_threshold_that_was_raised_is_told_as_such(tmp_path: Path) -> None:
    for raised in (True, False):
        page = page_of(tmp_path, full_report() | {"threshold_raised": raised})
        assert ("tested here, which ask for less." in page.text) == raised and "chosen on other pictures" in page.text


def test_a_page_holds_all_figures_and_fetches_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, full_report())
    for said in ("91.2%", "0.620 ± 0.016", "66.1%", "81.2%", "98.7%", "0.034", "abc1234", "random onnxruntime 4.0e-06",
                 "Renders <of> people", "seed"):  # fmt: skip
        assert said in page.text, said
    assert all(place.startswith(("#", "data:")) for place in page.fetched)
    source = (tmp_path / "report.html").read_text()
    assert "<script" not in source and "@import" not in source and "url(" not in source
    assert "prefers-color-scheme: dark" in source and 'name="viewport"' in source


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    least = {name: measured()[name] for name in ("classes", "confusion", "samples", "top1")}
    page = page_of(tmp_path, least)
    assert "Pose by pose" in page.text
    for absent in ("Size and speed", "On real people", "What it looks at", "Training ", "folds"):
        assert absent not in page.text


def test_the_page_counts_as_the_matrix_does() -> None:
    report = figures.RunReport(
        classes=("a", "b", "c"), confusion=[[8, 2, 0], [3, 6, 1], [0, 0, 0]], samples=20, top1=0.7,
        look_alikes=[figures.LookAlikes(("a", "b"), 5, 0.25)],
    )  # fmt: skip
    first, second = figures.class_rows(report)  # c was not tested
    assert (first.recall, first.precision, first.mistaken_for, first.mistaken) == (0.8, 8 / 11, "b", 2)
    assert second.f1 == pytest.approx(12 / 18) and second.mistaken_for == "a"
    pairs = figures.mixed_pairs(report)
    assert [(p.first, p.second, p.count, p.known) for p in pairs] == [("a", "b", 5, True), ("b", "c", 1, False)]


def test_only_people_who_are_apart_are_called_never_seen(tmp_path: Path) -> None:
    apart = page_of(tmp_path, measured() | {"groups": GROUPED})
    assert "pictures of 50 people it never saw" in apart.text and "by person" in apart.text
    for groups in (UNGROUPED, "people or recordings; the weights mine have met 3 of 9, such as anna"):
        doubtful = page_of(tmp_path, measured() | {"groups": groups})
        assert "never saw" not in doubtful.text and f"Tested on {groups}." in doubtful.text
    bare = page_of(tmp_path, measured() | {"groups": UNGROUPED, "people": 400})
    assert "95 % interval by picture" in bare.text and "by person" not in bare.text
    assert "never saw" not in page_of(tmp_path, measured()).text, "an older report does not say"


def test_too_few_people_have_no_interval_on_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, measured() | {"top1_interval_by_person": None, "people": 1, "groups": GROUPED})
    assert "95 % interval by person: too few people" in page.text and "of one person it never saw" in page.text
    report = full_report()
    report["precisions"][0]["top1_interval"] = None
    assert "too few people" in page_of(tmp_path, report).text


def test_the_page_tells_what_was_trained_on(tmp_path: Path) -> None:
    training = {"settings": {"seed": 7}, "mixture": {"drawn": 6000, "crop_dropout": 0.3}}
    page = page_of(tmp_path, measured() | {"training": training})
    assert "trained on: drawn 6000" in " ".join(page.text.split())


def test_a_model_that_is_never_sure_is_not_said_to_answer_wrongly(tmp_path: Path) -> None:
    page = page_of(tmp_path, measured() | {"coverage": 0.0, "accepted_accuracy": 0.0})
    assert "it answers none." in page.text and "of those answers" not in page.text
    assert "–right among the answered" in page.text.replace(" right", "right")


def test_no_pose_that_is_mostly_mistaken_is_called_sure(tmp_path: Path) -> None:
    count = 6
    confusion = np.full((count, count), 2) - np.eye(count, dtype=int)
    report = {"classes": list("abcdef"), "confusion": confusion.tolist(), "samples": int(confusion.sum()), "top1": 0.1}
    page = page_of(tmp_path, report)
    assert "Surest" not in page.text and "Hardest: " in page.text
    confusion[2, 2] = 20
    assert "Surest: c. Hardest" in page_of(tmp_path, report | {"confusion": confusion.tolist()}).text


def test_wilson_intervals_hold_the_share_and_stay_inside() -> None:
    assert measure.wilson(0, 10)[0] == 0 and 0.2 < measure.wilson(0, 10)[1] < 0.35
    assert measure.wilson(10, 10)[1] == 1 and measure.wilson(0, 0) == (0, 1)
    low, high = measure.wilson(50, 100)
    assert low == pytest.approx(0.404, abs=0.001) and high == pytest.approx(0.596, abs=0.001)


def test_look_alikes_are_framed_in_the_matrix() -> None:
    names, pair = ("a_b", "c", "d"), {frozenset(("a_b", "c"))}
    svg = charts.confusion_chart([[3, 1, 0], [0, 2, 0], [0, 0, 0]], names, pair)
    assert svg.count('class="alike"') == 2 and "a b named c: 1 of 4" in svg
    assert charts.confusion_chart([[3, 1, 0], [0, 2, 0], [0, 0, 0]], names, set()).count("alike") == 0


def test_a_chart_keeps_its_points_in_the_frame() -> None:
    svg = charts.risk_chart([(0.05, 0.0), (1.0, 0.35)], (0.4, 0.1))
    numbers = [float(v) for pair in re.findall(r'points="([^"]+)"', svg) for v in re.split("[ ,]", pair)]
    assert min(numbers) >= 0 and max(numbers) <= 420
    svg = charts.reliability_chart([(0.3, 0.5, 12), (1.0, 0.9, 40)])
    assert "said 30%, right 50%, 12 samples" in svg
    above = charts.reliability_chart([(0.6, 1.0, 4)])
    heights = [float(y) for y in re.findall(r'class="note" x="[^"]+" y="([^"]+)"', above)]
    assert min(heights) >= 12, "a number of 12 px over a full bar is not cut off"


def test_the_strongest_cell_of_the_matrix_leaves_its_number_readable() -> None:
    svg = charts.confusion_chart([[4, 0], [0, 4]], ("a", "b"), set())
    strongest = max(map(float, re.findall(r'fill-opacity="([^"]+)"', svg)))
    assert strongest <= 0.53, "in the dark scheme the contrast falls below 4.5 from there on"


def explanation(decides: bool) -> Explanation:
    tip = TipVerdict(
        samples=20, changes=0.9, strongest_other="grip", strongest_other_changes=0.2, alone=0.7,
        alone_interval=(0.5, 0.8), stays_with_tip_only=0.6, decides_alone=decides,
    )  # fmt: skip
    entry = Explained("all", 20, {"tip": 1.4}, [EdgeAttention("tip", "nose", 1.2)], [Part("tip", 20, 0.31, 0.9)], tip)
    return Explanation("GeoPoseNet", "seen", 1.0, [entry], ["all: the tip alone decides 70%"] if decides else [])


def test_a_warning_about_the_tip_stands_on_the_page(tmp_path: Path) -> None:
    import msgspec

    (tmp_path / "explain").mkdir()
    cv2.imwrite(str(tmp_path / "explain" / "all.png"), np.zeros((20, 40, 3), np.uint8))
    for decides, said in ((True, "the tip alone decides 70%"), (False, "No pose is decided by the tip")):
        (tmp_path / "explain" / "explain.json").write_bytes(msgspec.json.encode(explanation(decides)))
        page = page_of(tmp_path, measured())
        assert said in page.text and "31%" in page.text
        assert any(place.startswith("data:image/png;base64,") for place in page.fetched)


def test_a_cut_off_explanation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "explain").mkdir()
    (tmp_path / "explain" / "explain.json").write_text('{"model": ')
    (tmp_path / "report.json").write_text(json.dumps(measured()))
    assert app.main(["report", str(tmp_path)]) == 2
    assert "explain.json is damaged" in capsys.readouterr().err


def test_curves_come_from_tensorboard_and_a_resumed_run_has_one(tmp_path: Path) -> None:
    for number, steps in enumerate((((10, 2.5), (20, 9.0)), ((20, 1.5), (30, 1.0)))):  # step 20 was done again
        with SummaryWriter(str(tmp_path / "board"), filename_suffix=str(number)) as writer:
            for step, value in steps:
                writer.add_scalar("loss", value, step)
                writer.add_scalar("epoch", 0, step)
    assert read_history(tmp_path) == {"loss": [2.5, 1.5, 1.0]}
    assert "loss" in page_of(tmp_path, measured()).text


def test_the_networks_of_folds_have_no_curve_in_common(tmp_path: Path) -> None:
    for fold, loss in (("fold0", 2.5), ("fold1", 1.5)):
        with SummaryWriter(str(tmp_path / fold / "board")) as writer:
            writer.add_scalar("loss", loss, 10)
    assert read_history(tmp_path) == {}


def test_an_evaluation_has_a_page_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "real.json"
    file.write_text(json.dumps(measured() | {"model": "models/geopose"}))
    assert app.main(["report", str(file)]) == 0
    assert "real" in (tmp_path / "real.html").read_text()


@pytest.mark.parametrize(
    ("text", "sentence"), [(None, "does not exist"), ("{", "cannot be read"), ('{"top1": "x"}', "cannot be read")]
)
def test_mistakes_end_in_one_sentence(
    tmp_path: Path, text: str | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    assert app.main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
