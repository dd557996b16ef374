"""Attention, and the effect of hiding, drawn on a skeleton."""

from __future__ import annotations

import cv2
import numpy as np

from stages.overlay import pixel
from stages.skeleton import BODY_EDGES, EDGES, GRIP, NODE_COUNT, STICK_EDGE, TIP
from stages.view import BACKGROUND, arrange

PANEL_PX = (420, 520)
"""Width and height of a panel."""
EVEN_ATTENTION_SCALE = 3.0
"""Attention that is drawn brightest, in shares of even attention."""
EFFECT_SCALE = 0.3
"""Loss of probability that is drawn brightest."""
ATTENTION_LEGEND = f"{EVEN_ATTENTION_SCALE:.0f} x even attention (colour, size)"
EFFECT_LEGEND = f"{EFFECT_SCALE:.1f} probability lost (colour, size)"

_FINER = 2
"""Drawn this much larger and scaled down, which is smoother than OpenCV's own anti-aliasing."""
_INK = (225, 225, 225)
_BONE = (92, 92, 92)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def figure_panel(
    points: np.ndarray, present: np.ndarray, nodes: np.ndarray, edges: np.ndarray | None, title: str, legend: str
) -> np.ndarray:
    """A panel with one skeleton on dark ground.

    Args:
        points: float (19, 2) in any unit, y down; `present` bool (19,).
        nodes, edges: float (19,) and (len(EDGES),), 1 is drawn brightest; without edges the bones are plain.
        legend: what the brightest colour stands for.

    Returns:
        uint8 BGR (520, 420, 3).
    """
    width, height = (side * _FINER for side in PANEL_PX)
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    room = (0.08 * width, 0.15 * height, 0.92 * width, 0.86 * height)
    draw_weights(canvas, _fitted(points, present, room), present, nodes, edges)
    small = cv2.resize(canvas, PANEL_PX, interpolation=cv2.INTER_AREA)
    cv2.putText(small, title, (18, 38), _FONT, 0.78, _INK, 1, cv2.LINE_AA)
    _draw_scale(small, legend)
    return small


def picture_panel(image: np.ndarray, points: np.ndarray, present: np.ndarray, nodes: np.ndarray,
                  edges: np.ndarray | None, title: str, legend: str) -> np.ndarray:  # fmt: skip
    """The same over uint8 BGR `image`, darkened; `points` float (19, 2) in its pixels."""
    scale = 900 / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    canvas = cv2.convertScaleAbs(cv2.resize(image, size, interpolation=cv2.INTER_AREA), alpha=0.45)
    draw_weights(canvas, points * scale, present, nodes, edges)
    canvas[:48] //= 3
    canvas[-48:] //= 3
    _draw_scale(canvas, legend)
    cv2.putText(canvas, title, (16, 32), _FONT, 0.7, _INK, 1, cv2.LINE_AA)
    return canvas


def side_by_side(panels: list[np.ndarray]) -> np.ndarray:
    """uint8 BGR: the panels in one row."""
    height = max(panel.shape[0] for panel in panels)
    return arrange(panels, sum(round(p.shape[1] * height / p.shape[0]) for p in panels), height)


def draw_weights(
    canvas: np.ndarray, points: np.ndarray, present: np.ndarray, nodes: np.ndarray, edges: np.ndarray | None
) -> None:
    """Edges and nodes into `canvas`, thicker and brighter the more they weigh (1 and above: most); the weakest first,
    so that they don't cover the strong ones."""
    unit = max(2.0, min(canvas.shape[:2]) / 200)
    weights = np.zeros(len(EDGES)) if edges is None else np.clip(edges, 0, 1)
    for number in np.argsort(weights):
        a, b = EDGES[number]
        if not (present[a] and present[b]):
            continue
        is_bone = number < len(BODY_EDGES) or EDGES[number] == STICK_EDGE
        if is_bone:
            cv2.line(canvas, pixel(points[a]), pixel(points[b]), _BONE, round(unit), cv2.LINE_AA)
        if edges is not None:
            thick = max(1, round(unit * (0.4 + 3.6 * weights[number])))
            cv2.line(canvas, pixel(points[a]), pixel(points[b]), _colour(weights[number]), thick, cv2.LINE_AA)
    for node in np.argsort(nodes):
        if present[node]:
            weight = float(np.clip(nodes[node], 0, 1))
            radius = round(unit * (2.0 + 5.5 * weight))
            cv2.circle(canvas, pixel(points[node]), radius + round(unit), (BACKGROUND,) * 3, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(canvas, pixel(points[node]), radius, _colour(weight), cv2.FILLED, cv2.LINE_AA)
    for node, name in ((GRIP, "grip"), (TIP, "tip")):
        if present[node]:
            x, y = pixel(points[node])
            place = (round(x + 8 * unit), round(y - 5 * unit))
            cv2.putText(canvas, name, place, _FONT, unit / 5.5, _INK, max(1, round(unit / 3)), cv2.LINE_AA)


def typical(keypoints: np.ndarray, unit: np.ndarray) -> int:
    """Number of the sample among (B, 19, 3) whose pose is nearest to the median of all, rather one with all keypoints;
    `unit` (B,) is the torso's length."""
    present = keypoints[..., 2] > 0
    weights = present[..., None] / np.maximum(present.sum(1), 1)[:, None, None]
    centred = keypoints[..., :2] - (np.nan_to_num(keypoints[..., :2]) * weights).sum(1, keepdims=True)
    points = np.where(present[..., None], centred, 0) / np.maximum(unit, 1e-6)[:, None, None]
    gap = np.linalg.norm(points - np.median(points, axis=0), axis=-1).mean(1)
    return int((gap + NODE_COUNT - present.sum(1)).argmin())


def _fitted(points: np.ndarray, present: np.ndarray, room: tuple[float, float, float, float]) -> np.ndarray:
    """Points moved and scaled into the middle of `room`: x0, y0, x1, y1."""
    shown = points[present] if present.any() else np.zeros((1, 2))
    low, high = shown.min(0), shown.max(0)
    space = np.array([room[2] - room[0], room[3] - room[1]])
    scale = float((space / np.maximum(high - low, 1e-6)).min())
    middle = np.array([room[0] + room[2], room[1] + room[3]]) / 2
    fitted: np.ndarray = (points - (low + high) / 2) * scale + middle
    return fitted


def _draw_scale(panel: np.ndarray, legend: str) -> None:
    """A strip of the colours from nothing to the brightest."""
    height, width = panel.shape[:2]
    x0, x1, y = 18, 138, height - 28
    for x in range(x0, x1):
        cv2.line(panel, (x, y), (x, y + 8), _colour((x - x0) / (x1 - x0)), 1)
    cv2.putText(panel, "0", (x0, y - 7), _FONT, 0.52, _INK, 1, cv2.LINE_AA)
    cv2.putText(panel, legend, (x1 + 10, y + 10), _FONT, 0.52, _INK, 1, cv2.LINE_AA)


def _colour(weight: float) -> tuple[int, int, int]:
    """BGR; starts where the map is bright enough to be seen on dark ground."""
    level = np.uint8([[round(255 * (0.28 + 0.72 * float(np.clip(weight, 0, 1))))]])
    blue, green, red = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[0, 0].tolist()
    return blue, green, red
