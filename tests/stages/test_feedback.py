"""Cues are few, plain, about what was seen, and in the performer's own left and right."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.errors import UserError
from engine.frames import OwnedFrames
from engine.stage import Context
from stages import skeleton as sk
from stages.angles import QUANTITIES, measure
from stages.classes import load_classes, models_folder
from stages.doubt import Error
from stages.feedback import (
    Band,
    Feedback,
    FeedbackSettings,
    advise,
    certainty,
    find_faults,
    level_name,
    read_bands,
    severity,
    worst_by_part,
)
from stages.graph import build_graph, canonical_keypoints
from stages.packets import MISSING_END, ArnisPacket, Cue, GateDecision, GraphInput, Person, Pose, Stick

BENT = Band(80.0, 100.0, 50)
STRAIGHT = Band(150.0, 180.0, 50)


def test_severity_counts_half_widths_from_the_nearer_edge() -> None:
    assert severity(90.0, BENT) == 0.0
    assert severity(120.0, BENT) == pytest.approx(2.0)
    assert severity(75.0, BENT) == pytest.approx(-0.5)
    assert np.isnan(severity(float("nan"), BENT))


def test_every_quantity_has_a_sentence_for_too_little_and_too_much() -> None:
    for quantity in QUANTITIES:
        for value in (-9.0, 999.0):
            sentence = advise(quantity, value, Band(0.0, 1.0, 50))
            assert sentence.endswith(".") and "{" not in sentence and len(sentence) < 60


def test_the_sentences_say_what_to_do() -> None:
    assert advise("right_elbow_deg", 90.0, STRAIGHT) == "Straighten your right elbow."
    assert advise("left_hand_height", -0.5, Band(0.3, 0.5, 50)) == "Raise your left hand to eye level."
    assert advise("stick_deg", 60.0, Band(0.0, 20.0, 50)) == "Lower the tip of the stick."
    too_low = {
        "left_shoulder_deg": "Move your left elbow away from your body.",
        "right_hip_deg": "Straighten your right hip.",
        "left_knee_deg": "Straighten your left knee.",
        "right_hand_reach": "Reach farther with your right hand.",
        "torso_lean_deg": "Lean in a little more.",
        "wrist_deg": "Turn the stick farther from the line of your forearm.",
        "stance_width": "Set your feet farther apart.",
    }
    assert {quantity: advise(quantity, 0.1, Band(10.0, 20.0, 50)) for quantity in too_low} == too_low
    assert advise("torso_lean_deg", 30.0, Band(10.0, 20.0, 50)) == "Stand more upright."
    assert advise("tip_height", 0.1, Band(0.9, 1.2, 50)) == "Raise the tip of the stick above your head."


def test_a_height_is_told_by_the_level_that_comes_first_on_the_way_and_no_level_where_little_is_missing() -> None:
    eyes, crown = Band(-0.02, 0.41, 50), Band(-0.3, 0.3, 50)
    assert advise("right_hand_height", 0.5, eyes) == "Lower your right hand a little."
    assert advise("right_hand_height", 0.7, eyes) == "Lower your right hand to eye level."
    assert advise("right_hand_height", -0.3, eyes) == "Raise your right hand to shoulder level."
    assert advise("left_hand_height", -0.6, crown) == "Raise your left hand to chest level."
    assert advise("left_hand_height", -0.45, crown) == "Raise your left hand a little."
    assert advise("left_hand_height", -1.0, Band(-0.75, -0.3, 50)) == "Raise your left hand a little.", "the same level"


def test_heights_have_the_names_people_use() -> None:
    names = [level_name(h) for h in (1.0, 0.35, 0.0, -0.3, -0.6, -1.0, -1.7, -2.5)]
    assert names[0] == "above your head" and names[1] == "to eye level" and names[-1] == "to your feet"
    assert len(set(names)) == len(names)


def cues(values: dict[str, float], bands: dict[str, Band], told: frozenset[str] = frozenset()) -> list[Cue]:
    return list(worst_by_part(find_faults(values, bands, "right", min_severity=0.25, told=told)).values())


def test_the_worst_cue_comes_first() -> None:
    values = {"right_elbow_deg": 140.0, "left_knee_deg": 100.0, "stick_deg": 10.0}
    bands = {"right_elbow_deg": STRAIGHT, "left_knee_deg": STRAIGHT, "stick_deg": Band(20.0, 40.0, 50)}
    assert [c.quantity for c in cues(values, bands)] == ["left_knee_deg", "stick_deg", "right_elbow_deg"]


def test_one_part_of_the_body_gets_one_cue() -> None:
    values = {"right_elbow_deg": 100.0, "right_hand_reach": 0.4}
    found = cues(values, {"right_elbow_deg": STRAIGHT, "right_hand_reach": Band(0.8, 1.0, 50)})
    assert [c.sentence for c in found] == ["Reach farther with your right hand."]


def test_of_two_faults_of_the_stick_the_advice_that_is_easier_to_follow_is_given() -> None:
    bands = {"stick_deg": Band(0.0, 40.0, 50), "wrist_deg": Band(10.0, 70.0, 50)}
    for wrist_deg, sentence in ((90.0, "Lower the tip"), (130.0, "Turn the stick closer")):
        found = cues({"stick_deg": 52.0, "wrist_deg": wrist_deg}, bands)
        assert len(found) == 1 and found[0].sentence.startswith(sentence)


def test_what_was_not_seen_is_not_judged() -> None:
    assert not cues({"right_elbow_deg": float("nan")}, {"right_elbow_deg": STRAIGHT, "left_elbow_deg": STRAIGHT})


def test_a_left_hander_hears_of_the_left_elbow() -> None:
    found = find_faults({"right_elbow_deg": 90.0}, {"right_elbow_deg": STRAIGHT}, "left", min_severity=0.25)
    assert found["right_elbow_deg"].quantity == "left_elbow_deg"
    assert found["right_elbow_deg"].sentence == "Straighten your left elbow."


def test_a_cue_stays_until_the_joint_is_back_inside_its_band() -> None:
    nearly = {"right_elbow_deg": 148.0}
    assert not cues(nearly, {"right_elbow_deg": STRAIGHT})
    assert cues(nearly, {"right_elbow_deg": STRAIGHT}, told=frozenset({"right_elbow_deg"}))
    assert not cues({"right_elbow_deg": 151.0}, {"right_elbow_deg": STRAIGHT}, told=frozenset({"right_elbow_deg"}))


def test_the_shipped_bands_cover_all_poses_but_neutral() -> None:
    bands = read_bands(models_folder() / "bands.toml")
    assert set(bands) == {c.name for c in load_classes().classes if c.kind != "neutral"}
    for views in bands.values():
        for found in views.values():
            assert all(b.low < b.high and b.samples >= 30 for b in found.values())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[crown_thrust.front]\nstick_deg = [1.0, 2.0]\n", "bands file"),
        ("[crown_thrust.above]\nstick_deg = [1.0, 2.0, 30]\n", "view above"),
        ("[crown_thrust.front]\nnose_deg = [1.0, 2.0, 30]\n", "quantity nose_deg"),
        ("# für alle\n", "bands file"),
    ],
)
def test_a_bad_bands_file_is_named(tmp_path: Path, text: str, names: str) -> None:
    (tmp_path / "bands.toml").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=names):
        read_bands(tmp_path / "bands.toml")


def test_a_missing_bands_file_is_named_with_the_mend() -> None:
    with pytest.raises(UserError, match="arnis-train bands"):
        opened(bands="nowhere.toml")


def test_bands_of_ones_own_are_named_as_they_were_given() -> None:
    with pytest.raises(UserError, match=r"^bands file my/nowhere\.toml does not exist"):
        opened(bands="my/nowhere.toml")


def test_a_folder_in_the_place_of_the_bands_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="feedback.bands"):
        read_bands(tmp_path)


def test_bands_of_other_poses_are_passed_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bands = "[{}.any]\nright_elbow_deg = [150.0, 180.0, 50]\n"
    (tmp_path / "b.toml").write_text(bands.format("somersault") + bands.format("right_knee_block"))
    assert judged(opened(bands=str(tmp_path / "b.toml")), performer())
    assert "bands for somersault, which this model does not name" in caplog.text


@pytest.mark.parametrize("label", ["somersault", "neutral"])
def test_bands_that_know_no_pose_of_the_model_give_no_cue_and_say_so_once(
    label: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "b.toml").write_text(f"[{label}.any]\nright_elbow_deg = [150.0, 180.0, 50]\n")
    stage = opened(bands=str(tmp_path / "b.toml"))
    assert not judged(stage, performer(), label=label) and not judged(stage, performer(), label=label)
    assert [record.message.count("no cues are given") for record in caplog.records] == [1]


def opened(**settings: object) -> Feedback:
    """One that tells a fault as soon as it sees it, however unsure it is, unless it is told otherwise."""
    stage = Feedback(msgspec.convert({"settle_s": 0.0, "min_certainty": 0.0} | settings, FeedbackSettings))
    stage.open(Context(streams=["0"], frames=OwnedFrames(), request_stop=lambda: None, health=dict))
    return stage


def performer(hand: str = "right", elbow_x: float = -80.0) -> tuple[Person, Stick]:
    """Faces the camera with a torso of 100 pixels; the weapon arm is bent outwards to `elbow_x`."""
    points = np.array([
        (0, -130), (5, -135), (-5, -135), (10, -132), (-10, -132), (30, -100), (-30, -100), (40, -60), (elbow_x, -60),
        (30, -30), (-30, -20), (15, 0), (-15, 0), (15, 80), (-15, 80), (20, 160), (-20, 160), (-30, -12), (-120, -30),
    ], np.float32)  # fmt: skip
    keypoints = np.column_stack([points, np.full(19, 0.9, np.float32)])
    if hand == "left":
        keypoints = keypoints[sk.MIRROR] * (-1, 1, 1)
    grip, tip = (tuple(float(v) for v in keypoints[n]) for n in (sk.GRIP, sk.TIP))
    person = Person(track=1, box=(0.0, 0.0, 1.0, 1.0), score=0.9, keypoints=keypoints[:17].astype(np.float32))
    return person, Stick(hand="left" if hand == "left" else "right", grip=grip, tip=tip)  # type: ignore[arg-type]


def judged(
    stage: Feedback,
    who: tuple[Person, Stick | None],
    label: str = "right_knee_block",
    stream: str = "0",
    gate: GateDecision | None = None,
    pts: float = 0.0,
    picture: str | None = None,
    **pose: object,
) -> list[Cue]:
    named = Pose(label=label, confidence=0.9, accepted=True, family="", chamber="", probabilities={})
    gate = gate or GateDecision()
    stick = who[1] or Stick(hand="right", grip=MISSING_END, tip=MISSING_END)
    nodes, edges, mask = build_graph(canonical_keypoints(who[0].keypoints, stick.grip, stick.tip, stick.hand))
    packet = ArnisPacket(
        stream=stream,
        sequence=0,
        pts=pts,
        picture=picture,
        captured_at_ns=1,
        person=who[0],
        stick=who[1],
        gate=gate,
        graph=GraphInput(nodes=nodes, edges=edges, mask=mask),
        pose=msgspec.structs.replace(named, **pose) if gate.classify else None,
    )
    return stage.process(packet).feedback


@pytest.mark.parametrize("hand", ["right", "left"])
def test_a_bent_weapon_arm_is_seen_on_the_performers_own_side(hand: str, tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("[right_knee_block.any]\nright_elbow_deg = [150.0, 180.0, 50]\n")
    person, stick = performer(hand)
    found = judged(opened(bands=str(tmp_path / "b.toml")), (person, stick))
    assert [c.sentence for c in found] == [f"Straighten your {hand} elbow."]
    canonical = canonical_keypoints(person.keypoints, stick.grip, stick.tip, stick.hand)
    assert found[0].measured == pytest.approx(float(measure(canonical)["right_elbow_deg"]), abs=0.01)
    assert found[0].wanted == (150.0, 180.0)


def test_each_view_is_judged_by_its_own_bands_and_one_that_is_not_known_by_those_for_any(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(
        "[right_knee_block.right]\nright_elbow_deg = [1.0, 2.0, 50]\n"
        "[right_knee_block.front]\nright_elbow_deg = [3.0, 4.0, 50]\n"
        "[right_knee_block.any]\nright_elbow_deg = [5.0, 6.0, 50]\n"
    )
    (person, stick), stage = performer(), opened(bands=str(tmp_path / "b.toml"))
    wanted = []
    for nose_x, confidence in ((0, 0.9), (40, 0.9), (-40, 0.9), (0, 0.0)):
        person.keypoints[sk.NOSE] = (nose_x, -130, confidence)
        wanted += [cue.wanted for cue in judged(stage, (person, stick))]
    assert wanted == [(3.0, 4.0), (1.0, 2.0), (5.0, 6.0), (5.0, 6.0)]


def test_only_the_worst_cues_are_given() -> None:
    who = performer()
    every = judged(opened(max_cues=10), who)
    assert len(every) == 4 and judged(opened(max_cues=2), who) == every[:2]
    assert not judged(opened(max_cues=0), who)


@pytest.mark.parametrize("hand", ["right", "left"])
def test_how_small_a_fault_is_told_can_be_set(hand: str, tmp_path: Path) -> None:
    who = performer(hand)
    canonical = canonical_keypoints(who[0].keypoints, who[1].grip, who[1].tip, who[1].hand)
    elbow = float(measure(canonical)["right_elbow_deg"])
    bands = tmp_path / "b.toml"
    bands.write_text(f"[right_knee_block.any]\nright_elbow_deg = [{elbow + 20}, {elbow + 60}, 50]\n")
    assert judged(opened(bands=str(bands), min_severity=0.9), who)
    assert not judged(opened(bands=str(bands), min_severity=1.1), who)
    large = opened(bands=str(bands), min_severity=1.1)
    assert judged(large, performer(hand, elbow_x=-100.0)) and judged(large, who), "told until it is mended"


def test_neutral_and_rejected_poses_get_no_cue() -> None:
    stage, who = opened(min_severity=0.0), performer()
    assert judged(stage, who)
    assert not judged(stage, who, label="neutral")
    assert not judged(stage, who, accepted=False)


def test_a_small_fault_is_told_only_to_who_just_had_a_large_one(tmp_path: Path) -> None:
    person, stick = performer()
    canonical = canonical_keypoints(person.keypoints, stick.grip, stick.tip, stick.hand)
    elbow = float(measure(canonical)["right_elbow_deg"])
    (tmp_path / "b.toml").write_text(f"[right_knee_block.any]\nright_elbow_deg = [{elbow + 5}, {elbow + 105}, 50]\n")
    small = performer()
    large = performer(elbow_x=-100.0)
    stage = opened(bands=str(tmp_path / "b.toml"))
    assert not judged(stage, small)
    assert judged(stage, large) and judged(stage, small)
    assert not judged(stage, small, stream="1")
    other = msgspec.structs.replace(small[0], track=2), small[1]
    assert not judged(stage, other)
    assert judged(stage, large)
    judged(stage, small, label="neutral")
    assert not judged(stage, small)


def test_what_was_not_looked_at_is_not_judged_and_a_stick_out_of_sight_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("[right_knee_block.any]\nright_elbow_deg = [150.0, 180.0, 50]\n")
    stage = opened(bands=str(tmp_path / "b.toml"))
    person, _ = performer()
    assert [cue.quantity for cue in judged(stage, (person, None))] == ["right_elbow_deg"]
    for gate in (GateDecision(detect=False, classify=False), GateDecision(classify=False)):
        assert not judged(stage, (person, None), gate=gate)


def test_who_moves_through_a_pose_is_not_corrected_and_a_single_picture_is(tmp_path: Path) -> None:
    bands, band = tmp_path / "b.toml", "[{}.any]\nright_elbow_deg = [150.0, 180.0, 50]\n"
    bands.write_text(band.format("right_knee_block") + band.format("left_knee_block"))
    stage, bent, straight = opened(bands=str(bands), settle_s=0.3), performer(), performer(elbow_x=-31.0)
    assert not any(judged(stage, bent, pts=pts) for pts in (1.0, 1.1, 1.2))
    assert not judged(stage, straight, pts=1.3), "right now"
    assert not any(judged(stage, bent, pts=pts) for pts in (1.4, 1.5, 1.6))
    assert judged(stage, bent, pts=1.71) and judged(stage, bent, pts=1.8)
    assert not judged(stage, straight, pts=1.9) and not judged(stage, bent, pts=2.0)
    assert not judged(stage, bent, pts=2.4, label="neutral") and not judged(stage, bent, pts=2.5), "seen anew"
    judged(stage, bent, pts=2.6, gate=GateDecision(classify=False))
    assert not judged(stage, bent, pts=2.9), "for a moment the stick was out of sight"
    assert not judged(stage, bent, pts=29.0), "after a pause"
    assert judged(stage, bent, pts=29.3)
    assert not judged(stage, bent, pts=29.4, label="left_knee_block"), "another pose, seen for the first time"
    assert not judged(stage, performer("left"), pts=29.5), "the other arm, seen for the first time"
    assert judged(stage, bent, pts=0.0, stream="folder", picture="a.jpg")


@pytest.mark.parametrize(("fps", "hold_s"), [(30.0, 2.0), (1.2, 4.0)])
def test_a_fault_in_a_hold_is_told_however_rarely_it_is_looked_at(fps: float, hold_s: float, tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("[right_knee_block.any]\nright_elbow_deg = [150.0, 180.0, 50]\n")
    stage, frames = opened(bands=str(tmp_path / "b.toml"), settle_s=0.3), round(fps * hold_s)
    assert not judged(stage, performer(), pts=0.0)
    for number in range(1, frames):
        judged(stage, performer(), pts=number / fps, gate=GateDecision(detect=False, classify=False))
    assert judged(stage, performer(), pts=frames / fps)


def test_what_may_be_the_detectors_error_alone_gets_no_cue() -> None:
    def is_told(error: Error, told: frozenset[str] = frozenset()) -> bool:
        values, bands, errors = {"right_elbow_deg": 140.0}, {"right_elbow_deg": STRAIGHT}, {"right_elbow_deg": error}
        cues = find_faults(values, bands, "right", min_severity=0.25, min_certainty=0.95, told=told, errors=errors)
        return bool(cues)

    assert is_told(Error(0.0, 4.0)) and not is_told(Error(0.0, 5.0))
    assert is_told(Error(-5.0, 5.0)) and not is_told(Error(5.0, 4.0)), "as errors often go to one side"
    assert is_told(Error(0.0, 5.0), frozenset({"right_elbow_deg"})), "it stays until it is mended"


def test_a_fault_on_either_side_of_the_band_is_as_certain() -> None:
    below, above = certainty(140.0, STRAIGHT, Error(-2.0, 4.0)), certainty(190.0, STRAIGHT, Error(2.0, 4.0))
    assert below == pytest.approx(above) and below > 0.9


def test_a_forearm_that_points_at_the_camera_gets_no_cue(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("[right_knee_block.any]\nright_elbow_deg = [150.0, 180.0, 50]\n")
    for away, told in (((-40, -20), True), ((-3, 2), False)):
        person, stick = performer()
        person.keypoints[sk.RIGHT_ELBOW, :2] = person.keypoints[sk.RIGHT_WRIST, :2] + away
        who = person, stick
        assert judged(opened(bands=str(tmp_path / "b.toml")), who), "it is measured far beyond its band"
        sure = opened(bands=str(tmp_path / "b.toml"), min_certainty=FeedbackSettings().min_certainty)
        assert bool(judged(sure, who)) == told


def test_of_two_faults_of_one_part_the_told_one_stays_until_the_other_is_clearly_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands, elbow, reach = tmp_path / "b.toml", "right_elbow_deg", "right_hand_reach"
    bands.write_text(f"[right_knee_block.any]\n{elbow} = [150.0, 180.0, 9]\n{reach} = [1.0, 1.5, 9]\n")
    stage, told = opened(bands=str(bands)), []
    for elbow_off, reach_off in ((3.0, 2.9), (3.0, 4.0), (3.0, 5.0), (3.0, 2.9)):  # in half-widths of the bands
        seen = {elbow: np.float64(150 - 15 * elbow_off), reach: np.float64(1 - 0.25 * reach_off)}
        monkeypatch.setattr("stages.feedback.measure", lambda keypoints, seen=seen: seen)
        told += [cue.quantity for cue in judged(stage, performer())]
    assert told == [elbow, elbow, reach, reach]


def test_a_fault_must_be_clear_when_it_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.toml").write_text("[right_knee_block.any]\nleft_knee_deg = [150.0, 180.0, 9]\n")
    stage, told = opened(bands=str(tmp_path / "b.toml"), settle_s=0.3), []
    for number, knee in enumerate((120.0, 120.0, 149.7, 120.0, 120.0, 149.7)):
        seen = {"left_knee_deg": np.float64(knee)}
        monkeypatch.setattr("stages.feedback.measure", lambda keypoints, seen=seen: seen)
        told.append(len(judged(stage, performer(), pts=0.2 * number)))
    assert told == [0, 0, 0, 0, 0, 0], "the clear looks before and after it are too short"
    monkeypatch.setattr("stages.feedback.measure", lambda keypoints: {"left_knee_deg": np.float64(120.0)})
    assert [len(judged(stage, performer(), pts=pts)) for pts in (1.2, 1.4, 1.6)] == [0, 0, 1]
    monkeypatch.setattr("stages.feedback.measure", lambda keypoints: {"left_knee_deg": np.float64(149.7)})
    assert judged(stage, performer(), pts=1.7), "what was told stays until it is mended"


def test_two_faults_of_one_arm_settle_each_for_itself(tmp_path: Path) -> None:
    bands = tmp_path / "b.toml"
    bands.write_text(
        "[right_knee_block.any]\nright_elbow_deg = [150.0, 180.0, 9]\nright_shoulder_deg = [100.0, 170.0, 9]\n"
    )
    stage = opened(bands=str(bands), settle_s=0.3)
    told = []
    for number in range(10):  # by turns the one and the other is worse
        person, stick = performer(elbow_x=-80.0 if number % 2 else -35.0)
        person.keypoints[sk.RIGHT_WRIST, :2] = (-70, -20) if number % 2 else (-60, -110)
        told.append(len(judged(stage, (person, stick), pts=number / 10)))
    assert told[:3] == [0, 0, 0] and set(told[3:]) == {1}


def test_a_folder_played_as_a_film_is_judged_like_a_film(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("[right_knee_block.any]\nright_elbow_deg = [150.0, 180.0, 9]\n")
    stage = opened(bands=str(tmp_path / "b.toml"), settle_s=0.3)
    told = [bool(judged(stage, performer(), pts=n / 10, picture=f"{n}.jpg")) for n in range(5)]
    assert told == [True, False, False, True, True], "of the first nobody knows that others follow at once"
    judged(stage, performer(), pts=0.5, picture="a.jpg", label="neutral")
    assert not judged(stage, performer(), pts=0.6, picture="b.jpg")
    assert judged(stage, performer(), pts=5.6, picture="c.jpg"), "alone"
