"""Small rotation helpers on (3, 3) matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit(v: Array) -> Array:
    """The vector scaled to length 1."""
    return np.asarray(v / max(float(np.linalg.norm(v)), 1e-9))


def cross(a: Array, b: Array) -> Array:
    """Cross product of two vectors; numpy's own takes ten times as long for so few numbers."""
    (x, y, z), (u, v, w) = a.tolist(), b.tolist()
    return np.array([y * w - z * v, z * u - x * w, x * v - y * u])


def about(axis: Array, angle_deg: float) -> Array:
    """Rotation about an axis (Rodrigues)."""
    x, y, z = unit(np.asarray(axis, float))
    t = np.radians(angle_deg)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(t) * k + (1 - np.cos(t)) * k @ k)


def rotation_vector(r: Array) -> Array:
    """Axis times angle in radians, angle in [0, pi]."""
    c = np.clip((np.trace(r) - 1) / 2, -1, 1)
    angle = np.arccos(c)
    axis = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    n = np.linalg.norm(axis)
    if n < 1e-8:
        return np.zeros(3)
    return np.asarray(axis / n * angle)


def power(r: Array, t: float) -> Array:
    """The share t of a rotation."""
    v = rotation_vector(r)
    angle = float(np.linalg.norm(v))
    return np.eye(3) if angle < 1e-8 else about(v, np.degrees(angle) * t)


def between(a: Array, b: Array, limit_deg: float = 180.0) -> Array:
    """The shortest rotation that takes direction a to b, at most `limit_deg`."""
    a, b = unit(a), unit(b)
    axis = cross(a, b)
    angle = np.degrees(np.arctan2(np.linalg.norm(axis), float(a @ b)))
    if np.linalg.norm(axis) < 1e-9:
        return np.eye(3)
    return about(axis, min(angle, limit_deg))


def frame(first: Array, second: Array) -> Array:
    """Orthonormal columns: `first`, `second` made square to it, and their cross product."""
    x = unit(first)
    y = unit(second - (second @ x) * x)
    return np.stack([x, y, cross(x, y)], axis=1)


def twist_deg(r: Array, axis: Array) -> float:
    """Angle of the part of a rotation that turns about `axis` (swing-twist decomposition)."""
    v = rotation_vector(r)
    angle = float(np.linalg.norm(v))
    if angle < 1e-8:
        return 0.0
    s = np.sin(angle / 2) * (v / angle) @ unit(axis)
    return float(np.degrees(2 * np.arctan2(s, np.cos(angle / 2))))
