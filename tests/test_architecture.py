"""The house rules that a reader relies on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "engine": {"engine"},
    "stages": {"engine", "stages", "models"},
    "training": {"engine", "stages", "models", "training"},
    "benchmarks": {"engine", "stages", "models", "benchmarks"},
}
OURS = {*MAY_IMPORT, "models", "tests"}
HEAVY = {"torch", "torchvision", "torch_geometric", "ultralytics", "sklearn", "anny", "moderngl", "pickle"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """First parts of all the modules that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    wrong = {str(p.relative_to(ROOT)): imported(p) & OURS - MAY_IMPORT[package] for p in modules(package)}
    assert not {path: names for path, names in wrong.items() if names}


def test_labelled_data_knows_nothing_of_what_learns_from_it() -> None:
    learning = re.compile(r"^ *(?:from|import) training\.(?:classifiers|geopose|stick|synth)\b", re.MULTILINE)
    assert not {p.name: found for p in modules("training/data") if (found := learning.findall(p.read_text()))}


@pytest.mark.parametrize("package", ["engine", "stages"])
def test_what_runs_needs_neither_torch_nor_pickle(package: str) -> None:
    assert not {p.name: imported(p) & HEAVY for p in modules(package) if imported(p) & HEAVY}


def test_no_machine_path_is_committed() -> None:
    text_files = [p for n in OURS for p in (ROOT / n).rglob("*") if p.suffix in {".py", ".toml", ".md", ".json"}]
    text_files += [ROOT / "config.toml", ROOT / "pyproject.toml", ROOT / "README.md"]
    machine_path = re.compile(r"(?<![\w.])/(work|root|home|Users)/\w")
    assert not [p.name for p in text_files if p != Path(__file__) and machine_path.search(p.read_text())]
