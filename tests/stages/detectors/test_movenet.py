"""MoveNet sees the square that it is shown, to the half pixel, and believes what it sees by where it looked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from looking import standing_person

from engine.errors import UserError
from stages.detectors import BodyCandidate
from stages.detectors.movenet import MoveNet
from stages.skeleton import LEFT_ANKLE, NOSE

NEVER = 0.05


class Network:
    """Sees somebody in the middle of whatever it is shown, as surely as it is told, look by look; then nobody."""

    inputs = [SimpleNamespace(shape=(1, 192, 192, 3), dtype=np.int32)]
    outputs = [SimpleNamespace(shape=(1, 1, 17, 3))]

    def __init__(self, *scores: float) -> None:
        self._scores = list(scores)
        self.shown: list[np.ndarray] = []

    def __call__(self, tensor: np.ndarray) -> list[np.ndarray]:
        self.shown.append(tensor[0].copy())
        answer = standing_person(0.1, (0.5, 0.4))[:, [1, 0, 2]]
        answer[:, 2] = self._scores.pop(0) if self._scores else NEVER
        return [answer[None, None]]


def looked(network: Network, image: np.ndarray, times: int = 1) -> BodyCandidate | None:
    """Who is seen at the last of so many looks at a picture."""
    card: Any = SimpleNamespace(threshold=0.38)
    detector = MoveNet("model", card, network)  # type: ignore[arg-type]
    for _ in range(times):
        found = detector.detect(image, None, "0", 0.0)
    return found[0] if found else None


def test_a_picture_of_twice_the_size_is_shown_as_the_mean_of_its_pixels() -> None:
    network, stripes = Network(), np.zeros((384, 384, 3), np.uint8)
    stripes[:, ::2, 0] = 200  # blue
    stripes[::2, :, 2] = 100  # red
    looked(network, stripes)
    assert (network.shown[0] == (50, 0, 100)).all()


def test_places_come_back_from_the_closer_look() -> None:
    person = looked(Network(0.8, 0.9), np.zeros((400, 400, 3), np.uint8))
    assert person is not None and person.score == pytest.approx(0.9)
    # In the whole picture the hips are at (200, 200) and the ankles, farthest from them, 64 below; so the closer look
    # is at a square of 2 * 1.2 * 64 = 153.6 around the hips, in which somebody stands as in the first.
    assert person.keypoints[NOSE, :2] == pytest.approx([200, 200 - 0.14 * 153.6], abs=0.01)
    assert person.keypoints[LEFT_ANKLE, :2] == pytest.approx([200 + 0.025 * 153.6, 200 + 0.16 * 153.6], abs=0.01)


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ((0.25, NEVER), None),
        ((0.35, 0.42), 0.42),
        ((0.42, 0.35), 0.42),
        ((0.35, 0.36, NEVER), None),
        ((NEVER, 0.42, 0.42), None),
        ((NEVER, 0.42, 0.5), 0.5),
    ],
    ids=["too faint", "closer is surer", "closer is less sure", "never sure", "not sure enough in a part", "in a part"],
)
def test_how_sure_it_must_be(scores: tuple[float, ...], found: float | None) -> None:
    person = looked(Network(*scores), np.zeros((720, 1280, 3), np.uint8))
    assert (person and person.score) == (found and pytest.approx(found))


def test_the_parts_of_a_wide_picture_are_searched_in_turn() -> None:
    network, ramp = Network(), np.zeros((720, 1280, 3), np.uint8)
    ramp[:] = (np.arange(1280) / 10)[None, :, None]
    looked(network, ramp, times=4)
    assert [round(float(shown.mean())) for shown in network.shown[1::2]] == [64, 36, 92, 64]


@pytest.mark.parametrize("shape", [(1, 0, 0, 3), (1, 192, 256, 3), (1, 3, 192, 192), (1, 192, 192)])
def test_what_takes_no_square_pictures_of_one_size_is_refused(shape: tuple[int, ...]) -> None:
    network = Network()
    network.inputs = [SimpleNamespace(shape=shape, dtype=np.int32)]  # free sides (0): MultiPose
    with pytest.raises(UserError, match="no MoveNet SinglePose"):
        looked(network, np.zeros((64, 64, 3), np.uint8))


def test_what_gives_other_keypoints_is_refused_before_it_looks() -> None:
    network = Network()
    network.outputs = [SimpleNamespace(shape=(1, 1, 33, 3))]
    with pytest.raises(UserError, match=r"it gives \(1, 1, 33, 3\), not \(1, 1, 17, 3\)"):
        looked(network, np.zeros((64, 64, 3), np.uint8))
