"""The person and the stick are found, followed, and refused where they cannot be."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import cv2
import msgspec
import numpy as np
import openvino
import pytest
from looking import Runner, candidate, frames_of, standing_person, stick_at

from engine.chain import Chain, WorkerBroken
from engine.errors import UserError
from stages.detect import (
    EVERY_LOOK,
    DetectSettings,
    HandVote,
    Sought,
    StickChoice,
    choose_person,
    closer_model,
    is_plausible,
    make_hand,
    wrist_distances,
)
from stages.detectors import BodyCandidate, Runtime, StickCandidate, box_around, mark_missing, overlap
from stages.detectors.hand import GivenHand
from stages.graph import torso_length
from stages.packets import MISSING_END, End, GateDecision, Person, Stick
from stages.skeleton import LEFT_ANKLE, LEFT_HIP, LEFT_SHOULDER, LEFT_WRIST, NOSE, RIGHT_SHOULDER, RIGHT_WRIST

BODY_ONLY = DetectSettings(stick="", threads=1, backend="onnxruntime")
MISSING = (float("nan"), float("nan"), 0.0)


# --- the person, with the shipped network ---------------------------------------------------------------------------


@pytest.mark.parametrize("clip", ["sam2_juggle.mp4", "pose2sim_single_cam01.mp4", "tfjs_pose_1.mp4"])
def test_a_person_is_found_in_nearly_every_frame_and_stays_the_same(clip: str) -> None:
    run = Runner(BODY_ONLY)
    people = [run(image).person for image in frames_of(clip, every=3)]
    found = [person for person in people if person is not None]
    assert len(found) >= 0.95 * len(people)
    assert {person.track for person in found} == {1}


def test_the_keypoints_lie_where_the_body_is() -> None:
    person = Runner(BODY_ONLY)(frames_of("sam2_juggle.mp4", every=100)[0]).person
    assert person is not None
    assert person.keypoints.shape == (17, 3) and person.keypoints.dtype == np.float32
    x, y, confidence = person.keypoints.T
    assert y[NOSE] < y[LEFT_SHOULDER] < y[LEFT_HIP] < y[LEFT_ANKLE]
    assert x[LEFT_SHOULDER] > x[RIGHT_SHOULDER], "he faces the camera"
    assert confidence.mean() > 0.6
    x0, y0, x1, y1 = person.box
    assert (x >= x0).all() and (x <= x1).all() and (y >= y0).all() and (y <= y1).all()


@pytest.mark.parametrize("kind", ["grey", "noise", "garden", "gradient"])
def test_nobody_is_seen_in_an_empty_picture(kind: str) -> None:
    rng = np.random.default_rng(0)
    garden = frames_of("sam2_juggle.mp4", every=100)[0][:, :400]
    image = {
        "grey": np.full((720, 1280, 3), 128, np.uint8),
        "noise": rng.integers(0, 255, (720, 1280, 3), dtype=np.uint8),
        "garden": cv2.resize(np.hstack([garden, garden[:, ::-1], garden]), (1280, 720)),
        "gradient": np.repeat(np.linspace(0, 255, 1280, dtype=np.uint8)[None, :, None], 720, axis=0).repeat(3, axis=2),
    }[kind]
    run = Runner(BODY_ONLY)
    assert [run(image).person for _ in range(6)] == [None] * 6


def test_somebody_who_was_away_for_long_is_a_new_track_but_not_after_a_short_while() -> None:
    image, empty = frames_of("sam2_juggle.mp4", every=200)[0], np.full((720, 1280, 3), 128, np.uint8)
    run = Runner(BODY_ONLY)
    tracks = []
    for pts, picture in ((0.0, image), (0.1, empty), (0.3, image), (0.4, empty), (2.0, empty), (2.1, image)):
        person = run(picture, pts).person
        tracks.append(person.track if person else None)
    assert tracks == [1, None, 1, None, None, 6], "a track is named by its first frame"


@pytest.mark.parametrize(("lost_s", "track"), [(0.5, 4), (3.0, 1)])
def test_after_how_long_out_of_sight_somebody_is_new_can_be_set(lost_s: float, track: int) -> None:
    image, empty = frames_of("sam2_juggle.mp4", every=200)[0], np.full((720, 1280, 3), 128, np.uint8)
    run = Runner(msgspec.structs.replace(BODY_ONLY, lost_s=lost_s))
    for pts, picture in ((0.0, image), (0.1, empty), (1.0, empty)):
        run(picture, pts)
    person = run(image, 1.1).person
    assert person is not None and person.track == track


@pytest.mark.parametrize(
    ("step_s", "lost_s", "tracks"), [(0.2, 0.5, [1, 1, 1]), (5.0, 0.5, [1, 2, 3]), (2.0, 3.0, [1, 1, 1])]
)
def test_photographs_are_each_looked_at_on_their_own(step_s: float, lost_s: float, tracks: list[int]) -> None:
    image = frames_of("sam2_juggle.mp4", every=200)[0]
    run = Runner(msgspec.structs.replace(BODY_ONLY, lost_s=lost_s))
    people = [run(image, step_s * number).person for number in range(3)]
    assert [person.track for person in people if person] == tracks


class Shown:
    """A detector that sees whom the test says."""

    def __init__(self, *people: BodyCandidate) -> None:
        self.people: tuple[BodyCandidate, ...] = people

    def detect(
        self, image: np.ndarray, previous: BodyCandidate | None, stream: str, time_s: float
    ) -> tuple[BodyCandidate, ...]:
        return self.people

    def close(self) -> None:
        pass


def looking(shown: Shown) -> Runner:
    run = Runner(BODY_ONLY)
    run.detect._body = shown  # type: ignore[assignment]
    return run


EMPTY = np.zeros((720, 1280, 3), np.uint8)
PUPIL, BYSTANDER = candidate(standing_person(120)), candidate(standing_person(60, (900, 300)))


def followed(run: Runner, pts: float, stream: str = "0", picture: np.ndarray = EMPTY) -> tuple[int, float] | None:
    """Track and left border of whom is followed."""
    person = run(picture, pts, stream).person
    return None if person is None else (person.track, person.box[0])


def test_a_bystander_takes_over_only_when_the_one_who_is_followed_was_lost_for_long() -> None:
    run = looking(Shown(PUPIL, BYSTANDER))
    assert followed(run, 0.0) == (1, PUPIL.box[0])
    for pts, people, seen in (
        (0.1, [BYSTANDER], None),
        (0.2, [BYSTANDER, PUPIL], (1, PUPIL.box[0])),
        (0.4, [BYSTANDER], None),
        (0.6, [BYSTANDER], None),
        (0.8, [BYSTANDER, PUPIL], (6, PUPIL.box[0])),
        (0.9, [BYSTANDER, PUPIL], (6, PUPIL.box[0])),
        (1.0, [BYSTANDER], None),
        (1.5, [BYSTANDER], (9, BYSTANDER.box[0])),
        (1.6, [BYSTANDER, PUPIL], (9, BYSTANDER.box[0])),
    ):
        run.detect._body = Shown(*people)  # type: ignore[assignment]
        assert followed(run, pts) == seen


def test_whom_nobody_saw_for_a_moment_is_looked_for_where_they_were() -> None:
    image = frames_of("tfjs_pose_1.mp4", every=1000)[0]
    beside = np.vstack([cv2.resize(image[:, ::-1], (432, 432)), np.full((144, 432, 3), 60, np.uint8)])
    both, run = np.hstack([image, beside]), Runner(BODY_ONLY)
    large, small = both.copy(), both.copy()
    large[:, image.shape[1] :] = small[:, : image.shape[1]] = 60
    seen = [followed(run, n / 10, picture=picture) for n, picture in enumerate([small, both, large, both, both])]
    assert seen[2] is None
    assert [place is not None and place[0] == 1 and place[1] > 576 for place in (*seen[:2], *seen[3:])] == [True] * 4


def test_a_picture_of_another_size_begins_a_new_track() -> None:
    run, half = looking(Shown(PUPIL)), np.zeros((360, 640, 3), np.uint8)
    assert [followed(run, n / 30, picture=EMPTY) for n in range(2)] == [(1, PUPIL.box[0])] * 2
    assert [followed(run, n / 30, picture=half) for n in (2, 3)] == [(3, PUPIL.box[0])] * 2


def test_a_restarted_worker_gives_a_track_that_was_not_there_before() -> None:
    tracks, sequence = [], 0
    for _ in range(2):
        run = looking(Shown(PUPIL))
        run._sequence = sequence  # the frames are counted by who captures them
        tracks += [followed(run, 0.0), followed(run, 0.1)]
        sequence = run._sequence
    assert [track for track, _ in filter(None, tracks)] == [1, 1, 3, 3]


def test_streams_are_followed_separately() -> None:
    run = looking(Shown())
    for turn in range(3):
        for stream, who, track in (("left", PUPIL, 1), ("right", BYSTANDER, 2)):
            run.detect._body = Shown(who)  # type: ignore[assignment]
            assert followed(run, turn / 30, stream) == (track, who.box[0])


def test_a_held_picture_is_not_looked_at() -> None:
    image = frames_of("sam2_juggle.mp4", every=200)[0]
    packet = Runner(BODY_ONLY)(image, gate=GateDecision(detect=False, classify=False, reason="still"))
    assert packet.person is None and packet.stick is None


@pytest.mark.parametrize("name", ["detect", "stick"])
def test_a_network_that_always_fails_breaks_its_worker_though_most_frames_only_pass_through(name: str) -> None:
    run = Runner(DetectSettings(threads=1, backend="onnxruntime"))
    stage, network = (run.detect, run.detect._body) if name == "detect" else (run.stick, run.stick._stick)
    network._network = None  # type: ignore[union-attr]
    person = Person(track=1, box=(0, 0, 64, 64), score=0.9, keypoints=standing_person(20, (30, 10)))
    chain = Chain([stage], errors_in_a_row=2)

    def pass_on(detected: bool) -> None:
        packet = run.packet(np.zeros((64, 64, 3), np.uint8), gate=GateDecision(detect=detected))
        packet.person = person if detected else None
        chain.run([packet])

    pass_on(True)
    pass_on(False)
    with pytest.raises(WorkerBroken, match="NoneType"):
        pass_on(True)


def test_small_and_odd_pictures_are_no_obstacle() -> None:
    run = Runner(BODY_ONLY)
    for shape in ((8, 8), (1, 500), (719, 1281), (90, 30)):
        run(np.zeros((*shape, 3), np.uint8))


def test_it_says_what_runs_where() -> None:
    text = Runner(BODY_ONLY).detect.describe()
    assert text["body"].startswith("movenet_lightning: onnxruntime") and "1 thread" in text["body"]
    other = DetectSettings(body="movenet_thunder", backend="openvino", precision="bf16", threads=2, closer="")
    computed = "bf16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    run = Runner(other)
    said = {**run.detect.describe(), **run.stick.describe()}
    for text, model in ((said["body"], "movenet_thunder"), (said["stick"], "stick_heatmap")):
        assert text.startswith(f"{model}: openvino") and text.endswith(f"on CPU, 2 threads, {computed}")


@pytest.mark.parametrize(
    ("settings", "closer"),
    [
        ({}, "movenet_thunder"),
        ({"closer": ""}, ""),
        ({"closer": "movenet_lightning"}, ""),
        ({"body": "movenet_thunder"}, ""),
        ({"body": "movenet_thunder", "closer": "movenet_lightning"}, "movenet_lightning"),
        ({"fused": "somewhere"}, ""),
    ],
)
def test_who_looks_closer_at_holds(settings: dict[str, str], closer: str) -> None:
    assert closer_model(DetectSettings(**settings)) == closer


# --- whom to follow -------------------------------------------------------------------------------------------------


def test_the_person_followed_so_far_is_followed_on() -> None:
    small, large = candidate(standing_person(50, (100, 100))), candidate(standing_person(200, (900, 300)))
    assert choose_person([small, large], None) is large
    assert choose_person([small, large], candidate(standing_person(50, (110, 105)))) is small
    assert choose_person([], small) is None
    near, nearer = candidate(standing_person(50, (120, 105))), candidate(standing_person(50, (104, 101)))
    assert choose_person([near, nearer], small) is nearer
    doubtful = candidate(standing_person(200, (900, 300)), score=0.01)
    assert choose_person([doubtful, small], None) is small


def test_missing_points_have_no_place() -> None:
    points = np.array([(5, 5, 0.9), (5, 5, 0.01), (-3, 5, 0.9), (5, 50, 0.9)], np.float32)
    marked = mark_missing(points, 20, 20)
    assert marked[0].tolist() == pytest.approx([5, 5, 0.9])
    assert np.isnan(marked[1:, :2]).all() and (marked[1:, 2] == 0).all()


def test_a_box_is_a_tenth_wider_than_its_points_inside_the_picture() -> None:
    points = np.array([(10, 20, 0.9), (90, 60, 0.9), MISSING], np.float32)
    assert box_around(points, 200, 200) == pytest.approx((2, 16, 98, 64))
    assert box_around(points, 95, 62) == pytest.approx((2, 16, 95, 62))
    assert box_around(points, 200, 200, margin=1.0) == pytest.approx((0, 0, 170, 100))


def test_overlap_is_a_share() -> None:
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (2, 2, 3, 3)) == 0


# --- whether it is a stick, and in which hand -----------------------------------------------------------------------


def test_a_grip_far_from_both_wrists_is_no_grip() -> None:
    body = standing_person(100)
    x, y = body[RIGHT_WRIST, :2].tolist()
    assert is_plausible(stick_at((x + 10, y), (x - 100, y)), body, 100, 0.5, 1.6)
    assert not is_plausible(stick_at((x - 60, y), (x - 160, y)), body, 100, 0.5, 1.6)


def test_a_stick_longer_than_any_is_none_and_one_without_a_tip_is_one() -> None:
    body = standing_person(100)
    x, y = body[RIGHT_WRIST, :2].tolist()
    assert not is_plausible(stick_at((x, y), (x - 165, y)), body, 100, 0.5, 1.6)
    tipless = StickCandidate(np.array([(x, y, 0.9), MISSING], np.float32), 0.9)
    assert is_plausible(tipless, body, 100, 0.5, 1.6)


@pytest.mark.parametrize(
    ("settings", "gap", "length", "is_held"),
    [
        ({}, 0.7, 1.5, True),
        ({"grip_within": 0.6}, 0.7, 1.5, False),
        ({"longest_stick": 1.4}, 0.7, 1.5, False),
        ({}, 0.7, 1.7, False),
        ({"longest_stick": 1.8}, 0.7, 1.7, True),
        ({}, 0.9, 1.5, False),
        ({"grip_within": 1.0}, 0.9, 1.5, True),
    ],
)
def test_how_far_a_grip_and_how_long_a_stick_may_be_can_be_set(
    settings: dict[str, float], gap: float, length: float, is_held: bool
) -> None:
    keypoints = standing_person(100)
    x, y = keypoints[RIGHT_WRIST, :2].tolist()
    person = Person(track=1, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints)
    stick = stick_at((x - 100 * gap, y), (x - 100 * gap - 100 * length, y))
    choice = StickChoice(DetectSettings(**settings), GivenHand("right"))
    assert (choice.choose("0", person, [stick]) is not None) == is_held


def test_a_stick_that_is_seen_whole_comes_before_half_of_one_and_its_tip_is_kept_as_detected() -> None:
    keypoints = standing_person(100)
    x, y = keypoints[RIGHT_WRIST, :2].tolist()
    person = Person(track=1, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints)
    half = StickCandidate(np.array([(x, y, 0.9), MISSING], np.float32), 0.99)
    choice = StickChoice(DetectSettings(), GivenHand("right"))
    whole = choice.choose("0", person, [half, stick_at((x - 4, y), (x - 100, y - 20)), half])
    assert whole is not None and whole.grip[0] == x - 4 and whole.tip[:2] == whole.detected_tip == (x - 100, y - 20)
    alone = choice.choose("0", person, [half])
    assert alone is not None and alone.tip[2] == 0 and alone.detected_tip is None


def test_without_wrists_or_grip_nothing_is_believed() -> None:
    body = standing_person(100)
    x, y = body[RIGHT_WRIST, :2].tolist()
    assert not is_plausible(StickCandidate(np.array([MISSING, (x, y, 0.9)], np.float32), 0.9), body, 100, 0.5, 1.6)
    body[[LEFT_WRIST, RIGHT_WRIST]] = MISSING
    assert wrist_distances(np.array([x, y, 1.0]), body, 100) == (math.inf, math.inf)
    assert not is_plausible(stick_at((x, y), (x - 100, y)), body, 100, 0.5, 1.6)


def test_the_hand_is_voted_over_time() -> None:
    vote = HandVote()
    for _ in range(200):
        assert vote.cast(1.0) == "right"
    assert {vote.cast(-1.0) for _ in range(20)} == {"right"}, "two thirds of a second change nothing"
    assert [vote.cast(-1.0) for _ in range(20)][-1] == "left", "but a stick may change hands"


def test_somebody_new_counts_as_right_handed_until_most_of_what_is_seen_speaks_against() -> None:
    assert HandVote().cast(0.0) == "right"
    assert HandVote().cast(-0.7) == "right", "the left hand is likelier by five to one: nine of ten are right-handers"
    assert HandVote().cast(-0.9) == "left"
    vote = HandVote()
    assert [vote.cast(-0.5) for _ in range(3)] == ["right", "left", "left"]


def test_a_stick_that_is_seen_in_the_hand_without_is_looked_for_everywhere_again() -> None:
    person = Person(track=1, box=(0, 0, 1, 1), score=1.0, keypoints=standing_person())
    sought = Sought(track=1)

    def seen_at(wrist: int, tip: End | None = None, share: float = 0.0) -> Stick:
        other = person.keypoints[RIGHT_WRIST if wrist == LEFT_WRIST else LEFT_WRIST]
        x, y, _ = (person.keypoints[wrist] + share * (other - person.keypoints[wrist])).tolist()
        return Stick(hand="right", grip=(x, y, 0.9), tip=tip or (x, y - 100, 0.9))

    assert sought.where(patient=False) == (EVERY_LOOK,) == ((None, "right", "left"),)
    sought.remember(seen_at(RIGHT_WRIST, MISSING_END), person)
    assert sought.where(patient=True) == (EVERY_LOOK,), "half of it was seen"
    sought.remember(seen_at(RIGHT_WRIST), person)
    assert sought.where(patient=False) == (("right",),)
    assert sought.where(patient=True) == (("right",), (None,))
    looks = []
    for _ in range(3):
        sought.remember(None, person)
        looks += sought.where(patient=False)
    assert looks == [(None,), ("right",), (None,)], "by turns, while it is not seen"
    apart = float(np.hypot(*(person.keypoints[LEFT_WRIST] - person.keypoints[RIGHT_WRIST])[:2]))
    apart /= float(torso_length(person.keypoints))
    for nearer, hand in ((0.2, "right"), (0.3, None)):
        sought.remember(seen_at(LEFT_WRIST, share=0.5 - nearer / 2 / apart), person)
        assert sought.hand == hand
    sought.remember(seen_at(LEFT_WRIST), person)
    assert sought.where(patient=False) == (EVERY_LOOK,)


def test_somebody_else_begins_a_new_vote_and_streams_vote_apart() -> None:
    keypoints = standing_person(100)
    choice = StickChoice(DetectSettings(), make_hand("weapon_hand", Runtime("onnxruntime", 1)))

    def hand(stream: str, track: int, wrist: int) -> str:
        x, y = keypoints[wrist, :2].tolist()
        person = Person(track=track, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints)
        stick = choice.choose(stream, person, [stick_at((x, y), (x, y + 80))])
        assert stick is not None
        return stick.hand

    assert {hand("0", 1, LEFT_WRIST) for _ in range(20)} == {"left"}
    assert hand("0", 1, RIGHT_WRIST) == "left", "one odd frame"
    assert hand("1", 1, RIGHT_WRIST) == "right"
    assert hand("0", 2, RIGHT_WRIST) == "right"


def test_who_knows_the_hand_can_say_so() -> None:
    keypoints = standing_person(100)
    x, y = keypoints[RIGHT_WRIST, :2].tolist()
    person = Person(track=1, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints)
    for hand in ("left", "right"):
        choice = StickChoice(DetectSettings(hand=hand), make_hand(hand, Runtime("onnxruntime", 1)))
        sticks = [choice.choose("0", person, [stick_at((x, y), (x, y + 80))]) for _ in range(5)]
        assert {stick and stick.hand for stick in sticks} == {hand}


# --- other networks -------------------------------------------------------------------------------------------------


def test_a_missing_model_is_named() -> None:
    for settings in (DetectSettings(body="no_such"), DetectSettings(stick="no_such"), DetectSettings(fused="no_such"),
                     DetectSettings(hand="no_such")):
        with pytest.raises(UserError, match="no_such"):
            Runner(settings)


def test_a_model_for_another_task_is_refused() -> None:
    with pytest.raises(UserError, match="task body, not for stick"):
        Runner(DetectSettings(stick="movenet_lightning"))
    with pytest.raises(UserError, match="task stick, not for weapon_hand"):
        Runner(DetectSettings(hand="stick_heatmap"))


def test_a_missing_mediapipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pose\.task does not exist"):
        Runner(DetectSettings(body=str(tmp_path / "pose.task"), stick=""))
    (tmp_path / "pose.task").write_bytes(b"x")
    with pytest.raises(UserError, match="runs on the CPU, not on cuda"):
        Runner(DetectSettings(body=str(tmp_path / "pose.task"), stick="", device="cuda"))
    wanted = "cannot load" if importlib.util.find_spec("mediapipe") else r"pip install '\.\[mediapipe\]'"
    with pytest.raises(UserError, match=wanted):
        Runner(DetectSettings(body=str(tmp_path / "pose.task"), stick=""))
