"""Learns the bands that feedback judges by: where good examples of each pose lie, by view and quantity.

    arnis-train bands --table people/table.csv --out models/bands.toml

Examples are labelled people, real or rendered (`--table`), samples of the pose statistics (`--statistics`) or both;
the view is told from the skeleton by the function that serving uses. A band is the 10th to 90th percentile, a little
widened; one that is too wide to tell right from wrong, or rests on few examples, is left out.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.errors import UserError
from engine.numbers import at_least
from stages.angles import QUANTITIES, VIEWS, measure, view_of
from stages.classes import NEUTRAL_KIND, ClassFile, load_classes
from stages.feedback import ANY_VIEW, Band, BandTable
from training.data.readers import read_any
from training.files import whole_file
from training.geopose.pose_statistics import PoseStatistics

PERCENTILES = (10.0, 90.0)
WIDENED = {"deg": 5.0, "torso": 0.05}
"""On each side: what a detector is off by."""
WIDEST = {"deg": 70.0, "torso": 0.6}
"""A wider band hardly constrains and is left out."""
MIN_SAMPLES = 30

_LIMITS = {"stick_deg": (-90.0, 90.0)}
_HEADER = """\
# Bands of good examples, made by `arnis-train bands`: quantity = [low, high, examples], by pose and view.
# Angles in degrees, heights (above the shoulders), reach and width in torsos; the weapon hand is the right one.
"""
_log = logging.getLogger(__name__)


def learn_bands(keypoints: np.ndarray, labels: np.ndarray, classes: ClassFile) -> BandTable:
    """Bands of canonical examples (N, 19, 3) with class indices (N,); `neutral` gets none."""
    values, views = measure(keypoints), view_of(keypoints)
    table: BandTable = {}
    for index, pose in enumerate(classes.classes):
        if pose.kind == NEUTRAL_KIND:
            continue
        chosen = {ANY_VIEW: labels == index}
        chosen |= {name: (labels == index) & (views == number) for number, name in enumerate(VIEWS)}
        bands = {view: _bands(values, rows) for view, rows in chosen.items()}
        if any(bands.values()):
            table[pose.name] = {view: found for view, found in bands.items() if found}
    return table


def band_of(values: np.ndarray, unit: str, limits: tuple[float, float]) -> Band | None:
    """Band of one quantity's values (N,), NaN where unseen; None when it would say nothing."""
    seen = values[np.isfinite(values)]
    if len(seen) < MIN_SAMPLES:
        return None
    low, high = (float(p) for p in np.percentile(seen, PERCENTILES))
    if high - low > WIDEST[unit]:
        return None
    digits = 1 if unit == "deg" else 2
    low, high = max(low - WIDENED[unit], limits[0]), min(high + WIDENED[unit], limits[1])
    return Band(round(low, digits), round(high, digits), len(seen))


def format_bands(table: BandTable) -> str:
    """The file's text, one line a band."""
    lines = [_HEADER]
    for pose, views in table.items():
        for view, bands in views.items():
            lines.append(f"[{pose}.{view}]")
            lines += [f"{name} = [{band.low}, {band.high}, {band.samples}]" for name, band in bands.items()]
            lines.append("")
    return "\n".join(lines)


def _bands(values: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, Band]:
    found = ((name, band_of(values[name][rows], _unit(name), _limits(name))) for name in QUANTITIES)
    return {name: band for name, band in found if band is not None}


def _unit(quantity: str) -> str:
    return "deg" if quantity.endswith("_deg") else "torso"


def _limits(quantity: str) -> tuple[float, float]:
    if _unit(quantity) == "torso":
        return (-np.inf, np.inf) if quantity.endswith("height") else (0.0, np.inf)
    return _LIMITS.get(quantity, (0.0, 180.0))


def _examples(args: argparse.Namespace, classes: ClassFile) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if args.table:
        table = read_any(args.table, classes.names).as_held()
        yield table.canonical(), table.label_indices(classes.names)
    if args.statistics:
        yield PoseStatistics(args.statistics, classes.names).draw(args.samples, np.random.default_rng(args.seed))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `arnis-train bands`."""
    parser.add_argument("--table", type=Path, help="labelled keypoints: a table, or a folder with one")
    parser.add_argument("--classes", type=Path, help="your own class file (default: models/classes.toml)")
    parser.add_argument("--statistics", type=Path, help="pose statistics to draw further examples from")
    parser.add_argument("--samples", type=at_least(1), default=20_000, help="drawn from them (default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bands.toml"), help="the file to write (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Learn the bands and write them; raises UserError when there is nothing to learn from."""
    classes = load_classes(args.classes)
    examples = list(_examples(args, classes))
    if not examples:
        raise UserError("there is nothing to learn bands from; give --table, --statistics or both")
    keypoints, labels = (np.concatenate(parts) for parts in zip(*examples, strict=True))
    table = learn_bands(keypoints, labels, classes)
    without = [name for name in classes.poses if name not in table]
    if not table:
        raise UserError(f"no pose has a band: each needs {MIN_SAMPLES} examples that resemble one another; label more "
                        "pictures")  # fmt: skip
    if without:
        _log.warning("no band, and so no cue, for %s: fewer than %d examples, or too unlike", ", ".join(without),
                     MIN_SAMPLES)  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.out) as part:
        part.write_text(format_bands(table))
    count = sum(len(bands) for views in table.values() for bands in views.values())
    _log.info("%s: %d bands of %d poses from %d examples", args.out, count, len(table), len(labels))
