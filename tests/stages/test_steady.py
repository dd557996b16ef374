"""One look does not change an answer, several do; what was said of others, or long ago, counts nothing."""

from __future__ import annotations

import numpy as np
import pytest
from gating import person

from engine.frames import OwnedFrames
from engine.stage import Context
from stages.classes import load_classes
from stages.classify import name_pose
from stages.packets import ArnisPacket, GateDecision
from stages.steady import Steady, SteadySettings

CLASSES = load_classes()
THRUST, BLOCK = "crown_thrust", "left_knee_block"


def stage(time_constant_s: float = 0.1) -> Steady:
    steady = Steady(SteadySettings(time_constant_s=time_constant_s))
    steady.open(Context(streams=["0"], frames=OwnedFrames(), request_stop=lambda: None, health=dict))
    return steady


def look(label: str | None, pts: float, track: int = 1, stream: str = "0") -> ArnisPacket:
    """A frame in which this pose was named with 0.9."""
    packet = ArnisPacket(stream=stream, sequence=0, pts=pts, captured_at_ns=0, person=person(track=track))
    if label is not None:
        probabilities = np.where(np.array(CLASSES.names) == label, 0.9, 0.1 / (len(CLASSES.names) - 1))
        packet.pose, packet.status = name_pose(probabilities, CLASSES, threshold=0.77), "ok"
    return packet


def told(steady: Steady, *looks: ArnisPacket) -> list[str]:
    """What is named in each; empty where nothing is accepted."""
    answers = [steady.process(each) for each in looks]
    assert all((answer.status == "ok") == answer.pose.accepted for answer in answers if answer.pose)
    return [answer.pose.label if answer.pose and answer.pose.accepted else "" for answer in answers]


def test_a_pose_that_is_seen_once_in_passing_is_not_named() -> None:
    labels = [THRUST, THRUST, BLOCK, THRUST, THRUST]
    assert told(stage(), *(look(label, i / 15) for i, label in enumerate(labels))) == [THRUST, THRUST, "", "", THRUST]


def test_a_pose_that_stays_is_named() -> None:
    answers = told(stage(), look(THRUST, 0), *(look(BLOCK, 1 + i / 15) for i in range(2)))
    assert answers == [THRUST, BLOCK, BLOCK], "a second ago is long ago"
    assert told(stage(), look(THRUST, 0), *(look(BLOCK, i / 15) for i in range(1, 5))) == [THRUST, "", "", BLOCK, BLOCK]


@pytest.mark.parametrize("other", [{"track": 2}, {"stream": "1"}])
def test_what_was_said_of_somebody_else_does_not_count(other: dict[str, object]) -> None:
    assert told(stage(), look(THRUST, 0), look(BLOCK, 0.01, **other)) == [THRUST, BLOCK]  # type: ignore[arg-type]


def test_a_film_that_begins_again_begins_anew() -> None:
    assert told(stage(), look(THRUST, 9), look(BLOCK, 0)) == [THRUST, BLOCK]


def test_a_look_at_who_rests_stands_by_itself() -> None:
    resting = look(BLOCK, 1 / 30)
    resting.gate = GateDecision(still=True)
    assert told(stage(), look(THRUST, 0), resting) == [THRUST, BLOCK]


def either(first: str, second: str, pts: float, track: int = 1) -> ArnisPacket:
    """A frame in which it is one of two poses, the first a little rather."""
    packet = look(first, pts, track)
    shares = np.array([{first: 0.5, second: 0.4}.get(name, 0.1 / (len(CLASSES.names) - 2)) for name in CLASSES.names])
    packet.pose, packet.status = name_pose(shares, CLASSES, threshold=0.77), "unsure"
    assert packet.pose.alternative == second
    return packet


def alternatives(*looks: ArnisPacket) -> list[str | None]:
    steady = stage()
    return [answer.pose.alternative for each in looks if (answer := steady.process(each)).pose is not None]


def test_one_of_two_poses_is_told_where_a_movement_looks_so_for_a_while_and_at_once_of_who_rests() -> None:
    third = "right_eye_thrust"
    assert alternatives(look(third, 0), *(either(BLOCK, THRUST, 0.2 + i / 10) for i in range(4)))[1:] == [
        None, None, THRUST, THRUST,
    ]  # fmt: skip
    swapped = [either(BLOCK, THRUST, 0), either(THRUST, BLOCK, 0.2)]
    assert alternatives(*swapped) == [THRUST, BLOCK], "the same two"
    for other in (either(BLOCK, THRUST, 0.2, track=2), either(BLOCK, THRUST, 1.0)):
        assert alternatives(look(third, 0), other) == [None, THRUST], "somebody else, or long after"
    resting = either(BLOCK, THRUST, 0.1)
    resting.gate = GateDecision(still=True)
    assert alternatives(look(third, 0), resting) == [None, THRUST]


def test_one_of_two_poses_is_told_at_once_where_one_of_them_was_named() -> None:
    assert alternatives(look(THRUST, 0), *(either(BLOCK, THRUST, 0.1 + i / 10) for i in range(1, 4)))[1:] == [
        BLOCK, THRUST, THRUST,
    ], "and stays so"  # fmt: skip


@pytest.mark.parametrize("step_s", [1 / 30, 1 / 15])
def test_between_two_poses_that_were_seen_surely_it_is_not_one_of_the_two(step_s: float) -> None:
    labels = [THRUST] * 3 + [BLOCK] * 6
    assert alternatives(*(look(label, i * step_s) for i, label in enumerate(labels))) == [None] * 9


def test_without_it_each_look_stands_by_itself() -> None:
    assert told(stage(0), look(THRUST, 0), look(BLOCK, 0.01)) == [THRUST, BLOCK]


def test_the_probabilities_are_the_weighted_mean_and_sum_to_one() -> None:
    steady = stage()
    steady.process(look(THRUST, 0))
    steady.process(look(None, 0.05))
    pose = steady.process(look(BLOCK, 0.1)).pose
    assert pose and sum(pose.probabilities.values()) == pytest.approx(1)
    assert pose.probabilities[THRUST] == pytest.approx(0.9 / np.e + 0.1 / 12 * (1 - 1 / np.e))
