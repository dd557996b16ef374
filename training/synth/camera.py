"""A pinhole camera in metres: world x to the performer's left, y to the back, z up; pixels x right, y down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synth.rotations import Array

NEAR_M = 0.1
FAR_M = 40.0


@dataclass(frozen=True)
class Camera:
    """`eye` and `target` in metres, vertical field of view and roll in degrees, picture size in pixels."""

    eye: Array
    target: Array
    fov_deg: float
    width: int
    height: int
    roll_deg: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)  # of the whole picture, as a crop does

    def axes(self) -> Array:
        """Rows are the picture's right, the picture's up and the backward axis, in world coordinates; (3, 3)."""
        forward = self.target - self.eye
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        up = np.cross(right, forward)
        c, s = np.cos(np.radians(self.roll_deg)), np.sin(np.radians(self.roll_deg))
        return np.stack([c * right + s * up, c * up - s * right, -forward])

    def focal_px(self) -> float:
        return float(self.height / 2 / np.tan(np.radians(self.fov_deg) / 2))

    def project(self, points: Array) -> Array:
        """World points (n, 3) to pixels (n, 2)."""
        local = (points - self.eye) @ self.axes().T
        depth = np.maximum(-local[:, 2], NEAR_M)
        f = self.focal_px()
        centre = self.width / 2 + self.shift_px[0], self.height / 2 + self.shift_px[1]
        return np.stack([centre[0] + f * local[:, 0] / depth, centre[1] - f * local[:, 1] / depth], axis=1)

    def depth(self, points: Array) -> Array:
        """Distance along the optical axis in metres, (n,)."""
        return np.asarray(-((points - self.eye) @ self.axes().T)[:, 2])

    def jacobian(self, points: Array) -> Array:
        """d pixel / d world, (n, 2, 3)."""
        axes = self.axes()
        local = (points - self.eye) @ axes.T
        depth = np.maximum(-local[:, 2], NEAR_M)
        f = self.focal_px()
        out = np.empty((len(points), 2, 3))
        out[:, 0] = f * (axes[0] / depth[:, None] + (local[:, 0] / depth**2)[:, None] * axes[2])
        out[:, 1] = -f * (axes[1] / depth[:, None] + (local[:, 1] / depth**2)[:, None] * axes[2])
        return out

    def view_matrix(self) -> Array:
        view = np.eye(4)
        view[:3, :3] = self.axes()
        view[:3, 3] = -view[:3, :3] @ self.eye
        return view

    def projection_matrix(self) -> Array:
        t = 1 / np.tan(np.radians(self.fov_deg) / 2)
        n, f = NEAR_M, FAR_M
        return np.array(
            [
                [t * self.height / self.width, 0, -2 * self.shift_px[0] / self.width, 0],
                [0, t, 2 * self.shift_px[1] / self.height, 0],
                [0, 0, (f + n) / (n - f), 2 * f * n / (n - f)],
                [0, 0, -1, 0],
            ]
        )


def orbit(
    yaw_deg: float,
    distance_m: float,
    height_m: float,
    *,
    aim: tuple[float, float, float] = (0.0, 0.0, 0.85),
    fov_deg: float = 52.0,
    size: tuple[int, int] = (640, 640),
) -> Camera:
    """Camera round the performer: yaw 0 looks at the front, +90 from the left side (who then faces image-left)."""
    a = np.radians(yaw_deg)
    target = np.array(aim)
    eye = np.array([target[0] + distance_m * np.sin(a), target[1] - distance_m * np.cos(a), height_m])
    return Camera(eye, target, fov_deg, size[0], size[1])
