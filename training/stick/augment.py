"""What a camera and a body detector do to a crop: shift, zoom, turn, mirror; light, blur, noise, hidden parts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stages.packets import Hand
from stages.skeleton import BODY_COUNT, LEFT_WRIST, MIRROR, RIGHT_WRIST
from stages.stick_crop import known_points, stick_crop


@dataclass(frozen=True)
class Warp:
    """A square in the cached crop, possibly turned and mirrored: centre and side in pixels, turn in radians."""

    centre: tuple[float, float]
    side_px: float
    turn: float = 0.0
    mirrored: bool = False

    @staticmethod
    def plain(cache_px: int, side_px: float) -> Warp:
        """The middle of the cached crop, as the detector sees it when serving."""
        return Warp((cache_px / 2, cache_px / 2), side_px)

    def _linear(self) -> np.ndarray:
        cos, sin = np.cos(self.turn) / self.side_px, np.sin(self.turn) / self.side_px
        rotation = np.array([[cos, -sin], [sin, cos]])
        return rotation * np.array([[-1.0], [1.0]]) if self.mirrored else rotation

    def points(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) pixels of the cached crop to 0..1 of the square."""
        return np.asarray((points - np.array(self.centre)) @ self._linear().T + 0.5)

    def body(self, body: np.ndarray) -> np.ndarray:
        """Keypoints (17, 3) in pixels of the cached crop as the network is given them: float32, 0..1 of the square."""
        placed = np.column_stack([self.points(body[:, :2]), body[:, 2]])
        return known_points(placed[MIRROR[:BODY_COUNT]] if self.mirrored else placed)

    def apply(self, image: np.ndarray, size_px: int) -> np.ndarray:
        """uint8 (size_px, size_px, 3); beyond the cached crop it is black."""
        linear = self._linear() * size_px
        # Pixel indices are centres, coordinates are edges: hence the halves.
        shift = size_px / 2 - 0.5 - linear @ (np.array(self.centre) - 0.5)
        matrix = np.column_stack([linear, shift])
        return np.asarray(cv2.warpAffine(image, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR))


def noisy_body(body: np.ndarray, torso_px: float, rng: np.random.Generator) -> np.ndarray:
    """A detected body (17, 3) in which each point is moved a little, now and then a wrist far, and some are missed; and
    as sure or unsure as other detectors are."""
    noisy = body.copy()
    noisy[:, 2] = np.minimum(noisy[:, 2] * rng.uniform(0.6, 2.0), 1.0)
    noisy[:, :2] += rng.normal(0, 0.02 * torso_px, (BODY_COUNT, 2)).astype(np.float32)
    for wrist in (LEFT_WRIST, RIGHT_WRIST):
        if rng.random() < 0.08:
            noisy[wrist, :2] += rng.normal(0, 0.4 * torso_px, 2).astype(np.float32)
        if rng.random() < 0.04:
            noisy[wrist, 2] = 0.0
    return noisy


def hide_points(body: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A body (17, 3) of which the network is told less: it must not believe the points more than the picture."""
    hidden = rng.random(BODY_COUNT) < (1.0 if rng.random() < 0.06 else 0.06)
    return np.where(hidden[:, None], np.float32(0), body)


def random_warp(body: np.ndarray, cache_px: int, rng: np.random.Generator, hand: Hand | None = None) -> Warp:
    """The square that serving would cut for a body (17, 3), or for one hand, further zoomed, shifted, turned and
    mirrored."""
    x, y, side = stick_crop(body, cache_px, cache_px, hand)
    side *= rng.uniform(0.82, 1.22)
    shift = rng.normal(0, 0.03 * side, 2)
    turn = float(np.radians(rng.normal(0, 8)))
    return Warp((x + shift[0], y + shift[1]), side, turn, bool(rng.random() < 0.5))


def augment_pixels(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (S, S, 3) BGR in and out."""
    if rng.random() < 0.8:
        image = _light(image, rng)
    if rng.random() < 0.3:
        image = _cutout(image, rng)
    blur = rng.random()
    if blur < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
    elif blur < 0.33:
        image = _shake(image, rng)
    elif blur < 0.41:
        image = cv2.addWeighted(image, 1.8, cv2.GaussianBlur(image, (0, 0), 1.2), -0.8, 0)  # cameras sharpen
    if rng.random() < 0.4:
        noise: np.ndarray = np.empty(image.shape, np.int16)
        cv2.setRNGSeed(int(rng.integers(1 << 31)))
        cv2.randn(noise, np.zeros(3), np.full(3, rng.uniform(2, 14)))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return np.asarray(image)


def _light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, contrast, gamma, colour cast and saturation as one table per channel."""
    if rng.random() < 0.3:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        weight = float(rng.uniform(0.3, 1.0))
        image = cv2.addWeighted(grey, weight, image, 1 - weight, 0)
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    gain = rng.uniform(0.65, 1.35) * rng.normal(1, 0.07, 3)
    curve = np.clip((levels - 0.5) * gain + 0.5 + rng.uniform(-0.18, 0.14), 0, 1) ** rng.uniform(0.7, 1.45)
    return np.asarray(cv2.LUT(image, (curve * 255).astype(np.uint8)[:, None]))


def _cutout(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    width, height = (rng.uniform(0.05, 0.22, 2) * size).astype(int)
    x, y = int(rng.integers(size - width)), int(rng.integers(size - height))
    image = image.copy()
    image[y : y + height, x : x + width] = rng.integers(0, 255, 3)
    return image


def _shake(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur along a line, as of a moving camera."""
    length = int(rng.integers(3, 8))
    kernel: np.ndarray = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1.0 / length
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), float(rng.uniform(0, 180)), 1.0)
    kernel = np.asarray(cv2.warpAffine(kernel, turn, (length, length)))
    return np.asarray(cv2.filter2D(image, -1, kernel / max(float(kernel.sum()), 1e-6)))
