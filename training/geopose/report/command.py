"""`arnis-train report`: write the HTML report of a run, of folds or of an evaluation."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from training.geopose.report.page import write_report

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `report`."""
    parser.add_argument("run", type=Path, help="folder of a run, or a JSON file that `evaluate` wrote")


def run(args: argparse.Namespace) -> int:
    """Write report.html; 0 on success."""
    log.info("wrote %s", write_report(args.run))
    return 0
