"""Who holds still is looked at more closely, and whoever moves is not shown where they were."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from looking import Runner, candidate, frames_of, standing_person

from engine.errors import UserError
from stages.detect import DetectSettings, make_body_detector
from stages.detectors import BodyCandidate, Runtime
from stages.detectors.closer import BELIEVED_S, LOOK_AGAIN_S, CloserLook
from stages.packets import GateDecision

SETTINGS = DetectSettings(stick="", threads=1, backend="onnxruntime")
LOOK, MOVED = GateDecision(still=True), GateDecision()
SKIP = GateDecision(detect=False, classify=False, reason="still", still=True)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return frames_of("sam2_juggle.mp4", every=200)[0]


def keypoints_of(run: Runner, picture: np.ndarray, pts: float, gate: GateDecision) -> np.ndarray:
    person = run(picture, pts, gate=gate).person
    assert person is not None
    return person.keypoints


def seen_by(model: str, picture: np.ndarray, followed: np.ndarray) -> np.ndarray:
    """Keypoints that a network gives of the person at keypoints `followed`."""
    (found,) = make_body_detector(model, Runtime("onnxruntime", 1)).detect(picture, candidate(followed), "0", 0.0)
    return found.keypoints


def test_a_hold_gets_the_exact_networks_keypoints_until_something_moves(picture: np.ndarray) -> None:
    run = Runner(SETTINGS)
    quick = keypoints_of(run, picture, 0.0, MOVED)
    assert run(picture, 0.03, gate=SKIP).person is None
    held = keypoints_of(run, picture, 0.2, LOOK)
    assert held == pytest.approx(seen_by("movenet_thunder", picture, quick), abs=1e-3)
    assert np.abs(held - quick)[:, :2].max() > 1, "the two networks do not agree to the pixel"
    moved = keypoints_of(run, picture, 0.3, MOVED)
    assert moved == pytest.approx(seen_by("movenet_lightning", picture, held), abs=1e-3)
    again = keypoints_of(run, picture, 0.5, LOOK)
    assert again == pytest.approx(seen_by("movenet_lightning", picture, moved), abs=1e-3), "that look is over"
    assert run(np.full_like(picture, 128), 0.6, gate=MOVED).person is None, "who has left is not shown in a hold"


def test_an_old_answer_is_not_believed(picture: np.ndarray) -> None:
    run = Runner(SETTINGS)
    keypoints_of(run, picture, 0.0, MOVED)
    run(picture, 0.03, gate=SKIP)
    held = keypoints_of(run, picture, 0.2, LOOK)
    late = keypoints_of(run, picture, 0.03 + BELIEVED_S + 0.01, LOOK)
    assert np.abs(held - late)[:, :2].max() > 1


def test_without_a_name_there_is_no_closer_look_and_a_wrong_one_is_named(picture: np.ndarray) -> None:
    assert "closer" in Runner(SETTINGS).detect.describe()
    for settings in ({"closer": ""}, {"closer": "movenet_lightning"}):
        run = Runner(DetectSettings(stick="", threads=1, backend="onnxruntime", **settings))
        assert list(run.detect.describe()) == ["body"]
        quick = keypoints_of(run, picture, 0.0, MOVED)
        run(picture, 0.03, gate=SKIP)
        held = keypoints_of(run, picture, 0.2, LOOK)
        assert held == pytest.approx(seen_by("movenet_lightning", picture, quick), abs=1e-3)
    with pytest.raises(UserError, match="no_such"):
        Runner(DetectSettings(closer="no_such"))


class Slow:
    """A detector that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.go = threading.Event()

    def detect(
        self, image: np.ndarray, previous: BodyCandidate | None, stream: str, time_s: float
    ) -> Sequence[BodyCandidate]:
        self.asked.append((stream, time_s))
        assert previous is not None and self.go.wait(10)
        return [previous]

    def describe(self) -> str:
        return "slow"

    def close(self) -> None:
        pass


def test_one_look_at_a_time_and_a_new_one_only_when_the_last_is_old() -> None:
    slow, image, person = Slow(), np.zeros((8, 8, 3), np.uint8), candidate(standing_person())
    closer = CloserLook(slow)
    assert closer.answer("a", 0.0) == []
    closer.begin(image, person, "a", 0.0)
    assert not closer.is_due("b", 0.0), "the thread is busy"
    slow.go.set()
    assert closer.answer("a", 0.2) == [person]
    assert closer.is_due("b", 0.2) and not closer.is_due("a", LOOK_AGAIN_S - 0.01)
    assert closer.is_due("a", LOOK_AGAIN_S) and closer.is_due("a", -1.0), "also after a jump back in time"
    assert closer.answer("a", BELIEVED_S + 0.1) == [] == closer.answer("a", -1.0)
    closer.forget("a")
    assert closer.answer("a", 0.2) == []
    closer.close()
    assert slow.asked == [("a", 0.0)]
