"""Keypoints are steadied without being dragged from where they are not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from engine.frames import OwnedFrames
from engine.stage import Context
from stages.packets import ArnisPacket, GateDecision, Person, Stick
from stages.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_ELBOW, RIGHT_HIP, RIGHT_SHOULDER
from stages.smooth import (
    ExponentialFilter,
    Filter,
    OneEuroFilter,
    Smooth,
    SmoothSettings,
    WindowFilter,
    low_pass_alpha,
    make_filter,
    smooth_keypoints,
)

FPS = 30.0
METHODS = ("ema", "window", "one_euro")
SURE = np.ones(1)


def filtered(method: Filter, path: np.ndarray, weight: np.ndarray = SURE, fps: float = FPS) -> np.ndarray:
    """A path (frames, 2) of one point through a filter, in torso lengths."""
    return np.array([method.step(point[None], weight, n / fps, 1.0)[0] for n, point in enumerate(path)])


def make(method: str) -> Filter:
    found = make_filter(msgspec.convert({"method": method}, SmoothSettings))
    assert found is not None
    return found


def held_point(seed: int = 0, frames: int = 90) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.015, (frames, 2))


def test_the_average_follows_its_formula() -> None:
    result = smooth_keypoints(np.array([[10.0, 20.0]]), np.array([[0.0, 0.0]]), 0.7)
    assert result == pytest.approx(np.array([[7.0, 14.0]]))


@pytest.mark.parametrize("method", METHODS)
def test_a_held_point_jitters_less(method: str) -> None:
    path = held_point()
    steps_before, steps_after = np.diff(path, axis=0).std(), np.diff(filtered(make(method), path), axis=0).std()
    assert steps_after < 0.75 * steps_before


def test_one_euro_holds_steadier_than_the_average_and_follows_a_swing_more_closely() -> None:
    swing = np.column_stack([np.clip(np.arange(90) / FPS - 1, 0, 0.5) * 4, np.zeros(90)])
    errors = {m: np.abs(filtered(make(m), swing) - swing).max() for m in ("ema", "one_euro")}
    jitter = {m: np.diff(filtered(make(m), held_point()), axis=0).std() for m in ("ema", "one_euro")}
    assert errors["one_euro"] < errors["ema"]
    assert jitter["one_euro"] < 0.7 * jitter["ema"]


def test_the_window_weighs_older_frames_exponentially_less() -> None:
    path = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    weights = np.array([0.0625, 0.25, 1.0])
    assert filtered(WindowFilter(0.75, 5), path)[-1, 0] == pytest.approx(1.0 / weights.sum())


def test_the_window_forgets_what_left_it() -> None:
    path = np.array([[100.0, 0.0]] + [[0.0, 0.0]] * 5)
    assert filtered(WindowFilter(0.5, 5), path)[-1, 0] == 0.0


def test_the_low_pass_has_the_published_weight() -> None:
    # tau = 1 / (2 pi 1 Hz) = 0.159 s; at 0.159 s a step the new value weighs one half.
    assert low_pass_alpha(1.0, 1 / (2 * np.pi)) == pytest.approx(0.5)


def test_one_euro_depends_on_time_and_not_on_the_number_of_frames() -> None:
    slow = filtered(OneEuroFilter(1.0, 0.0), np.array([[0.0, 0.0]] + [[1.0, 0.0]] * 15), fps=15)
    fast = filtered(OneEuroFilter(1.0, 0.0), np.array([[0.0, 0.0]] + [[1.0, 0.0]] * 60), fps=60)
    assert slow[15, 0] == pytest.approx(fast[60, 0], abs=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_point_stays_missing_and_returns_where_it_is_seen(method: str) -> None:
    path = np.array([[0.0, 0.0], [0.0, 0.0], [np.nan, np.nan], [9.0, 9.0]])
    result = filtered(make(method), path)
    assert np.isnan(result[2]).all()
    assert result[3] == pytest.approx([9.0, 9.0])


@pytest.mark.parametrize("method", METHODS)
def test_a_doubtful_point_moves_less(method: str) -> None:
    moved = []
    for doubt in (1.0, 0.2):
        each = make(method)
        each.step(np.zeros((1, 2)), SURE, 0.0, 1.0)
        moved.append(each.step(np.ones((1, 2)), np.array([doubt]), 1 / FPS, 1.0)[0, 0])
    assert 0.0 < moved[1] < moved[0]


def test_one_euro_does_the_same_near_and_far() -> None:
    near, far = OneEuroFilter(1.5, 10.0), OneEuroFilter(1.5, 10.0)
    for n, x in enumerate([0.0, 0.1, 0.3]):
        close = near.step(np.full((1, 2), 200 * x), SURE, n / FPS, 200.0)
        distant = far.step(np.full((1, 2), 50 * x), SURE, n / FPS, 50.0)
        assert close / 200 == pytest.approx(distant / 50)


def test_one_euro_forgets_the_speed_of_a_point_that_was_missing() -> None:
    path = np.array([[0.0, 0.0], [5.0, 0.0], [10.0, 0.0], [np.nan, np.nan], [50.0, 0.0], [50.1, 0.0]])
    after, anew = filtered(make("one_euro"), path), filtered(make("one_euro"), path[4:])
    assert after[4:] == pytest.approx(anew)
    told = make("one_euro")
    filtered(told, path[:3])
    told.forget(np.array([0]))
    again = [told.step(path[n : n + 1], SURE, n / FPS, 1.0)[0] for n in (4, 5)]
    assert np.array(again) == pytest.approx(anew)


def test_a_forgotten_point_starts_anew() -> None:
    each = ExponentialFilter(0.5)
    each.step(np.zeros((2, 2)), np.ones(2), 0.0, 1.0)
    each.forget(np.array([1]))
    assert each.step(np.ones((2, 2)), np.ones(2), 0.1, 1.0)[:, 0] == pytest.approx([0.5, 1.0])


def person(x: float, track: int = 1) -> Person:
    """A standing figure with a torso of 100 pixels whose right elbow is at `x`."""
    keypoints = np.full((17, 3), (200.0, 100.0, 0.9), np.float32)
    keypoints[[LEFT_SHOULDER, RIGHT_SHOULDER], 1] = 100.0
    keypoints[[LEFT_HIP, RIGHT_HIP], 1] = 200.0
    keypoints[RIGHT_ELBOW, 0] = x
    return Person(track=track, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints)


def stick(tip: tuple[float, float] | None, hand: str = "right") -> Stick:
    end = (*tip, 0.9) if tip else (float("nan"), float("nan"), 0.0)
    return Stick(hand="left" if hand == "left" else "right", grip=(150.0, 150.0, 0.9), tip=end, detected_tip=tip)


class Rig:
    """The stage as a worker calls it, with a plain average so that numbers can be checked by hand."""

    def __init__(self, **settings: object) -> None:
        self.stage = Smooth(msgspec.convert({"method": "ema", "alpha": 0.5} | settings, SmoothSettings))
        self.stage.open(
            Context(streams=["0"], frames=OwnedFrames(), request_stop=lambda: None, health=dict)
        )  # fmt: skip
        self.sequence = 0

    def step(
        self, who: Person | None, what: Stick | None = None, at_s: float | None = None, stream: str = "0"
    ) -> ArnisPacket:
        self.sequence += 1
        packet = ArnisPacket(
            stream=stream,
            sequence=self.sequence,
            pts=self.sequence / FPS if at_s is None else at_s,
            captured_at_ns=1,
            person=who,
            stick=what,
            gate=GateDecision(),
        )
        return self.stage.process(packet)

    def skip(self, at_s: float) -> None:
        """A frame that the gate keeps from detection."""
        gate = GateDecision(detect=False, classify=False)
        self.stage.process(ArnisPacket(stream="0", sequence=self.sequence, pts=at_s, captured_at_ns=1, gate=gate))

    def elbow(self, who: Person, **where: object) -> float:
        result = self.step(who, **where).person
        assert result is not None
        return float(result.keypoints[RIGHT_ELBOW, 0])


def test_the_stage_smooths_one_person_and_keeps_confidence() -> None:
    rig = Rig()
    assert rig.elbow(person(0.0)) == 0.0
    assert rig.elbow(person(10.0)) == pytest.approx(5.0)
    result = rig.step(person(10.0)).person
    assert result is not None and result.keypoints.dtype == np.float32
    assert result.keypoints[:, 2] == pytest.approx(np.full(17, 0.9))


def test_a_point_that_was_hardly_seen_moves_less() -> None:
    moved = []
    for confidence in (0.9, 0.2):
        rig, where = Rig(), person(10.0)
        where.keypoints[RIGHT_ELBOW, 2] = confidence
        rig.elbow(person(0.0))
        moved.append(rig.elbow(where))
    assert moved[0] == pytest.approx(5.0) and 0.0 < moved[1] < 3.0


def test_how_sure_a_point_must_be_for_full_weight_can_be_set() -> None:
    rig = Rig(sure=1.0)
    rig.elbow(person(0.0))
    assert rig.elbow(person(10.0)) == pytest.approx(10.0 * 0.5 * 0.9)


def test_the_settings_of_each_method_are_read() -> None:
    path = [0.0, 0.0, 0.0, 10.0]
    for settings, expected in (
        ({"method": "window", "alpha": 0.5, "window": 1}, 10.0),
        ({"method": "window", "alpha": 0.5, "window": 2}, 10.0 / 1.5),
        ({"method": "one_euro", "min_cutoff_hz": 2.0, "beta": 0.0}, 10.0 * float(low_pass_alpha(2.0, 1 / FPS))),
    ):
        rig = Rig(**settings)
        assert [rig.elbow(person(x)) for x in path][-1] == pytest.approx(expected, rel=1e-3), settings
    moved = []
    for beta in (0.0, 50.0):
        rig = Rig(method="one_euro", beta=beta)
        moved.append([rig.elbow(person(x)) for x in path][-1])
    assert moved[0] < moved[1]


def test_a_frame_that_was_not_looked_at_is_left_alone() -> None:
    rig, who = Rig(), person(10.0)
    rig.elbow(person(0.0))
    packet = ArnisPacket(stream="0", sequence=9, pts=0.1, captured_at_ns=1, person=who, gate=GateDecision(detect=False))
    assert rig.stage.process(packet).person is who and float(who.keypoints[RIGHT_ELBOW, 0]) == 10.0
    assert rig.elbow(person(0.0), at_s=0.15) == pytest.approx(0.0)


def test_another_person_starts_anew() -> None:
    rig = Rig()
    rig.elbow(person(0.0))
    assert rig.elbow(person(10.0, track=2)) == 10.0


def test_a_gap_in_time_starts_anew() -> None:
    rig = Rig()
    rig.elbow(person(0.0), at_s=0.0)
    assert rig.elbow(person(10.0), at_s=1.5) == 10.0
    patient = Rig(max_gap_s=2.0)
    patient.elbow(person(0.0), at_s=0.0)
    assert patient.elbow(person(10.0), at_s=1.5) == 5.0


@pytest.mark.parametrize("at_s", [1.0, 5.0])
def test_time_that_stands_still_or_goes_back_starts_anew(at_s: float) -> None:
    rig = Rig()
    rig.elbow(person(0.0), at_s=5.0)
    assert rig.elbow(person(10.0), at_s=at_s) == 10.0


@pytest.mark.parametrize(("fps", "hold_s"), [(30.0, 8.0), (3.0, 1.7), (1.0, 5.0)])
def test_two_looks_at_a_hold_are_averaged_at_any_frame_rate_and_however_long_it_is(fps: float, hold_s: float) -> None:
    rig = Rig()
    rig.elbow(person(0.0))
    frames = round(hold_s * fps)
    for number in range(1, frames):
        rig.skip(number / fps)
    assert rig.elbow(person(10.0), at_s=frames / fps) == 5.0


def test_a_lost_person_starts_anew() -> None:
    rig = Rig()
    rig.elbow(person(0.0))
    rig.step(None)
    assert rig.elbow(person(10.0)) == 10.0


def test_streams_do_not_mix() -> None:
    rig = Rig()
    rig.elbow(person(0.0), stream="a")
    assert rig.elbow(person(10.0), stream="b") == 10.0
    rig = Rig()
    for at_s, stream in ((0.0, "a"), (1.0, "b")):
        rig.elbow(person(0.0), at_s=at_s, stream=stream)
    assert rig.elbow(person(10.0), at_s=1.5, stream="a") == 10.0, "a gap in one is no smaller for frames of another"
    assert rig.elbow(person(10.0), at_s=1.5, stream="b") == 5.0


def test_the_tip_is_smoothed_and_the_detected_one_is_kept() -> None:
    rig = Rig()
    rig.step(person(0.0), stick((200.0, 100.0)))
    result = rig.step(person(0.0), stick((210.0, 100.0))).stick
    assert result is not None
    assert result.tip == pytest.approx((205.0, 100.0, 0.9))
    assert result.detected_tip == (210.0, 100.0)


def test_a_missing_tip_stays_missing() -> None:
    rig = Rig()
    rig.step(person(0.0), stick((200.0, 100.0)))
    result = rig.step(person(0.0), stick(None)).stick
    assert result is not None and result.detected_tip is None
    assert np.isnan(result.tip[:2]).all() and result.tip[2] == 0.0


def test_swapped_ends_or_another_hand_are_taken_at_once() -> None:
    rig = Rig()
    rig.step(person(0.0), stick((200.0, 100.0)))
    swapped = rig.step(person(0.0), stick((100.0, 200.0))).stick
    assert swapped is not None and swapped.tip[:2] == (100.0, 200.0)
    left = stick((110.0, 200.0), hand="left")
    left.grip = (190.0, 150.0, 0.9)
    other_hand = rig.step(person(0.0), left).stick
    assert other_hand is not None and (other_hand.grip[:2], other_hand.tip[:2]) == ((190.0, 150.0), (110.0, 200.0))


@pytest.mark.parametrize(("max_tip_jump", "tip_x"), [(0.8, 225.0), (0.3, 250.0)])
def test_from_which_jump_on_a_tip_is_taken_at_once_can_be_set(max_tip_jump: float, tip_x: float) -> None:
    rig = Rig(max_tip_jump=max_tip_jump)
    rig.step(person(200.0), stick((200.0, 100.0)))
    result = rig.step(person(200.0), stick((250.0, 100.0))).stick
    assert result is not None and result.tip[0] == pytest.approx(tip_x)


@pytest.mark.parametrize("unknown", [False, True])
def test_how_far_a_tip_may_jump_grows_with_the_person_also_while_their_torso_is_not_seen(unknown: bool) -> None:
    rig, large, later = Rig(), person(200.0), person(200.0)
    for who in (large, later):
        who.keypoints[[LEFT_HIP, RIGHT_HIP], 1] = 350.0  # the torso is 250 long
    if unknown:
        later.keypoints[[LEFT_HIP, RIGHT_HIP]] = np.nan, np.nan, 0.0
        later.keypoints[LEFT_SHOULDER] = np.nan, np.nan, 0.0
    rig.step(large, stick((200.0, 100.0)))
    result = rig.step(later, stick((350.0, 100.0))).stick
    assert result is not None and result.tip[0] == pytest.approx(275.0)


def test_a_hand_that_is_only_supposed_is_no_change_of_hand() -> None:
    rig = Rig()
    rig.step(person(200.0), stick((200.0, 100.0)))
    tip_only = stick((210.0, 100.0), hand="left")
    tip_only.grip = (float("nan"), float("nan"), 0.0)
    result = rig.step(person(200.0), tip_only).stick
    assert result is not None and result.tip[0] == pytest.approx(205.0)


def test_off_changes_nothing() -> None:
    rig = Rig(method="off")
    rig.elbow(person(0.0))
    result = rig.step(person(10.0), stick((200.0, 100.0)))
    assert result.person is not None and result.person.keypoints[RIGHT_ELBOW, 0] == 10.0
    assert result.stick == stick((200.0, 100.0))
