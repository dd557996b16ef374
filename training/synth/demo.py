"""The demo clip: one person, who is not in any data set, goes through the twelve poses in a gym."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.classes import load_classes
from training.synth import pose, scene
from training.synth.body import Posed
from training.synth.camera import Camera, orbit
from training.synth.dress import Outfit, fit_garment
from training.synth.film import HEIGHT, LOOSE_PALM, WIDTH, Key, act, write_film
from training.synth.render import Light, Renderer, Stick
from training.synth.rig import Rest, make_rest
from training.synth.rotations import Array, unit
from training.synth.skeletons import class_skeletons

DRAW_SPREAD = 0.8
HOLD_FRAMES = 48
WAY_FRAMES, WAY_FRAMES_PER_DEG = 22, 0.1
# How the performer turns for each pose, and the draw of its statistics that is shown: clear examples of their class.
SHOWN = {
    "neutral": ("front", 0), "crown_thrust": ("right", 22), "left_temple_block": ("right", 46),
    "right_temple_block": ("right", 28), "left_eye_thrust": ("left", 21), "right_eye_thrust": ("right", 23),
    "left_chest_thrust": ("right", 22), "right_chest_thrust": ("left", 25), "left_elbow_block": ("right", 20),
    "right_elbow_block": ("left", 29), "solar_plexus_thrust": ("left", 20), "left_knee_block": ("left", 21),
    "right_knee_block": ("right", 20),
}  # fmt: skip
BODY = {"gender": 0.25, "age": 0.66, "muscle": 0.55, "weight": 0.48, "height": 0.42, "proportions": 0.6}
STICK_M, BUTT_M = 0.615, 0.095
OUTFIT = Outfit(
    skin=(0.72, 0.52, 0.40), hair=(0.06, 0.045, 0.035), shirt=(0.86, 0.85, 0.82), shirt_second=(0.65, 0.12, 0.1),
    trousers=(0.10, 0.11, 0.15), trousers_second=(0.7, 0.15, 0.12), shoes=(0.75, 0.74, 0.7), belt=(0.6, 0.1, 0.1),
    sleeve=0.7, trouser=1.9, hem=-0.1, collar=-0.09, shirt_pattern=3, trouser_pattern=1, pattern_scale=0.06,
    belted=False, barefoot=False, loose_shirt_m=0.02, loose_trousers_m=0.024, hair_m=0.012, hairline=1.1,
)  # fmt: skip
RATTAN = Stick(0.0125, (0.80, 0.62, 0.38), (0.1, 0.1, 0.1), 4.5, 0.16, 0.0)
LIGHT = Light(
    unit(np.array([0.5, -0.7, 1.0])), np.array([0.62, 0.6, 0.56]), unit(np.array([-0.8, -0.4, 0.4])), np.full(3, 0.14),
    np.array([0.6, 0.62, 0.66]), np.array([0.42, 0.40, 0.37]),
)  # fmt: skip


def gym() -> Array:
    """A plain hall: planks, a painted wall with wall bars, a bench and a notice board."""
    x, y, z = np.eye(3)
    floor, wall, wood = np.array([0.62, 0.47, 0.32]), np.array([0.70, 0.72, 0.70]), np.array([0.55, 0.38, 0.22])
    low = np.array([0.38, 0.47, 0.52])
    parts = [
        scene.quad(-10 * x - 8 * y, 20 * x, 10.4 * y, 1.2, floor, floor * 0.8, 2),
        scene.quad(-10 * x + 2.4 * y, 20 * x, 4 * z, 1.5, wall, wall * 0.95, 0),
        scene.quad(-10 * x + 2.39 * y, 20 * x, 1.1 * z, 1.5, low, low, 0),
        scene.quad(-10 * x + 2.38 * y, 20 * x, 0.09 * z, 1.0, wood * 0.7, wood, 0),
        scene.quad(1.35 * x + 2.37 * y + 1.25 * z, 1.1 * x, 0.75 * z, 1.0, wood * 0.6, wood, 0),
        scene.quad(1.40 * x + 2.36 * y + 1.30 * z, 1.0 * x, 0.65 * z, 1.0, np.array([0.5, 0.55, 0.4]), wall, 6),
        scene.quad(-3.4 * x + 1.9 * y + 0.42 * z, 1.5 * x, 0.06 * z, 1.0, wood, wood, 2),
        scene.quad(-3.4 * x + 1.9 * y + 0.48 * z, 1.5 * x, 0.4 * y, 1.0, wood * 1.1, wood, 2),
        scene.quad(-3.3 * x + 1.95 * y, 0.08 * x, 0.42 * z, 1.0, wood * 0.6, wood, 0),
        scene.quad(-2.1 * x + 1.95 * y, 0.08 * x, 0.42 * z, 1.0, wood * 0.6, wood, 0),
    ]
    for k in range(8):
        parts.append(scene.quad(-2.9 * x + 2.35 * y + (0.9 + 0.22 * k) * z, 1.4 * x, 0.035 * z, 1.0, wood, wood, 0))
    for left in (-2.95, -1.52):
        parts.append(scene.quad(left * x + 2.34 * y + 0.75 * z, 0.06 * x, 1.9 * z, 1.0, wood * 0.8, wood, 0))
    return np.concatenate(parts)


def draw_pose(rest: Rest, name: str, view: str, seed: int) -> Array:
    """One draw of a class from the statistics of its view, a little nearer to the mean than the data sets go."""
    camera = pose.view_camera(name, view, 3.2, 1.35, 42.0, 0.0, (WIDTH, HEIGHT))
    return pose.fit_sample(np.random.default_rng(seed), name, view, rest, camera, spread=DRAW_SPREAD)


def key_poses(rest: Rest) -> list[Key]:
    """Neutral, the twelve poses in the order of the class file, neutral."""
    order = [c for c in load_classes().names if c != pose.NEUTRAL]
    rng = np.random.default_rng(7)
    idle = pose.neutral_pose(rng, "ready", rest, tuple(order))
    keys: list[Key] = []
    for name in (pose.NEUTRAL, *order, pose.NEUTRAL):
        view, seed = SHOWN[name]
        points = idle if name == pose.NEUTRAL else draw_pose(rest, name, view, seed)
        turn = 0.0 if name == pose.NEUTRAL else -class_skeletons()[name][1][view]
        way = WAY_FRAMES + int(WAY_FRAMES_PER_DEG * abs(turn - keys[-1].turn_deg)) if keys else 0
        palm = unit(np.array(pose.PALMS.get(name, LOOSE_PALM)))
        keys.append(Key(name, view, points, turn, palm, way, HOLD_FRAMES))
    return keys


def demo_camera() -> Camera:
    """The fixed camera of the clip."""
    return orbit(0.0, 3.5, 1.35, aim=(0.0, 0.0, 0.95), fov_deg=42.0, size=(WIDTH, HEIGHT))


def write_demo(out: Path, truth: Path | None = None) -> None:
    """Draw the clip (H.264), its list of holds beside it (.json), and on request the true keypoints of every frame."""
    renderer = Renderer()
    rest = make_rest(BODY, STICK_M, BUTT_M)
    renderer.dress(rest, fit_garment(rest, OUTFIT, np.random.default_rng(3)), OUTFIT)
    camera, room = demo_camera(), gym()
    rng = np.random.default_rng(0)

    def draw(posed: Posed) -> tuple[NDArray[np.float32], Array]:
        rgba, depth = renderer.draw(posed, RATTAN, camera, LIGHT, room)
        noise = rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32) * 1.2
        return rgba[:, :, :3].astype(np.float32) + noise, depth

    for file in filter(None, (out, truth)):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_film(out, rest, *act(rest, key_poses(rest)), camera, draw, truth=truth)
