"""Films of people who go from pose to pose: what is written beside them is what they show."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest

from engine.errors import UserError
from stages import skeleton as sk
from stages.classes import load_classes

pytest.importorskip("anny", reason="needs the training extra: anny")
pytest.importorskip("moderngl", reason="needs the training extra: moderngl")

from training.synth import pose
from training.synth.body import Posed
from training.synth.camera import orbit
from training.synth.film import FPS, Key, act, write_film
from training.synth.rig import Rest, make_rest
from training.synth.rotations import Array
from training.synth.session import HOLD_S, plan_session, write_sessions

CAMERA = orbit(0.0, 3.5, 1.35, aim=(0.0, 0.0, 0.95), size=(128, 72))


@pytest.fixture(scope="module")
def rest() -> Rest:
    return make_rest({}, 0.61, 0.10)


@pytest.fixture(scope="module")
def keys(rest: Rest) -> list[Key]:
    return plan_session(np.random.default_rng(3), rest, (3.0, 1.2, 50.0), spread=1.0)


def test_a_session_shows_every_pose_once_and_rests_between(keys: list[Key]) -> None:
    labels = [key.label for key in keys]
    assert sorted(set(labels)) == sorted(load_classes().names)
    assert all(labels.count(name) == 1 for name in load_classes().poses)
    assert labels[0] == labels[-1] == labels[4] == pose.NEUTRAL
    assert all(HOLD_S[0] * FPS <= key.hold_frames for key in keys)


def test_holds_stand_still_and_the_ways_between_lead_from_one_to_the_next(rest: Rest, keys: list[Key]) -> None:
    moments, holds = act(rest, keys[:3])
    steps = [float(np.linalg.norm(b - a, axis=1).max()) for (a, _), (b, _) in zip(moments, moments[1:], strict=False)]
    assert holds[0].first_frame == 0 and holds[-1].last_frame == len(moments) - 1
    for hold, key in zip(holds, keys, strict=False):
        assert hold.label == key.label and hold.last_frame - hold.first_frame + 1 == key.hold_frames
        assert max(steps[hold.first_frame : hold.last_frame]) < 0.01
    assert 0.02 < max(steps) < 0.3


@pytest.mark.parametrize("left_handed", [False, True])
def test_a_film_is_written_with_its_holds_and_true_keypoints(
    left_handed: bool, rest: Rest, keys: list[Key], tmp_path: Path
) -> None:
    def draw(posed: Posed) -> tuple[np.ndarray, Array]:
        """The right half of the picture is white."""
        picture = np.zeros((CAMERA.height, CAMERA.width, 3), np.float32)
        picture[:, CAMERA.width // 2 :] = 255
        return picture, np.full((CAMERA.height, CAMERA.width), np.inf)

    moments, holds = act(rest, keys[:1])
    film, truth = tmp_path / "a.mp4", tmp_path / "truth.csv"
    write_film(film, rest, moments[:5], holds, CAMERA, draw, left_handed=left_handed, truth=truth)
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["frames"] == 5 and told["holds"][0]["label"] == pose.NEUTRAL
    assert told["grip_hand"] == ("left" if left_handed else "right")
    with av.open(str(film)) as container:
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(pictures) == 5
    assert (pictures[0][:, :50].mean() > 200) == left_handed
    with truth.open(newline="") as file:
        rows = list(csv.DictReader(file))
    side = "left" if left_handed else "right"
    wrist, grip = (float(rows[0][f"kp{k}_x"]) for k in (sk.KEYPOINT_NAMES.index(f"{side}_wrist"), sk.GRIP))
    assert len(rows) == 5 and abs(wrist - grip) < 0.06 * CAMERA.width


def test_a_folder_of_films_is_not_gone_on_with_in_another_way(tmp_path: Path) -> None:
    (tmp_path / "s5p0000.json").write_text("{}")  # so that none is drawn
    write_sessions(tmp_path, 1, 5, 1, None, 1.0)
    with pytest.raises(UserError, match=r"spread 1\.0; say the same"):
        write_sessions(tmp_path, 1, 5, 1, None, 0.5)
