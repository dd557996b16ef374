"""The page for the coach: holds as somebody would count them, with what was told, and why nothing was named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.errors import UserError
from stages.cards import load_card
from stages.report import caveat, holds_of, read_lines, write_report
from stages.tally import PoseTally


def frames(label: str | None, start_s: float, end_s: float, *cues: str, **changes: Any) -> Iterator[dict[str, Any]]:
    """Results of 10 frames a second in which a pose is accepted, or nothing is named."""
    for number in range(round(10 * start_s), round(10 * end_s) + 1):
        pose = {"label": label, "confidence": 0.9, "accepted": True} if label else None
        line = {"stream": "0", "pts": number / 10, "status": "ok" if label else "unsure", "reason": None}
        yield line | {"pose": pose, "feedback": [{"sentence": cue} for cue in cues], "more": 1} | changes


def pose(label: str, confidence: float, accepted: bool) -> dict[str, Any]:
    return {"label": label, "confidence": confidence, "accepted": accepted}


def written(file: Path, *parts: Iterator[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for part in parts for line in part))
    return file


SHIPPED: dict[str, Any] = {}


def holds(file: Path) -> list[tuple[str, float, float]]:
    found = holds_of(list(read_lines(file)), "neutral", PoseTally())
    return [(hold.label, round(hold.start_s, 6), hold.end_s) for hold in found]


def test_a_hold_survives_a_doubt_and_ends_with_another_pose_or_rest(tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.jsonl",
        frames("crown_thrust", 0, 1), frames(None, 1.1, 1.2), frames("crown_thrust", 1.3, 2.5),
        frames("left_eye_thrust", 2.6, 2.9),  # too short
        frames("right_eye_thrust", 3, 4), frames("left_eye_thrust", 4.1, 4.2), frames("right_eye_thrust", 4.3, 5),
        frames("neutral", 5.1, 5.8), frames("right_eye_thrust", 5.9, 7), frames("right_eye_thrust", 9, 10),
    )  # fmt: skip
    named = "right_eye_thrust"
    assert holds(file) == [("crown_thrust", 0, 2.5), (named, 2.9, 5), (named, 5.8, 7), (named, 9, 10)]


def test_a_pose_that_is_thrust_four_times_is_four_holds_and_the_pauses_are_not_named(tmp_path: Path) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    crown, parts = "crown_thrust", []
    for start_s in (0, 2, 4, 6):
        parts += [frames(crown, start_s, start_s + 1), frames(None, start_s + 1.1, start_s + 1.9, status="no_person")]
    written(file, *parts, frames(crown, 8, 8.3), frames(None, 8.4, 9))  # the last is too short
    assert holds(file) == [(crown, 0, 1), (crown, 1.9, 3), (crown, 3.9, 5), (crown, 5.9, 7)]
    write_report(file, page, ["0"], SHIPPED)
    assert "4 holds of 1 pose" in page.read_text()
    assert "<td>4</td><td>4.7</td><td>1.1</td>" in page.read_text(), "as the terminal says it, with what is too short"


def test_one_frame_of_another_name_does_not_cut_a_hold_into_pieces_too_short_for_one(tmp_path: Path) -> None:
    crown = "crown_thrust"
    for other in ("neutral", "left_eye_thrust", None):
        file = written(tmp_path / "a.jsonl", frames(crown, 0, 0.4), frames(other, 0.5, 0.5), frames(crown, 0.6, 1.0))
        assert holds(file) == [(crown, 0, 1.0)], other


def test_a_hold_with_two_breaks_is_one_and_a_longer_break_ends_it(tmp_path: Path) -> None:
    crown, file = "crown_thrust", tmp_path / "a.jsonl"
    parts = [
        frames(crown, 0, 1, "Raise.", "Bend."), frames("left_eye_thrust", 1.1, 1.1),
        frames(crown, 1.2, 1.6, "Turn."), frames(crown, 1.7, 2), frames(None, 2.1, 2.1), frames(crown, 2.2, 3),
        frames(None, 3.1, 3.5), frames(crown, 3.6, 3.7, "Turn."), frames(None, 3.8, 3.8),
        frames(crown, 3.9, 4.1), frames(crown, 4.2, 4.3, "Turn."), frames(crown, 4.4, 5, pose=pose(crown, 0.5, True)),
    ]  # fmt: skip
    assert holds(written(file, *parts)) == [(crown, 0, 3), (crown, 3.5, 5)]
    write_report(file, tmp_path / "a.html", ["0"], SHIPPED)
    text = (tmp_path / "a.html").read_text()
    assert "<td>90 %</td><td>Raise.<br>Bend.<br>Turn.</td>" in text
    assert "<td>70 %</td><td>Turn.</td>" in text, "both parts of the second hold count"
    assert "<td>Turn. (in 2 of 2 holds)<br>Raise. (in 1 of 2 holds)</td>" in text


def test_holds_of_several_streams_come_in_the_order_of_their_beginning(tmp_path: Path) -> None:
    one, two, later = frames("a", 0, 1), frames("b", 2, 3, stream="1"), frames("a", 4, 5)
    assert holds(written(tmp_path / "a.jsonl", one, later, two)) == [("a", 0, 1), ("b", 2, 3), ("a", 4, 5)]


def test_what_there_was_most_of_comes_first(tmp_path: Path) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    parts = [frames("left_eye_thrust", 0, 1), frames("crown_thrust", 2, 3), frames("crown_thrust", 5, 6)]
    written(file, *parts, frames(None, 6.1, 6.3, reason="no_stick"), frames(None, 6.4, 8, status="no_person"))
    write_report(file, page, ["0"], SHIPPED)
    text = page.read_text()
    assert text.index("<td>crown thrust</td><td>2</td>") < text.index("<td>left eye thrust</td><td>1</td>")
    assert text.index("nobody was seen") < text.index("no stick was seen")


def test_of_few_frames_that_were_lost_the_page_says_how_many_and_of_a_start_without_a_look_nothing(
    tmp_path: Path,
) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    for reason, said in (("replaced", "were not looked at"), ("worker_lost", "were lost")):
        lost = frames(None, 4.8, 4.8, status="dropped", reason=reason)
        written(file, frames(None, 0, 0.1, reason="nothing_seen_yet"), frames("crown_thrust", 0.2, 4.7), lost)
        write_report(file, page, ["0"], SHIPPED)
        assert f" 2 % of the frames {said}" in page.read_text() and page.read_text().count(" % of the frames ") == 1
        assert "Not named" not in page.read_text()


def test_frames_in_which_it_is_one_of_two_poses_are_told_apart_from_those_in_doubt(tmp_path: Path) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    either = pose("left_eye_thrust", 0.5, accepted=False) | {"alternative": "left_chest_thrust"}
    written(
        file, frames("crown_thrust", 0, 0.6), frames(None, 0.7, 0.8, pose=either),
        frames(None, 0.9, 0.9, pose=pose("left_eye_thrust", 0.5, accepted=False)),
    )  # fmt: skip
    write_report(file, page, ["0"], SHIPPED)
    told = page.read_text()
    said = "<td>20 %</td><td>it was one of two poses, not sure which</td>"
    assert said in told and "<td>10 %</td><td>the pose was in doubt" in told


def between(first: str, second: str, start_s: float, end_s: float, **changes: Any) -> Iterator[dict[str, Any]]:
    """Frames in which it is told to be one of two."""
    refused = pose(first, 0.5, accepted=False) | {"alternative": second}
    return frames(None, start_s, end_s, pose=refused, **changes)


def rows_of(lines: Path) -> list[tuple[str, bool, float]]:
    found = holds_of(list(read_lines(lines)), "neutral", PoseTally())
    return [(hold.told, hold.is_either, round(hold.told_for_s, 3)) for hold in found]


def test_a_hold_that_was_only_told_as_one_of_two_has_its_row(tmp_path: Path) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    eye, chest = "right_eye_thrust", "right_chest_thrust"
    parts = [frames(None, 1.1, 1.4), between(eye, chest, 1.5, 2), between(chest, eye, 2.1, 3)]
    written(file, frames("crown_thrust", 0, 1), *parts)
    assert rows_of(file) == [("crown_thrust", False, 1.0), ("right chest or eye thrust", True, 1.6)]
    write_report(file, page, ["0"], SHIPPED)
    told = page.read_text()
    assert "1 hold of 1 pose in 0:03, and 1 that may be one of two." in told
    assert "<td>right chest or eye thrust</td><td>1.6</td><td>one of two</td>" in told


def test_a_hold_goes_on_while_it_is_told_as_one_of_two_of_which_it_is_one(tmp_path: Path) -> None:
    crown, plexus = "crown_thrust", "solar_plexus_thrust"
    parts = [frames(crown, 0, 0.3), between(plexus, crown, 0.4, 0.8), frames(crown, 0.9, 1.2),
             between("left_eye_thrust", plexus, 1.3, 2)]  # fmt: skip
    assert rows_of(written(tmp_path / "a.jsonl", *parts)) == [
        (crown, False, 0.7), ("left eye or solar plexus thrust", True, 0.8),
    ]  # fmt: skip
    short = [frames(crown, 0, 0.3), between(plexus, crown, 0.4, 0.8)]
    assert rows_of(written(tmp_path / "b.jsonl", *short)) == [("crown or solar plexus thrust", True, 0.8)]


def test_a_picture_that_is_one_of_two_has_its_row(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    alone = [between("left_eye_thrust", "left_chest_thrust", 0, 0, picture="a.jpg"),
             frames("crown_thrust", 5, 5, picture="b.jpg")]  # fmt: skip
    written(file, *alone)
    write_report(file, tmp_path / "a.html", ["0"], SHIPPED)
    told = (tmp_path / "a.html").read_text()
    assert "<td>a.jpg</td><td>left chest or eye thrust</td><td>one of two</td>" in told
    assert "<td>b.jpg</td><td>crown thrust</td><td>90 %</td>" in told


def test_a_right_hander_taken_for_a_left_hander_at_ease_is_told_nothing_of_left_handers(tmp_path: Path) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    left = {"stick": {"hand": "left"}}
    for held, said in ((frames("crown_thrust", 1, 2), False), (frames("crown_thrust", 1, 2, **left), True)):
        write_report(written(file, frames("neutral", 0, 0.9, **left), held), page, ["0"], SHIPPED)
        assert ("poses are named as a right-hander does them" in page.read_text()) == said


def test_a_pose_that_flickers_is_no_hold(tmp_path: Path) -> None:
    parts = [part for n in range(9) for part in (frames("crown_thrust", n, n), frames(None, n + 0.1, n + 0.9))]
    assert not holds(written(tmp_path / "a.jsonl", *parts))


def test_the_time_of_dropped_frames_belongs_to_the_hold(tmp_path: Path) -> None:
    lost = {"status": "dropped", "reason": "replaced"}
    parts = [part for n in range(4) for part in (frames("crown_thrust", n, n), frames(None, n + 0.1, n + 0.9, **lost))]
    assert holds(written(tmp_path / "a.jsonl", *parts)) == [("crown_thrust", 0, 3)]


def test_a_slow_stream_has_holds_too(tmp_path: Path) -> None:
    lines = [line | {"pts": 10 * line["pts"]} for line in frames("crown_thrust", 0, 0.5)]
    assert holds(written(tmp_path / "a.jsonl", iter(lines))) == [("crown_thrust", 0, 5)]


def test_refused_guesses_and_other_streams_are_kept_apart(tmp_path: Path) -> None:
    one, two = frames("crown_thrust", 0, 1), frames("left_eye_thrust", 0, 1, stream="1")
    mixed = (line for pair in zip(one, two, strict=True) for line in pair)
    file = written(tmp_path / "a.jsonl", mixed, frames(None, 1.1, 3, pose=pose("crown_thrust", 0.3, False)))
    assert holds(file) == [("crown_thrust", 0, 1), ("left_eye_thrust", 0, 1)]


def test_pictures_stand_alone(tmp_path: Path) -> None:
    names = enumerate(("a.jpg", "<b>.jpg"))
    parts = [frames("crown_thrust", 5 * i, 5 * i, "Raise.", picture=name) for i, name in names]
    end = frames(None, 5, 5, status="end")
    file, page = written(tmp_path / "a.jsonl", *parts, end), tmp_path / "a.html"
    write_report(file, page, ["photos"], SHIPPED)
    text = page.read_text()
    assert "2 holds of 1 pose in 2 pictures" in text and "<td>a.jpg</td>" in text and "<td>&lt;b&gt;.jpg</td>" in text
    assert "Raise. (in 2 of 2 pictures)" in text
    assert "<th scope=col>pictures</th>" in text and "named for" not in text, "nothing lasts in a picture"
    film = list(frames("crown_thrust", 0, 2, picture="a.jpg"))
    assert holds(written(file, iter(film))) == [("crown_thrust", 0, 2)], "played as a film"
    write_report(file, page, ["photos"], SHIPPED)
    assert "<th scope=col>holds</th>" in page.read_text() and "a.jpg" not in page.read_text()


def test_a_film_and_pictures_are_not_added_up(tmp_path: Path) -> None:
    crown = "crown_thrust"
    photos = [frames(crown, 5 * i, 5 * i, "Raise.", picture=f"{i}.jpg", stream="1") for i in range(2)]
    end = frames(None, 10, 10, stream="1", status="end")
    page = tmp_path / "a.html"
    write_report(written(tmp_path / "a.jsonl", frames(crown, 0, 3), *photos, end), page, ["film", "photos"], SHIPPED)
    text = page.read_text()
    assert "3 holds of 1 pose in 0:03 and 2 pictures" in text
    assert "<td>crown thrust</td><td>1</td><td>3.0</td><td>3.0</td>" in text
    assert "<h2>Poses in pictures</h2>" in text
    assert "<td>crown thrust</td><td>2</td><td>Raise. (in 2 of 2 pictures)</td>" in text


def test_the_page_says_that_it_does_not_tell_people_apart(tmp_path: Path) -> None:
    for track, stream, said in ((0, "0", False), (11, "0", True), (0, "1", True)):
        one = frames("crown_thrust", 0, 1, person={"track": 0})
        two = frames("crown_thrust", 3, 4, person={"track": track}, stream=stream)
        write_report(written(tmp_path / "a.jsonl", one, two), tmp_path / "a.html", ["0"], SHIPPED)
        assert ("People are not told apart" in (tmp_path / "a.html").read_text()) == said


def test_the_figure_of_the_card_is_told_where_its_threshold_holds(tmp_path: Path) -> None:
    file, page = written(tmp_path / "a.jsonl", frames("crown_thrust", 0, 1)), tmp_path / "a.html"
    for threshold, told in ((0.0, True), (0.3, False)):
        write_report(file, page, ["0"], {"classify": {"threshold": threshold}})
        right = load_card("geopose")[0].metrics["accepted_accuracy"]
        sentence = f"{100 * right:.0f} % of the named poses were right (single pictures of drawn people, the weapon"
        assert (sentence in page.read_text()) == told


def test_the_page_tells_what_to_correct_and_why_nothing_was_named(tmp_path: Path) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    written(
        file,
        frames("crown_thrust", 0, 1, "Raise your <left> hand."), frames("crown_thrust", 2.2, 3),
        frames(None, 3.1, 4, reason="no_stick"), frames(None, 4.1, 5, status="no_person"),
        frames(None, 5.1, 9.2, status="dropped", reason="replaced"),
    )  # fmt: skip
    write_report(file, page, ["gym <1>.mp4"], SHIPPED)
    text = page.read_text(encoding="utf-8")
    assert "gym &lt;1&gt;.mp4: 2 holds of 1 pose in 0:09. 51 % of the frames were not looked at" in text
    assert "with the way into it and out of it" in text
    assert "Raise your &lt;left&gt; hand. (in 1 of 2 holds)" in text and "<left>" not in text
    assert "<td>0:02</td><td>crown thrust</td><td>0.8</td>" in text
    assert "<td>25 %</td><td>no stick was seen: " in text and "<td>25 %</td><td>nobody was seen</td>" in text


def test_a_sentence_that_nobody_could_read_is_not_repeated_and_the_longest_comes_first(tmp_path: Path) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    written(
        file, frames("crown_thrust", 0, 1, "Raise."), frames("crown_thrust", 1.1, 1.2, "Turn."),
        frames("crown_thrust", 1.3, 3, "Bend."),
    )  # fmt: skip
    write_report(file, page, ["0"], SHIPPED)
    assert "Turn." not in page.read_text() and page.read_text().count("Bend.<br>Raise.") == 1
    assert "Bend. (in 1 of 1 holds)<br>Raise. (in 1 of 1 holds)" in page.read_text()


def test_the_page_says_how_a_left_handers_poses_are_named(tmp_path: Path) -> None:
    for hand, said in (("left", True), ("right", False)):
        file, page = tmp_path / f"{hand}.jsonl", tmp_path / f"{hand}.html"
        write_report(written(file, frames("crown_thrust", 0, 1, stick={"hand": hand})), page, ["0"], SHIPPED)
        assert ("left is right in their names" in page.read_text()) == said


def test_the_page_says_which_source_is_which_and_how_often_one_was_lost(tmp_path: Path) -> None:
    file, page = tmp_path / "a.jsonl", tmp_path / "a.html"
    def lost(start_s: float) -> Iterator[dict[str, Any]]:
        return frames(None, start_s, start_s + 0.2, status="source_lost")

    written(file, frames("crown_thrust", 0, 1, stream="1"), lost(1.1), frames("crown_thrust", 5, 6), lost(6.1))
    write_report(file, page, ["door.mp4", "1"], SHIPPED)
    text = page.read_text()
    assert "[0] door.mp4, [1] camera 1: 2 holds of 1 pose in 0:06. The source was lost 2 times.<" in text
    assert "<td>[1] 0:00</td>" in text


@pytest.mark.parametrize(("people", "told"), [(4, False), (5, True)])
def test_of_a_model_that_too_few_have_tested_no_share_is_told(
    people: int, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, file = load_card("geopose")
    mine = msgspec.structs.replace(card, metrics=card.metrics | {"people": people})
    monkeypatch.setattr("stages.report.load_card", lambda model: (mine, file))
    assert ("% of the named poses were right" in caveat({})) == told
    assert ("too few people" in caveat({})) != told


@pytest.mark.parametrize("wrong", [{"accepted_accuracy": "often"}, {"people": "many"}, {"accepted_accuracy": 0.0}])
def test_of_a_card_with_words_for_figures_or_without_an_accepted_answer_no_share_is_told(
    wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    card, file = load_card("geopose")
    mine = msgspec.structs.replace(card, metrics=card.metrics | wrong)
    monkeypatch.setattr("stages.report.load_card", lambda model: (mine, file))
    assert "%" not in caveat({}) and caveat({})


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    line = '{"stream": "0", "pts": 0.0, "status": "ok"}\n'
    (tmp_path / "a.jsonl").write_text(line + '{"stream"')
    assert len(list(read_lines(tmp_path / "a.jsonl"))) == 1, "the last one was cut off"
    (tmp_path / "a.jsonl").write_text(line + '{"stream"\n')
    with pytest.raises(UserError, match=r"line 2 of .*a\.jsonl is no result"):
        list(read_lines(tmp_path / "a.jsonl"))
