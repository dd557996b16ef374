"""Poses of one's own: a model that is trained and exported for them brings their names into the program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.demo import load_truth
from benchmarks.running import environment, free_url
from engine.client import subscribe
from stages.classes import load_classes

pytest.importorskip("torch")

OWN = {"crown_thrust": "corona", "left_knee_block": "bagsak_kaliwa", "neutral": "idle"}
"""Names that somebody gives to three of the shipped classes, in another order than theirs."""
DRAWN = 2000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as `fit` and `export` make it from a table of these poses and their class file."""
    from training import app

    folder = tmp_path_factory.mktemp("own")
    class_file = write_classes(folder / "mine.toml")
    words = ["--table", str(write_table(folder / "poses.csv")), "--classes", str(class_file), "--run", str(folder)]
    learn = ["--model", "geopose_graph", "--epochs", "6", "--batch", "32", "--rate", "2e-3", "--set", "averaging=0.9"]
    assert app.main(["fit", *words, *learn, "--threads", "1"]) == 0
    assert app.main(["export", *words]) == 0
    return folder / "model"


def write_classes(file: Path) -> Path:
    entry = '[[class]]\nname = "{name}"\nkind = "{kind}"\nfamily = "{name}"\nchamber = "c"\nside = "left"\ntext = "Ñ"\n'
    kinds = {name: "neutral" if name == "idle" else "strike" for name in OWN.values()}
    text = "\n".join(entry.format(name=name, kind=kinds[name]) for name in sorted(kinds))
    file.write_text(text, encoding="utf-8")
    return file


def write_table(file: Path) -> Path:
    """Skeletons of five rows for each person, without pictures."""
    from training.data import table
    from training.geopose.pose_statistics import PoseStatistics
    from training.synth.skeletons import STATISTICS

    shipped = load_classes().names
    keypoints, labels = PoseStatistics(STATISTICS, shipped).draw(DRAWN, np.random.default_rng(0))
    chosen = np.flatnonzero(np.isin(labels, [shipped.index(name) for name in OWN]))
    keypoints, names = keypoints[chosen], [OWN[shipped[label]] for label in labels[chosen]]
    keypoints[..., :2] = keypoints[..., :2] * 60 + [160, 120]
    rows = [f"row {i}" for i in range(len(names))]
    made = table.make_table(file.parent, [f"{i}.jpg" for i in range(len(names))], names, np.full((len(names), 2), 320),
                            keypoints, rows, groups=[f"p{i // 5}" for i in range(len(names))])  # fmt: skip
    table.write_table(made, file, tuple(sorted(OWN.values())))
    return file


def command(model: Path, *arguments: object) -> list[str]:
    said = ["--source", "demo", "--view", "none", "--set", f"classify.model={model}", *map(str, arguments)]
    return [sys.executable, "-m", "stages", *said]


def run(model: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = command(model, "--publish", "off", *arguments)
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment())


def test_the_class_file_stands_beside_the_model_and_says_the_same(model: Path) -> None:
    assert load_classes(model / "classes.toml") == load_classes(model.parent / "mine.toml")


def test_the_program_speaks_of_these_poses_everywhere(model: Path, tmp_path: Path) -> None:
    url, results = free_url(), tmp_path / "out.jsonl"
    slow = ["--set", "engine.policy=every"]  # at the clip's pace, and no frame is left out on a busy machine
    line = command(model, "--publish", url, "--results", results, "--max-frames", 130, *slow)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, text=True, env=environment(), **pipes) as program:
        try:
            hello = next(subscribe(url, ["hello"], timeout_s=60)).payload
            out, err = program.communicate(timeout=120)
        finally:
            program.kill()
    assert program.returncode == 0, err
    assert [entry["name"] for entry in hello["classes"]] == sorted(OWN.values())
    assert hello["classes"][0]["text"] == "Ñ"
    poses = {line["sequence"]: line["pose"] for line in map(json.loads, results.read_text().splitlines())}
    assert all(set(pose["probabilities"]) == set(OWN.values()) for pose in poses.values() if pose)
    for hold in (hold for hold in load_truth().holds if hold.last_frame < 130):
        named = Counter(pose["label"] for number in range(hold.first_frame, hold.last_frame)
                        if (pose := poses.get(number)))  # fmt: skip
        assert [label for label, _ in named.most_common(1)] == [OWN[hold.label]], (hold, named)
    assert "poses: " in out and "corona " in out
    # The shipped bands are of other poses: said once, and no cue.
    assert err.count("no bands for the classes of this model") == 1


def test_an_evaluation_takes_the_classes_from_the_model(model: Path, tmp_path: Path) -> None:
    from training import app

    words = ["--model", str(model), "--data", str(model.parent / "poses.csv"), "--json", str(tmp_path / "f.json")]
    assert app.main(["evaluate", *words]) == 0
    assert set(json.loads((tmp_path / "f.json").read_text())["per_class"]) == set(OWN.values())


@pytest.mark.parametrize("how", [[], ["--workers", "1"], ["--dry-run"]])
def test_a_class_file_that_does_not_fit_the_model_is_one_sentence(model: Path, tmp_path: Path, how: list[str]) -> None:
    other = shutil.copytree(model, tmp_path / "other")
    renamed = (other / "classes.toml").read_text(encoding="utf-8").replace("corona", "korona")
    (other / "classes.toml").write_text(renamed, encoding="utf-8")
    done = run(other, "--max-frames", 1, *how)
    assert done.returncode == 2, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("arnis-stream: ")]
    assert f"{other} was trained for other classes" in said and "Traceback" not in done.stderr
