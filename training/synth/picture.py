"""One picture of one person: pose, camera, room, faults, and the truth about its 19 keypoints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stages import skeleton as sk
from stages.classes import ClassFile
from training.data.table import OTHER_SIDE
from training.synth import pose, scene
from training.synth.body import Posed, Wish, pose_body
from training.synth.camera import Camera, orbit
from training.synth.dress import Garment, Outfit, fit_garment, random_outfit
from training.synth.render import Renderer
from training.synth.rig import Rest, make_rest
from training.synth.rotations import Array
from training.synth.skeletons import VIEWS

Picture = NDArray[np.uint8]

SIZES = ((640, 640), (640, 480))
VISIBLE, SELF_OCCLUDED, ABSENT = 1.0, 0.5, 0.0
# How deep a joint lies under the skin that shows it, metres.
SKIN_DEPTH_M = np.array([
    0.035, 0.035, 0.035, 0.05, 0.05, 0.10, 0.10, 0.075, 0.075, 0.06, 0.06, 0.15, 0.15, 0.09, 0.09, 0.08, 0.08, 0.05,
    0.03,
])  # fmt: skip
# The photographs behind the statistics keep the free hand on the chest or the weapon arm, over 1.2 torso away from
# the place on the stick, so braced blocks are an addition; more than this share would pull the means away.
BRACED_SHARE = 0.15
BYSTANDERS, BYSTANDER_SHARE = 10, 0.2
OUTDOOR_SHARE = 0.3
NO_STICK_SHARE = 0.08
LEFT_HANDED_SHARE = 0.10
NEUTRAL_SHARE = 0.20


@dataclass(frozen=True)
class Performer:
    """One synthetic person: body, clothes, and the hand that holds the stick."""

    rest: Rest
    outfit: Outfit
    garment: Garment
    left_handed: bool


@dataclass(frozen=True)
class Shot:
    """A finished picture (RGB) with its truth: keypoints (19, 3) as x px, y px, visibility; NaN where absent."""

    picture: NDArray[np.uint8]
    keypoints: Array
    label_name: str
    view: str
    grip_hand: str


def random_body(rng: np.random.Generator) -> dict[str, float]:
    """Phenotype of a teenager or adult, 0..1 each; heights of about 1.50 to 1.95 m."""
    return {
        "gender": float(rng.beta(0.6, 0.6)),
        "age": float(rng.uniform(0.52, 0.85)),
        "muscle": float(np.clip(rng.normal(0.5, 0.16), 0.1, 0.95)),
        "weight": float(np.clip(rng.normal(0.5, 0.17), 0.1, 0.95)),
        "height": float(np.clip(rng.normal(0.45, 0.11), 0.2, 0.72)),
        "proportions": float(np.clip(rng.normal(0.55, 0.2), 0, 1)),
    }


def random_rest(rng: np.random.Generator) -> Rest:
    """A random body with a stick of 60 to 80 cm."""
    butt = rng.uniform(0.07, 0.12)
    length = 0.71 if rng.random() < 0.6 else rng.uniform(0.60, 0.80)
    return make_rest(random_body(rng), float(length - butt), float(butt))


def make_performer(rng: np.random.Generator) -> Performer:
    """A random person with a stick."""
    rest = random_rest(rng)
    outfit = random_outfit(rng)
    return Performer(rest, outfit, fit_garment(rest, outfit, rng), bool(rng.random() < LEFT_HANDED_SHARE))


def random_camera(rng: np.random.Generator, name: str, view: str, height_m: float, size: tuple[int, int]) -> Camera:
    """A camera of one view that sees the whole body with 45 to 90 % of the picture's height."""
    while True:
        fill = rng.uniform(0.45, 0.9)
        distance = rng.uniform(1.9, 4.5)
        fov = 2 * np.degrees(np.arctan(height_m / (2 * fill * distance)))
        if 36 <= fov <= 70:
            break
    tall = float(np.clip(rng.normal(1.35, 0.18), 0.8, 1.8))
    return pose.view_camera(name, view, float(distance), tall, float(fov), float(rng.normal(0, 5)), size)


