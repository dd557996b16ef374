"""`arnis-train check`: counts a table, and says what is wrong with it and in which rows.

Exit code 0: fit for training, perhaps with warnings; 1: must not be trained on like this; 2: no table at all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from engine.errors import UserError
from stages.classes import load_classes
from training.data.check import Finding, check_table, counts, trainable
from training.data.duplicates import picture_hashes
from training.data.readers import read_all
from training.data.sheet import draw_sheet, legend
from training.data.table import Table

_SHOWN = 5
"""Rows of a rule that the terminal names; the JSON file has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `check`."""
    parser.add_argument("tables", type=Path, nargs="+", help=".csv, .json, data.yaml, or a folder with one of them")
    parser.add_argument("--classes", type=Path, help="your own class file (default: models/classes.toml)")
    parser.add_argument("--no-groups", action="store_true", help="do not insist on knowing who is in the pictures")
    parser.add_argument(
        "--no-pictures", action="store_true", help="do not open the pictures; copies are found less well"
    )
    parser.add_argument("--sheet", type=Path, help="picture to write, with keypoints drawn on examples and problems")
    parser.add_argument("--json", type=Path, help="file for all counts and findings")


def run(args: argparse.Namespace) -> int:
    """Check and report; 0 or 1 as the module says."""
    refuse_places(args.sheet, args.json)
    classes = load_classes(args.classes)
    table = read_all(args.tables, classes.names)
    hashes = None if args.no_pictures else picture_hashes(table)
    findings = check_table(table, classes, hashes, need_groups=not args.no_groups)
    summary = counts(table, classes)
    sys.stdout.write(format_report(table, summary, findings))
    if args.json:
        args.json.write_text(json.dumps(as_json(table, summary, findings), indent=1) + "\n", encoding="utf-8")
    if args.sheet:
        if not cv2.imwrite(os.fspath(args.sheet), draw_sheet(table, findings)):
            raise UserError(_no_sheet(args.sheet))
        sys.stdout.write(f"{args.sheet}: {legend(table, findings)}\n")
    return 0 if trainable(findings) else 1


def refuse_places(sheet: Path | None, figures: Path | None) -> None:
    """Raises UserError when nothing can be written there: better said before the pictures are looked through."""
    if sheet and not (cv2.haveImageWriter(os.fspath(sheet)) and sheet.parent.is_dir()):
        raise UserError(_no_sheet(sheet))
    if figures and (figures.is_dir() or not figures.parent.is_dir()):
        raise UserError(f"cannot write {figures}; give the name of a file in a folder that exists")


def _no_sheet(sheet: Path) -> str:
    return f"cannot write {sheet}; give a .jpg or .png in a folder that exists"


def as_json(table: Table, summary: dict[str, Any], findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything, with every row named."""
    problems = [
        {
            "rule": finding.rule, "severity": finding.severity, "means": finding.means, "count": len(finding.rows),
            "rows": [
                {"row": str(table.rows[row]), "picture": str(table.pictures[row]), "detail": detail}
                for row, detail in zip(finding.rows, finding.details, strict=True)
            ],
        }
        for finding in findings
    ]  # fmt: skip
    return {"trainable": trainable(findings), **summary, "findings": problems}


def format_report(table: Table, summary: dict[str, Any], findings: Sequence[Finding]) -> str:
    """Counts, findings and the verdict as text."""
    shares = summary["stick"]["by_class"]
    width = max(len(name) for name in summary["classes"])
    lines = [f"{'class':{width}}  rows  no stick"]
    lines += [
        f"{name or '(none)':{width}} {number:5d}  {f'{shares[name]:7.0%}' if name in shares else '':>8}"
        for name, number in summary["classes"].items()
    ]
    groups = [name for name in summary["groups"] if name]
    views = ", ".join(f"{name or 'unknown'} {number}" for name, number in summary["views"].items())
    lines += ["", f"{len(table)} rows; {len(groups)} people or recordings; views: {views}", ""]
    for finding in findings:
        lines.append(f"{finding.severity}: {finding.rule}: {_sentence(finding, len(table))}")
        named = list(zip(finding.rows, finding.details, strict=True))[:_SHOWN]
        lines += [f"    {table.called(row)}{': ' if detail else ''}{detail}" for row, detail in named]
        if len(finding.rows) > _SHOWN:
            lines.append(f"    and {len(finding.rows) - _SHOWN} more (--json names all)")
    if any(finding.rows for finding in findings):
        lines += ["", "Rows count as in a spreadsheet: the head of the table is row 1."]
    verdict = "fit for training" if trainable(findings) else "must not be trained on before the errors are mended"
    return "\n".join([*lines, "", verdict, ""])


def _sentence(finding: Finding, total: int) -> str:
    if not finding.rows:
        return finding.means
    return f"{len(finding.rows)} rows ({len(finding.rows) / total:.1%}): {finding.means}"
