"""A sheet of pictures with their keypoints drawn, those with a problem first."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stages.overlay import RED, WHITE, draw_person, draw_stick
from stages.packets import Person, Stick
from stages.skeleton import BODY_COUNT, GRIP, TIP
from stages.view import BACKGROUND
from training.data.check import Finding
from training.data.table import Table

CELL_PX = 360
_HEAD_PX = 60
_HEAD_LETTERS = 40
_COLUMNS = 6
SHOWN = 4 * _COLUMNS
_LEAST_CONFIDENCE = 0.05


def draw_sheet(table: Table, findings: Sequence[Finding]) -> np.ndarray:
    """uint8 BGR (up to 1680, 2160, 3): up to 24 rows, half of them with a problem where there are so many."""
    problems = _problems(findings)
    cells = [draw_cell(table, row, problems.get(row, "")) for row in chosen_rows(table, list(problems), SHOWN)]
    cells += [np.full_like(cells[0], BACKGROUND)] * (-len(cells) % _COLUMNS)
    return np.vstack([np.hstack(cells[start : start + _COLUMNS]) for start in range(0, len(cells), _COLUMNS)])


def legend(table: Table, findings: Sequence[Finding]) -> str:
    """What the sheet shows, and in which colours."""
    problems = _problems(findings)
    rows = chosen_rows(table, list(problems), SHOWN)
    shown = sum(row in problems for row in rows)
    return (
        f"{shown} of {len(problems)} rows that look wrong (head in red) and {len(rows) - shown} others (white); the "
        "person's left side is blue, the right one orange, the stick yellow"
    )


def _problems(findings: Sequence[Finding]) -> dict[int, str]:
    """Rows with a problem and the first rule that each breaks."""
    return {row: finding.rule for finding in reversed(findings) for row in finding.rows}


def chosen_rows(table: Table, problems: Sequence[int], count: int) -> list[int]:
    """Rows to show: every so many-th of those with problems and of the others, sorted by class."""
    marked = set(problems)
    others = [row for row in np.argsort(table.labels, kind="stable").tolist() if row not in marked]
    wanted = min(len(marked), max(count // 2, count - len(others)))
    return [*_spread(list(problems), wanted), *_spread(others, min(len(others), count - wanted))]


def draw_cell(table: Table, row: int, problem: str) -> np.ndarray:
    """uint8 BGR (420, 360, 3): the person of a row, cut out (on grey without a picture), under what the table says."""
    picture = table.read_picture(row)
    keypoints = table.keypoints[row].copy()
    seen = keypoints[keypoints[:, 2] > 0, :2]
    low, high = (seen.min(0), seen.max(0)) if len(seen) else (np.zeros(2), np.ones(2))
    if picture is not None and not len(seen):
        high = np.array(picture.shape[1::-1], np.float32)
    side = 1.25 * float(max(*(high - low), 1e-3))
    scale, corner = CELL_PX / side, (low + high) / 2 - side / 2
    cell: np.ndarray = np.full((CELL_PX, CELL_PX, 3), 90, np.uint8)
    if picture is not None:
        matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]], np.float32)
        cell = cv2.warpAffine(picture, matrix, (CELL_PX, CELL_PX), borderValue=(BACKGROUND,) * 3)
    keypoints[:, :2] = (keypoints[:, :2] - corner) * scale
    _draw(cell, keypoints)
    return np.vstack([_head(table, row, problem), cell])


def _draw(cell: np.ndarray, keypoints: np.ndarray) -> None:
    keypoints[keypoints[:, 2] <= 0, :2] = np.nan
    body = Person(track=0, box=(-9.0, -9.0, -5.0, -5.0), score=1.0, keypoints=keypoints[:BODY_COUNT])
    draw_person(cell, body, _LEAST_CONFIDENCE)
    grip, tip = ((float(x), float(y), float(c)) for x, y, c in keypoints[[GRIP, TIP]])
    draw_stick(cell, Stick(hand="right", grip=grip, tip=tip), _LEAST_CONFIDENCE)


def _head(table: Table, row: int, problem: str) -> np.ndarray:
    """uint8 BGR (60, 360, 3) with what the table says; red where there is a problem."""
    head = np.full((_HEAD_PX, CELL_PX, 3), BACKGROUND, np.uint8)
    _, _, number = str(table.rows[row]).rpartition(" row ")
    hand = f"{table.true_hands[row]} hand" if table.true_hands[row] else ""
    picture = end_of(str(table.pictures[row]))
    for line, texts in enumerate(((number, str(table.labels[row])), (picture,), (hand, problem))):
        text, colour = "  ".join(filter(None, texts)), RED if problem else WHITE
        cv2.putText(head, text, (6, 16 + 19 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.48, colour, 1, cv2.LINE_AA)
    return head


def end_of(name: str) -> str:
    """As much of a path's end as there is room for, from a whole folder's name on."""
    short = name[-_HEAD_LETTERS:]
    return short if short == name or name[-_HEAD_LETTERS - 1] == "/" else short.partition("/")[2] or short


def _spread(rows: list[int], count: int) -> list[int]:
    """So many of the rows, evenly over the list."""
    return [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)] if count else []