def placed(rng: np.random.Generator, camera: Camera, points: Array, cut_off: bool) -> Camera:
    """The camera rolled a little and shifted so that the whole person and the stick are in the picture, off-centre."""
    rolled = Camera(camera.eye, camera.target, camera.fov_deg, camera.width, camera.height, float(rng.normal(0, 1.5)))
    pixels = rolled.project(points[np.isfinite(points).all(1)])
    margin = 0.05 * np.ptp(pixels[:, 1])
    low = pixels.min(0) - [margin * 0.6, margin * 1.9]
    high = pixels.max(0) + [margin * 0.6, margin * 1.3]
    shift = []
    for k, extent in enumerate((camera.width, camera.height)):
        least, most = -low[k], extent - high[k]
        if least > most:
            least, most = most, least
        slack = 0.2 * float(high[k] - low[k]) if cut_off else 0.0
        shift.append(float(rng.uniform(least - slack, most + slack)))
    return Camera(
        camera.eye, camera.target, camera.fov_deg, camera.width, camera.height, rolled.roll_deg, (shift[0], shift[1])
    )


def visibility(camera: Camera, keypoints: Array, depth: Array) -> Array:
    """1 seen, 0.5 behind the own body, 0 outside the picture, for each keypoint (19,)."""
    pixels = camera.project(keypoints)
    along = camera.depth(keypoints)
    out = np.zeros(len(keypoints))
    for k, (x, y) in enumerate(pixels):
        if not (0 <= x < camera.width and 0 <= y < camera.height):
            continue
        i, j = int(y), int(x)
        window = depth[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        nearest = float(np.median(window))
        out[k] = SELF_OCCLUDED if nearest < along[k] - SKIN_DEPTH_M[k] else VISIBLE
    return out


def outside(keypoints: Array, width: int, height: int) -> NDArray[np.bool_]:
    """Which keypoints (n, 3) lie outside the picture; absent ones do not."""
    x, y = keypoints[:, 0], keypoints[:, 1]
    return np.asarray((x < 0) | (x >= width) | (y < 0) | (y >= height))


@dataclass(frozen=True)
class Plan:
    """What a picture shows before it is drawn."""

    label_name: str
    view: str
    points: Array
    camera: Camera
    wish: Wish


def plan_picture(
    rng: np.random.Generator, rest: Rest, label: str, classes: ClassFile, size: tuple[int, int], spread: float = 1.0
) -> Plan:
    """Choose view, pose and camera for a picture of class `label`; some neutral pictures have no stick.

    `spread` is the share of the statistics' spread that the poses have.
    """
    base_view = str(rng.choice(VIEWS))
    between = rng.random() < 0.25
    tall = rest.lengths.hip_m * 2.1
    kind = "class"
    source = label
    if label == classes.neutral:
        source = pose.NEUTRAL
        kind = str(rng.choice(list(pose.NEUTRAL_KINDS), p=list(pose.NEUTRAL_KINDS.values())))
    camera = random_camera(rng, source, base_view, tall, size)
    if kind in ("class", "statistics"):
        points = pose.fit_for_palm(rng, source, base_view, rest, camera, spread)
    else:
        points = pose.neutral_pose(rng, kind, rest, classes.poses)
    view = base_view
    if between:
        # Halfway between two of the three views, on the side that the view itself lies on.
        yaw = {
            "front": rng.uniform(15, 75) * rng.choice([-1, 1]),
            "left": -rng.uniform(15, 75),
            "right": rng.uniform(15, 75),
        }
        target = {"front": 0.0, "left": 90.0, "right": -90.0}[base_view] + float(yaw[base_view])
        out = camera.eye - camera.target
        camera = orbit(target, float(np.hypot(out[0], out[1])), float(camera.eye[2]), fov_deg=camera.fov_deg, size=size)
        view = pose.BETWEEN
    if label == classes.neutral and rng.random() < NO_STICK_SHARE / NEUTRAL_SHARE:
        points = points.copy()
        points[[sk.GRIP, sk.TIP]] = np.nan
    wish = Wish(
        pose.palm_of(source),
        float(rng.uniform(0.1, 0.8)), float(rng.normal(0, 25)), float(rng.uniform(0, 22)),
    )  # fmt: skip
    kinds = {c.name: c.kind for c in classes.classes}
    if kinds[label] == "block" and rng.random() < BRACED_SHARE:
        held = pose.braced(rng, points, rest, wish.palm)
        if held is not None:
            points = held
            wish = replace(wish, braced=True, free_curl=float(rng.choice([0.08, 1.0])))
    camera = placed(rng, camera, points, cut_off=bool(rng.random() < 0.07))
    return Plan(label, view, points, camera, wish)


def take_picture(
    rng: np.random.Generator,
    renderer: Renderer,
    performer: Performer,
    plan: Plan,
    photos: list[Picture],
    bystanders: list[Picture],
) -> Shot:
    """Draw a plan; the performer must be the renderer's dressed one. Bystanders (RGBA) are not labelled."""
    posed = pose_body(performer.rest, plan.points, plan.wish)
    armed = bool(np.isfinite(plan.points[sk.TIP]).all())
    rgb, depth = draw_scene(rng, renderer, posed, plan.camera, photos, armed, bystanders)
    keypoints = np.full((sk.NODE_COUNT, 3), np.nan)
    count = sk.NODE_COUNT if armed else sk.BODY_COUNT
    keypoints[:count, :2] = plan.camera.project(posed.keypoints[:count])
    keypoints[:count, 2] = visibility(plan.camera, posed.keypoints[:count], depth)
    bend = scene.random_lens(rng)
    rgb = scene.camera_faults(rng, scene.bend_picture(rgb, bend))
    keypoints[:, :2] = scene.bend_points(keypoints[:, :2], bend, plan.camera.width, plan.camera.height)
    keypoints[outside(keypoints, plan.camera.width, plan.camera.height), 2] = ABSENT
    view, hand = plan.view, "right" if armed else ""
    if performer.left_handed:
        rgb = np.ascontiguousarray(rgb[:, ::-1])
        keypoints = keypoints[sk.MIRROR]
        keypoints[:, 0] = plan.camera.width - keypoints[:, 0]  # edges, not indices of pixels
        view, hand = OTHER_SIDE.get(view, view), "left" if armed else ""
    return Shot(rgb, keypoints, plan.label_name, view, hand)


def draw_scene(
    rng: np.random.Generator,
    renderer: Renderer,
    posed: Posed,
    camera: Camera,
    photos: list[Picture],
    armed: bool,
    bystanders: list[Picture],
) -> tuple[Picture, Array]:
    """RGB (h, w, 3) and depth of body and stick in a random place and light; the same `rng` gives the same place."""
    light = scene.random_light(rng)
    stick = scene.random_stick(rng)
    mode = rng.random() if photos else 1.0
    photo = photos[rng.integers(len(photos))] if photos else None
    others = [bystanders[k] for k in rng.integers(len(bystanders), size=1 + int(rng.random() < 0.3))]
    others = others if rng.random() < BYSTANDER_SHARE else []
    if mode < 0.4 and photo is not None:
        rgba, depth = renderer.draw(posed, stick if armed else None, camera, light, None)
        behind = scene.crop_photo(rng, photo, camera.width, camera.height)
        for other in others:
            behind = scene.add_bystander(rng, behind, np.ones(behind.shape[:2], bool), other, camera)
        feet = camera.project(posed.keypoints[[sk.LEFT_ANKLE, sk.RIGHT_ANKLE]] * np.array([1, 1, 0.1]))
        size_px = float(np.ptp(camera.project(posed.keypoints[: sk.BODY_COUNT])[:, 1]))
        return scene.composite(rgba, behind, feet, size_px, rng), depth
    if photo is not None:
        renderer.set_photo(scene.crop_photo(rng, photo, 640, 480))
    outdoors = mode >= 0.65 and rng.random() < OUTDOOR_SHARE
    room = (
        scene.random_outdoors(rng, camera)
        if outdoors
        else scene.random_room(rng, camera, photo_wall=photo is not None and mode < 0.65)
    )
    rgba, depth = renderer.draw(posed, stick if armed else None, camera, light, room)
    rgb = np.ascontiguousarray(rgba[:, :, :3])
    for other in others:
        rgb = scene.add_bystander(rng, rgb, ~np.isfinite(depth), other, camera)
    return rgb, depth


def make_bystanders(renderer: Renderer, seed: int) -> list[Picture]:
    """RGBA pictures of people without a stick, cut to their outline, who stand behind the performer."""
    out = []
    for k in range(BYSTANDERS):
        rng = np.random.default_rng([seed, 0xB57, k])
        performer = make_performer(rng)
        renderer.dress(performer.rest, performer.garment, performer.outfit)
        points = pose.neutral_pose(rng, str(rng.choice(["idle", "walk", "ready"])), performer.rest, ())
        points[[sk.GRIP, sk.TIP]] = np.nan
        posed = pose_body(performer.rest, points, Wish(free_curl=0.3))
        camera = orbit(float(rng.uniform(-180, 180)), 3.5, 1.35, fov_deg=40.0, size=(320, 480))
        rgba, _ = renderer.draw(posed, None, camera, scene.random_light(rng), None)
        rows, columns = np.nonzero(rgba[:, :, 3])
        out.append(rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].copy())
    return out
