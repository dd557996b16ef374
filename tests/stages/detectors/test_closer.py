"""Who holds still is looked at more closely, and whoever moves is not shown where they were."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from looking import Runner, candidate, frames_of, standing_person

from engine.errors import UserError
from engine.frames import OwnedFrames
from engine.stage import Context
from stages.detect import Detect, DetectSettings, make_body_detector
from stages.detectors import BodyCandidate, Runtime
from stages.detectors.closer import BELIEVED_S, LOOK_AGAIN_S, CloserLook
from stages.gate import GateSettings, MotionGate
from stages.packets import ArnisPacket, GateDecision
from stages.skeleton import LEFT_WRIST, NOSE, RIGHT_WRIST

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
    followed = keypoints_of(run, picture, 0.0, MOVED)
    run(picture, 0.03, gate=SKIP)
    quick = keypoints_of(run, picture, 0.2, LOOK)
    assert quick == pytest.approx(seen_by("movenet_lightning", picture, followed), abs=1e-3), "no hold yet"
    assert run(picture, 0.23, gate=SKIP).person is None
    held = keypoints_of(run, picture, 0.6, LOOK)
    exact = seen_by("movenet_thunder", picture, quick)
    stayed = np.abs(seen_by("movenet_lightning", picture, quick) - quick)[:, :2].max(1) < 5
    assert stayed.sum() > 8
    assert held[stayed] == pytest.approx(exact[stayed], abs=1e-3)
    assert np.abs(held - quick)[:, :2].max() > 1, "the two networks do not agree to the pixel"
    moved = keypoints_of(run, picture, 0.7, MOVED)
    assert moved == pytest.approx(seen_by("movenet_lightning", picture, held), abs=1e-3)
    again = keypoints_of(run, picture, 1.3, LOOK)
    assert again == pytest.approx(seen_by("movenet_lightning", picture, moved), abs=1e-3), "that look is over"
    assert run(np.full_like(picture, 128), 1.4, gate=MOVED).person is None, "who has left is not shown in a hold"


def test_after_a_movement_a_regular_look_comes_before_a_closer_one(
    picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begun = Runner(SETTINGS), []
    closer, aside = run.detect._closer, np.roll(picture, 60, axis=1)
    assert closer is not None
    monkeypatch.setattr(closer, "begin", lambda image, person, quick, stream, pts: begun.append((pts, quick.box[0])))
    for pts, shown, gate in (
        (0.0, picture, MOVED), (0.1, picture, LOOK), (0.2, picture, SKIP),
        (0.3, aside, MOVED), (0.4, aside, SKIP), (0.5, aside, LOOK), (0.6, aside, SKIP),
    ):  # fmt: skip
        run(shown, pts, gate=gate)
    (first_s, before_px), (second_s, after_px) = begun
    assert (first_s, second_s) == (0.2, 0.6) and after_px - before_px == pytest.approx(60, abs=15)


def test_the_gate_and_the_closer_look_work_together(picture: np.ndarray) -> None:
    """A second of a hold, a step to the side in one frame, and a hold there."""
    aside = np.roll(picture, 60, axis=1)
    seen = run_gated([picture] * 30 + [aside] * 30)
    alone = run_gated([picture] * 30 + [aside] * 30, closer="")
    assert list(seen) == list(alone), "the same frames are detected"
    both = [(seen[n], alone[n]) for n in seen]
    differs = [bool(np.abs(with_it - without)[:, :2].max() > 1) for with_it, without in both]
    assert not any(differs[:3]) and differs[4] and differs[-1], "in a hold"
    moved = list(seen).index(30)
    assert np.abs(both[moved][0] - both[moved][1])[:, :2].max() < 10, "the first moved frame is looked at anew"
    step = np.median(seen[list(seen)[-1]][:, 0] - seen[list(seen)[4]][:, 0])
    assert step == pytest.approx(60, abs=3)


def run_gated(pictures: Sequence[np.ndarray], **settings: str) -> dict[int, np.ndarray]:
    """Keypoints by frame where a frame of 30 a second was detected, with the gate in front as in the program."""
    frames, found = OwnedFrames(), {}
    stages = [MotionGate(GateSettings()), Detect(DetectSettings(threads=1, backend="onnxruntime", **settings))]
    for stage in stages:
        stage.open(Context(streams=["0"], frames=frames, request_stop=lambda: None, health=dict))
    for number, picture in enumerate(pictures):
        frames.begin(*picture.shape[:2], busy=())[:] = picture
        packet = ArnisPacket(
            stream="0", sequence=number, pts=number / 30, captured_at_ns=0, frame=frames.commit(number)
        )
        for stage in stages:
            packet = stage.process(packet)
        if packet.person is not None:
            found[number] = packet.person.keypoints
    return found


def test_only_beside_the_quick_network_and_a_gate_unless_it_is_named() -> None:
    used = {"movenet_lightning": True, "movenet_thunder": False}
    for body, closer in used.items():
        run = Runner(DetectSettings(body=body, stick="", threads=1, backend="onnxruntime"))
        assert ("closer" in run.detect.describe()) == closer
    without = Detect(SETTINGS)
    sections = {"gate": {"motion": False}}
    without.open(
        Context(streams=[], frames=OwnedFrames(), request_stop=lambda: None, health=dict, sections=sections)
    )
    assert list(without.describe()) == ["body"]
    with pytest.raises(UserError, match="no_such"):
        Runner(DetectSettings(closer="no_such"))


class Slow:
    """A detector that answers when it is told to, with what it is given."""

    def __init__(self, *answers: BodyCandidate | Exception) -> None:
        self.asked: list[tuple[str, float]] = []
        self.go = threading.Event()
        self._answers = list(answers)

    def detect(
        self, image: np.ndarray, previous: BodyCandidate | None, stream: str, time_s: float
    ) -> Sequence[BodyCandidate]:
        self.asked.append((stream, time_s))
        assert self.go.wait(10)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer]

    def describe(self) -> str:
        return "slow"

    def close(self) -> None:
        pass


IMAGE = np.zeros((8, 8, 3), np.uint8)
QUICK, EXACT = candidate(standing_person(100)), candidate(standing_person(100, (303, 200)))


def test_one_look_at_a_time_and_a_new_one_only_when_the_last_is_old() -> None:
    slow = Slow(EXACT)
    closer = CloserLook(lambda: slow)
    assert closer.refine(QUICK, "a", 0.0, wait=True) is QUICK, "nobody has looked"
    closer.begin(IMAGE, QUICK, QUICK, "a", 0.0)
    assert not closer.is_due("b", 0.0, wait=False), "the thread is busy"
    assert closer.is_due("b", 0.0, wait=True), "a file's look queues up, so that it does not hang on the time"
    assert closer.refine(QUICK, "a", 0.2, wait=False) is QUICK, "live, nothing waits"
    slow.go.set()
    assert closer.refine(QUICK, "a", 0.6, wait=True).keypoints == pytest.approx(EXACT.keypoints)
    assert closer.is_due("b", 0.2, wait=False) and not closer.is_due("a", LOOK_AGAIN_S - 0.01, wait=False)
    assert closer.is_due("a", LOOK_AGAIN_S, wait=False)
    assert closer.is_due("a", -1.0, wait=False), "also after a jump back in time"
    assert closer.refine(QUICK, "a", BELIEVED_S + 0.1, wait=True) is QUICK is closer.refine(QUICK, "a", -1.0, wait=True)
    closer.forget("a")
    assert closer.refine(QUICK, "a", 0.6, wait=True) is QUICK
    closer.close()
    assert slow.asked == [("a", 0.0)]


def test_the_last_look_serves_until_the_next_is_done() -> None:
    slow = Slow(EXACT, candidate(standing_person(100, (306, 200))))
    closer = CloserLook(lambda: slow)
    slow.go.set()
    closer.begin(IMAGE, QUICK, QUICK, "a", 0.0)
    assert closer.refine(QUICK, "a", 0.6, wait=True).keypoints[0, 0] == 303
    slow.go.clear()
    closer.begin(IMAGE, QUICK, QUICK, "a", 2.6)
    assert closer.refine(QUICK, "a", 2.7, wait=False).keypoints[0, 0] == 303
    slow.go.set()
    assert closer.refine(QUICK, "a", 3.2, wait=True).keypoints[0, 0] == 306
    closer.close()


def test_a_keypoint_that_has_moved_since_the_look_is_where_it_is_now() -> None:
    slow = Slow(EXACT)
    slow.go.set()
    closer = CloserLook(lambda: slow)
    then = standing_person(100)
    then[NOSE] = np.nan, np.nan, 0
    closer.begin(IMAGE, QUICK, candidate(then), "a", 0.0)
    now = then.copy()
    now[LEFT_WRIST, 1] -= 40  # the arm is raised, so slowly that the gate calls it still
    seen = closer.refine(candidate(now), "a", 0.6, wait=True).keypoints
    assert seen[LEFT_WRIST] == pytest.approx(now[LEFT_WRIST])
    assert seen[RIGHT_WRIST] == pytest.approx(EXACT.keypoints[RIGHT_WRIST])
    assert seen[NOSE] == pytest.approx(EXACT.keypoints[NOSE]), "the quick network has seen it neither then nor now"
    closer.close()


def test_a_look_at_somebody_else_or_one_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow(candidate(standing_person(100, (900, 200))), RuntimeError("no memory"), RuntimeError("again"))
    slow.go.set()
    closer = CloserLook(lambda: slow)
    for pts in (0.0, 5.0, 10.0):
        closer.begin(IMAGE, QUICK, QUICK, "a", pts)
        assert closer.refine(QUICK, "a", pts + 0.6, wait=True) is QUICK
    assert caplog.text.count("no memory") == 1 and "again" not in caplog.text, "said once"
    closer.close()
