"""Everything round the performer: rooms, photographs, lamps, cameras, sticks and the faults of a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synth.camera import Camera
from training.synth.render import Light, Stick
from training.synth.rotations import Array, unit

Picture = NDArray[np.uint8]
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LONGEST_PHOTO_PX = 1100
PADDED_FROM = 0.9  # share of the sticks that are not padded
FLOOR_PATTERNS = (1, 2, 4, 6, 6)
WALL_PATTERNS = (0, 0, 0, 1, 2, 3, 5, 6)


def photo_files(folder: Path) -> list[Path]:
    """The photographs of a folder and its subfolders."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file())


def load_backgrounds(folder: Path | None, limit: int, rng: np.random.Generator) -> list[Picture]:
    """At most `limit` photographs of a folder and its subfolders, RGB; none without a folder."""
    if folder is None:
        return []
    files = photo_files(folder)
    out: list[Picture] = []
    for k in rng.permutation(len(files)):
        if len(out) >= limit:
            break
        picture = cv2.imread(str(files[k]), cv2.IMREAD_COLOR)
        if picture is None or min(picture.shape[:2]) < 240:
            continue
        scale = min(1.0, LONGEST_PHOTO_PX / max(picture.shape[:2]))
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        out.append(np.ascontiguousarray(small[:, :, ::-1]))
    return out


