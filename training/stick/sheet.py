"""Pictures of a detector's answers, drawn beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stages.skeleton import GRIP, TIP
from training.stick.data import read_picture
from training.stick.evaluate import Answer, Outcome

_COLUMNS, _CELL_PX = 6, 300


def draw(image: np.ndarray, answer: Answer, threshold: float, truth: np.ndarray | None = None) -> np.ndarray:
    """A copy with the answer drawn (green, grey under the threshold) and the true ends as white rings."""
    canvas = image.copy()
    colour = (60, 220, 60) if answer.presence >= threshold else (150, 150, 150)
    grip, tip = (tuple(int(round(float(c))) for c in p[:2]) for p in answer.points)
    cv2.line(canvas, grip, tip, colour, 2, cv2.LINE_AA)
    cv2.circle(canvas, tip, 5, (40, 40, 255), -1, cv2.LINE_AA)
    cv2.circle(canvas, grip, 4, (255, 120, 0), -1, cv2.LINE_AA)
    if truth is not None and np.isfinite(truth).all():
        for point in truth:
            cv2.circle(canvas, tuple(int(round(float(c))) for c in point[:2]), 8, (255, 255, 255), 1, cv2.LINE_AA)
    label = f"{answer.presence:.2f} g{answer.points[0, 2]:.2f} t{answer.points[1, 2]:.2f}"
    cv2.putText(canvas, label, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 255, 255), 2)
    return canvas


def sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures side by side, each fitted into a square cell."""
    cells = []
    for picture in pictures:
        scale = _CELL_PX / max(picture.shape[:2])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cell = np.zeros((_CELL_PX, _CELL_PX, 3), np.uint8)
        cell[: small.shape[0], : small.shape[1]] = small[:_CELL_PX, :_CELL_PX]
        cells.append(cell)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % _COLUMNS)
    return np.vstack([np.hstack(cells[i : i + _COLUMNS]) for i in range(0, len(cells), _COLUMNS)])


def picture_sheet(outcomes: Sequence[Outcome], threshold: float) -> np.ndarray:
    """A random sheet of judged pictures."""
    chosen = np.random.default_rng(0).permutation(len(outcomes))[: 6 * _COLUMNS]
    pictures = []
    for i in chosen:
        row = outcomes[i].row
        image = read_picture(row.path)
        pictures.append(draw(image, outcomes[i].answer, threshold, row.keypoints[[GRIP, TIP], :2]))
    return sheet(pictures)
