"""Films of sessions: random people go through the twelve poses before a camera that stands still. Nothing learns from
them; the whole program is judged by them (`arnis-bench --films`)."""

from __future__ import annotations

import logging
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from training.processes import end_with_parent, helpers
from training.synth import picture, pose, scene
from training.synth.body import Posed
from training.synth.camera import orbit
from training.synth.film import FPS, HEIGHT, LOOSE_PALM, WIDTH, Key, act, write_film
from training.synth.render import Renderer
from training.synth.rig import Rest
from training.synth.rotations import Array, unit
from training.synth.skeletons import VIEWS, class_skeletons
from training.synth.write import drawable_classes, group_of, keep_order

log = logging.getLogger(__name__)
PHOTOS = 6
POSES_IN_A_ROW = 3
"""Then one is neutral again."""
RESTS = ("idle", "ready", "walk", "guard", "salute")
HOLD_S, WAY_S, WAY_S_PER_DEG = (0.9, 2.0), (0.35, 0.8), 0.0027
FIRST_HOLD_S = 2.0
TURN_SPREAD_DEG = 6.0


def write_sessions(out: Path, people: int, seed: int, processes: int, backgrounds: Path | None, spread: float) -> None:
    """Write the films that are still missing, one a person (1280x720), and what is true in each beside it (.json).

    Raises UserError when the folder holds films that were drawn otherwise, or a process dies.
    """
    drawable_classes()  # before a folder is made
    keep_order(out, {"seed": seed, "spread": spread, "backgrounds": backgrounds and str(backgrounds)})
    films = [out / f"{group_of(seed, person)}.mp4" for person in range(people)]
    missing = [person for person, film in enumerate(films) if not film.with_suffix(".json").exists()]
    log.info("%d films to draw, %d are there", len(missing), people - len(missing))
    work = partial(_write_session, out, seed, backgrounds, spread)
    try:
        with helpers(processes, end_with_parent) as pool:
            for film in pool.map(work, missing):
                log.info("%s is written", film)
    except BrokenProcessPool:
        raise UserError(f"a process that draws died; repeat the command, and it goes on with {out}") from None


def plan_session(
    rng: np.random.Generator, rest: Rest, camera_at: tuple[float, float, float], spread: float
) -> list[Key]:
    """All poses in random order and views, with a neutral one in front of every third and at the end.

    `camera_at`: distance and height in metres, vertical field of view in degrees.
    """
    poses = drawable_classes().poses
    names = [pose.NEUTRAL]
    for k, name in enumerate(rng.permutation(poses).tolist(), 1):
        names += [name, pose.NEUTRAL] if k % POSES_IN_A_ROW == 0 else [name]
    keys: list[Key] = []
    for name in names:
        view = str(rng.choice(VIEWS))
        if name == pose.NEUTRAL:
            points = pose.neutral_pose(rng, str(rng.choice(RESTS)), rest, poses)
            turn = float(rng.choice([0, 0, 60, -60]))
        else:
            distance_m, height_m, fov_deg = camera_at
            camera = pose.view_camera(name, view, distance_m, height_m, fov_deg, 0.0, (WIDTH, HEIGHT))
            points = pose.fit_for_palm(rng, name, view, rest, camera, spread)
            turn = float(rng.normal(-class_skeletons()[name][1][view], TURN_SPREAD_DEG))
        turned_deg = abs(turn - keys[-1].turn_deg) if keys else 0.0
        way_s = float(rng.uniform(*WAY_S)) + WAY_S_PER_DEG * turned_deg
        hold_s = float(rng.uniform(*HOLD_S)) if keys else FIRST_HOLD_S
        palm = unit(np.array(pose.PALMS.get(name, LOOSE_PALM)))
        keys.append(Key(name, view, points, turn, palm, round(FPS * way_s), round(FPS * hold_s)))
    return keys


def _write_session(out: Path, seed: int, backgrounds: Path | None, spread: float, person: int) -> Path:
    cv2.setNumThreads(1)  # there are several processes
    rng = np.random.default_rng([seed, person])
    performer, renderer = picture.make_performer(rng), Renderer()
    rest = performer.rest
    bystanders = picture.make_bystanders(renderer, seed)
    renderer.dress(rest, performer.garment, performer.outfit)
    photos = scene.load_backgrounds(backgrounds, PHOTOS, rng)
    tall_m, distance_m, height_m = rest.lengths.hip_m * 2.1, float(rng.uniform(2.6, 4.5)), float(rng.uniform(0.9, 1.6))
    fov_deg = float(np.degrees(2 * np.arctan(tall_m / (2 * rng.uniform(0.5, 0.72) * distance_m))))
    camera = orbit(0.0, distance_m, height_m, aim=(0.0, 0.0, 0.53 * tall_m), fov_deg=fov_deg, size=(WIDTH, HEIGHT))
    noise = np.float32(rng.uniform(0.8, 4.0))

    def draw(posed: Posed) -> tuple[NDArray[np.float32], Array]:
        own = np.random.default_rng([seed, person, 0])  # the same place, light and camera in all frames
        rgb, depth = picture.draw_scene(own, renderer, posed, camera, photos, True, bystanders)
        flicker = noise * rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
        return scene.camera_faults(own, rgb) + flicker, depth

    moments, holds = act(rest, plan_session(rng, rest, (distance_m, height_m, fov_deg), spread))
    film = out / f"{group_of(seed, person)}.mp4"
    write_film(film, rest, moments, holds, camera, draw, left_handed=performer.left_handed)
    return film