def crop_photo(rng: np.random.Generator, photo: Picture, width: int, height: int) -> Picture:
    """A random part of a photograph at the wished size, mirrored half of the time."""
    h, w = photo.shape[:2]
    scale = min(h / height, w / width) * rng.uniform(0.45, 1.0)
    cw, ch = int(width * scale), int(height * scale)
    x, y = int(rng.integers(0, w - cw + 1)), int(rng.integers(0, h - ch + 1))
    part = cv2.resize(photo[y : y + ch, x : x + cw], (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


def random_light(rng: np.random.Generator) -> Light:
    """From flat indoor light to a hard lamp; the picture's overall brightness stays usable."""
    warm = rng.normal(0, 0.06)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    key = rng.uniform(0.3, 0.9)
    ambient = rng.uniform(0.5, 0.85)
    return Light(
        unit(np.array([rng.uniform(-1, 1), rng.uniform(-1, 0.6), rng.uniform(0.35, 1.3)])),
        key * tint,
        unit(np.array([rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0, 0.6)])),
        rng.uniform(0.0, 0.25) * np.ones(3),
        ambient * tint[::-1],
        ambient * rng.uniform(0.45, 0.85) * tint,
    )


def random_stick(rng: np.random.Generator) -> Stick:
    """Rattan most of the time, else dark wood, painted, or padded with foam; some taped at the grip, banded or worn."""
    kind = rng.random()
    if kind < 0.6:
        c = np.clip(np.array([0.78, 0.60, 0.36]) * rng.uniform(0.6, 1.2) + rng.normal(0, 0.03, 3), 0.05, 1)
    elif kind < 0.78:
        c = np.clip(np.array([0.32, 0.2, 0.11]) * rng.uniform(0.4, 1.3), 0.02, 1)
    else:
        c = rng.uniform(0.03, 0.95, 3)
    second = (
        rng.choice([rng.uniform(0.02, 0.15), rng.uniform(0.7, 0.95)]) * np.ones(3)
        if rng.random() < 0.6
        else rng.random(3)
    )
    return Stick(
        float(rng.uniform(0.0095, 0.014) if kind < PADDED_FROM else rng.uniform(0.016, 0.026)),
        (float(c[0]), float(c[1]), float(c[2])),
        (float(second[0]), float(second[1]), float(second[2])),
        float(rng.uniform(3, 8)) if kind < 0.6 else 0.0,
        float(rng.uniform(0.12, 0.25)) if rng.random() < 0.35 else 0.0,
        float(rng.uniform(0.02, 0.08)) if rng.random() < 0.2 else 0.0,
        float(rng.uniform(0.2, 0.8)) if kind < PADDED_FROM and rng.random() < 0.3 else 0.0,
    )


def quad(
    a: Array, u: Array, v: Array, scale_m: float, c1: Array, c2: Array, pattern: int, unit_uv: bool = False
) -> Array:
    """Two triangles of the parallelogram a, a+u, a+u+v, a+v; texture unit `scale_m` metres."""
    n = np.cross(u, v)
    n = n / max(float(np.linalg.norm(n)), 1e-9)
    us, vs = (1.0, 1.0) if unit_uv else (float(np.linalg.norm(u)) / scale_m, float(np.linalg.norm(v)) / scale_m)
    corners = [(a, 0, 0), (a + u, us, 0), (a + u + v, us, vs), (a, 0, 0), (a + u + v, us, vs), (a + v, 0, vs)]
    return np.array([np.concatenate([p, n, [s, t], c1, c2, [pattern]]) for p, s, t in corners])


def random_room(rng: np.random.Generator, camera: Camera, photo_wall: bool) -> Array:
    """Floor, walls and things (poles, frames, boxes, rails) behind the performer, triangles of the room shader."""
    ahead = (camera.target - camera.eye) * np.array([1, 1, 0])
    ahead = unit(ahead)
    right = np.cross(ahead, (0, 0, 1.0))
    up = np.array([0, 0, 1.0])
    turn = np.radians(rng.normal(0, 12))
    ahead, right = np.cos(turn) * ahead + np.sin(turn) * right, np.cos(turn) * right - np.sin(turn) * ahead

    def colour(low: float, high: float) -> Array:
        return np.asarray(np.clip(rng.uniform(low, high) + rng.normal(0, rng.choice([0.02, 0.1]), 3), 0.02, 1))

    back, side, tall = rng.uniform(0.9, 4.0), rng.uniform(2.0, 5.0), rng.uniform(2.4, 4.5)
    floor, wall = colour(0.2, 0.75), colour(0.25, 0.95)
    near = -12 * ahead
    parts = [
        quad(near - 12 * right, 24 * right, ahead * (12 + back), rng.uniform(0.3, 1.2), floor,
              np.clip(floor * rng.uniform(0.5, 1.4), 0, 1), int(rng.choice(FLOOR_PATTERNS))),
        quad(ahead * back - right * 12, 24 * right, up * tall, rng.uniform(0.5, 1.5), wall,
              np.clip(wall * rng.uniform(0.6, 1.3), 0, 1), int(rng.choice(WALL_PATTERNS))),
    ]  # fmt: skip
    for sign in (-1, 1):
        if rng.random() < 0.6:
            shade = np.clip(wall * rng.uniform(0.8, 1.1), 0, 1)
            u, v = ahead * (12 + back), up * tall
            corner = near + sign * side * right
            parts.append(
                quad(corner, u, v, 1.0, shade, shade, 0) if sign < 0 else quad(corner, v, u, 1.0, shade, shade, 0)
            )
    parts.append(
        quad(
            near - 12 * right + up * tall, ahead * (12 + back), 24 * right, 1.0, colour(0.6, 0.95), colour(0.6, 0.95), 0
        )
    )
    if photo_wall:
        wide = rng.uniform(3.0, 7.0)
        high = min(tall, wide * rng.uniform(0.5, 0.8))
        parts.append(
            quad(ahead * (back - 0.02) - right * wide / 2 + up * rng.uniform(0, tall - high + 0.01), right * wide,
                 up * high, 1.0, floor, floor, 7, unit_uv=True)
        )  # fmt: skip
    skirting = colour(0.1, 0.9)
    parts.append(
        quad(ahead * (back - 0.015) - right * 12, 24 * right, up * rng.uniform(0.05, 0.15), 1.0, skirting, skirting, 0)
    )
    for _ in range(int(rng.integers(0, 6))):
        parts += _thing(rng, ahead, right, up, back, colour(0.05, 0.9), colour(0.05, 0.9))
    return np.concatenate(parts)


def random_outdoors(rng: np.random.Generator, camera: Camera) -> Array:
    """Ground, a hedge, fence or house front some metres behind, the sky, and things before it."""
    ahead = unit((camera.target - camera.eye) * np.array([1, 1, 0]))
    right, up = np.cross(ahead, (0, 0, 1.0)), np.array([0, 0, 1.0])
    grounds = np.array([[0.30, 0.42, 0.18], [0.5, 0.42, 0.3], [0.45, 0.45, 0.44], [0.62, 0.56, 0.45]])
    ground = grounds[rng.integers(4)] * rng.uniform(0.7, 1.3)
    backs = np.array([[0.16, 0.28, 0.12], [0.55, 0.35, 0.26], [0.72, 0.68, 0.6], [0.4, 0.3, 0.2]])
    back = backs[rng.integers(4)] * rng.uniform(0.7, 1.3)
    blue = np.array([0.55, 0.7, 0.9]) * rng.uniform(0.8, 1.1) + rng.uniform(0, 0.1)
    far = rng.uniform(2.5, 9.0)
    parts = [
        quad(-12 * ahead - 15 * right, 30 * right, ahead * 26, rng.uniform(0.4, 1.5), ground, ground * 0.7, 6),
        quad(ahead * far - right * 15, 30 * right, up * rng.uniform(0.8, 4.0), rng.uniform(0.4, 1.5), back,
             back * 0.6, int(rng.choice([3, 5, 6, 6, 2]))),
        quad(ahead * 14 - right * 40, 80 * right, up * 30, 2.0, np.clip(blue, 0, 1), np.clip(blue * 0.8, 0, 1), 0),
    ]  # fmt: skip
    for _ in range(int(rng.integers(1, 6))):
        parts += _thing(rng, ahead, right, up, far, rng.uniform(0.05, 0.7) * np.ones(3), back * rng.uniform(0.5, 1.2))
    return np.concatenate(parts)


def _thing(
    rng: np.random.Generator, ahead: Array, right: Array, up: Array, back: float, c1: Array, c2: Array
) -> list[Array]:
    """A frame, pole, rail, door or box near the wall: straight lines like these are what a stick is mistaken for."""
    x = rng.uniform(-3, 3)
    at = ahead * (back - 0.03) + right * x
    kind = rng.integers(0, 5)
    if kind == 0:
        w, h, z = rng.uniform(0.3, 1.6), rng.uniform(0.3, 1.2), rng.uniform(0.8, 1.9)
        inner = quad(
            at + up * (z + 0.04) + right * 0.04 - ahead * 0.005, right * (w - 0.08), up * (h - 0.08), 1.0, c2, c1, 6
        )
        return [quad(at + up * z, right * w, up * h, 1.0, c1, c1, 0), inner]
    if kind == 1:
        return [quad(at, right * rng.uniform(0.015, 0.12), up * 4.5, 1.0, c1, c1, 0)]
    if kind == 2:
        lean = unit(up + right * rng.normal(0, 0.5))
        return [quad(at, right * rng.uniform(0.02, 0.05), lean * rng.uniform(0.5, 1.8), 1.0, c1, c2, 0)]
    if kind == 3:
        corner = at + up * rng.uniform(0.3, 2.2) - right * 3
        return [quad(corner, right * rng.uniform(0.6, 6), up * rng.uniform(0.02, 0.12), 1.0, c1, c1, 0)]
    w, d, h = rng.uniform(0.3, 1.4), rng.uniform(0.1, 0.5), rng.uniform(0.3, 2.1)
    low = at - ahead * d
    return [
        quad(low, right * w, up * h, 0.7, c1, c2, int(rng.choice([0, 1, 2, 5]))),
        quad(low, up * h, ahead * d, 1.0, c1 * 0.8, c1 * 0.8, 0),
        quad(low + right * w, ahead * d, up * h, 1.0, c1 * 0.8, c1 * 0.8, 0),
        quad(low + up * h, right * w, ahead * d, 1.0, c1, c1, 0),
    ]


def composite(rgba: Picture, behind: Picture, feet_px: Array, size_px: float, rng: np.random.Generator) -> Picture:
    """The performer over a photograph, with a soft dark patch under the feet and a brightness like the photograph's."""
    alpha = rgba[:, :, 3:].astype(np.float32) / 255
    back = behind.astype(np.float32)
    shadow = np.zeros(rgba.shape[:2], np.float32)
    for foot in feet_px:
        cv2.ellipse(
            shadow, (int(foot[0]), int(foot[1])), (int(size_px * 0.09), int(size_px * 0.025)), 0, 0, 360, 1.0, -1
        )
    blur = cv2.GaussianBlur(shadow, (0, 0), max(size_px * 0.02, 1.0))[..., None]
    back *= 1 - rng.uniform(0.2, 0.6) * blur
    front = rgba[:, :, :3].astype(np.float32)
    front *= np.clip((back.mean() / 128) ** 0.35, 0.6, 1.25)
    return np.clip(front + back * (1 - alpha), 0, 255).astype(np.uint8)


def random_lens(rng: np.random.Generator) -> float:
    """Radial distortion of a phone's lens: half of the pictures have none, the others a barrel or a slight cushion."""
    return 0.0 if rng.random() < 0.5 else float(rng.uniform(-0.06, 0.03))


def _lens_scale(x: Array, y: Array, bend: float, width: int, height: int) -> Array:
    """By how much the lens scales places at x, y off the centre of the bent picture to find their source."""
    return np.asarray(1 - bend + bend * 4 / (width**2 + height**2) * (x**2 + y**2))


def bend_points(points: Array, bend: float, width: int, height: int) -> Array:
    """Places (n, 2) of the straight picture in the picture that `bend_picture` makes of it; NaN stays NaN."""
    away = points - np.array([width, height]) / 2
    bent = away.copy()
    for _ in range(20 if bend else 0):
        bent = away / _lens_scale(bent[:, :1], bent[:, 1:], bend, width, height)
    return np.asarray(points - away + bent)


def bend_picture(picture: Picture, bend: float) -> Picture:
    """The picture through a lens with radial distortion; the corners stay where they are."""
    if not bend:
        return picture
    h, w = picture.shape[:2]
    x = (np.arange(w, dtype=np.float32) + np.float32(0.5 - w / 2))[None]
    y = (np.arange(h, dtype=np.float32) + np.float32(0.5 - h / 2))[:, None]
    scale = _lens_scale(x, y, bend, w, h).astype(np.float32)
    source_x, source_y = x * scale + np.float32(w / 2 - 0.5), y * scale + np.float32(h / 2 - 0.5)
    bent = cv2.remap(picture, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(bent, dtype=np.uint8)


def add_bystander(
    rng: np.random.Generator, picture: Picture, free: NDArray[np.bool_], person: Picture, camera: Camera
) -> Picture:
    """The picture with someone (RGBA, cut to the outline) 1 to 5 m behind the performer, where `free` is true."""
    ahead = unit((camera.target - camera.eye) * np.array([1, 1, 0]))
    right = np.cross(ahead, (0, 0, 1.0))
    foot = camera.target * np.array([1, 1, 0]) + rng.uniform(1.0, 5.0) * ahead + rng.uniform(-2.5, 2.5) * right
    low, high = camera.project(np.stack([foot, foot + [0, 0, rng.uniform(1.5, 1.9)]]))
    tall = int(low[1] - high[1])
    wide = int(person.shape[1] * tall / person.shape[0])
    x, y = int(low[0] - wide / 2), int(high[1])
    h, w = picture.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + wide, w), min(y + tall, h)
    if tall < 20 or wide < 6 or x0 >= x1 or y0 >= y1:
        return picture
    small = cv2.resize(person, (wide, tall), interpolation=cv2.INTER_AREA)[y0 - y : y1 - y, x0 - x : x1 - x]
    alpha = small[:, :, 3:].astype(np.float32) / 255 * free[y0:y1, x0:x1, None]
    out = picture.copy()
    out[y0:y1, x0:x1] = (small[:, :, :3] * rng.uniform(0.7, 1.0) * alpha + out[y0:y1, x0:x1] * (1 - alpha)).astype(
        np.uint8
    )
    return out


def camera_faults(rng: np.random.Generator, picture: Picture) -> Picture:
    """Exposure, contrast, colour, blur, sensor noise: RGB in, RGB out."""
    gamma = np.exp(rng.normal(0, 0.25)) if rng.random() < 0.3 else 1.0
    curve = (255 * np.linspace(0, 1, 256) ** gamma).astype(np.uint8)
    out: Any = (cv2.LUT(picture, curve) if gamma != 1.0 else picture).astype(np.float32)
    if rng.random() < 0.6:
        out = (out - 128) * rng.uniform(0.7, 1.25) + 128 + rng.uniform(-32, 28)
    if rng.random() < 0.4:
        out *= (1 + rng.normal(0, 0.06, 3)).astype(np.float32)
    if rng.random() < 0.15:
        out = out * 0.3 + out.mean(2, keepdims=True) * 0.7
    if rng.random() < 0.3:
        small = rng.uniform(0.45, 0.8)
        h, w = out.shape[:2]
        out = cv2.resize(cv2.resize(out, None, fx=small, fy=small, interpolation=cv2.INTER_AREA), (w, h))
    elif rng.random() < 0.4:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.12:
        length = int(rng.integers(3, 9))
        kernel = np.zeros((length, length), np.float32)
        a = rng.uniform(0, np.pi)
        c = (length - 1) / 2
        ends = [(int(round(c + s * c * np.cos(a))), int(round(c + s * c * np.sin(a)))) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        out = cv2.filter2D(out, -1, kernel / kernel.sum())
    if rng.random() < 0.6:
        shape = (*out.shape[:2], 1)
        out = out + rng.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(1.5, 8))
    return np.asarray(np.clip(out, 0, 255), dtype=np.uint8)
