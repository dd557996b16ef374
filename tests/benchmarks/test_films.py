"""What is named in films of sessions, hold by hold."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.demo import Hold, Truth
from benchmarks.films import ALL, look_at, row, told_on_the_way
from stages.classes import load_classes, models_folder

from .test_bench import bench, check_sentence, report_of

HOLD = Hold("crown_thrust", 10, 39)


def results(first: int, *labels: str) -> list[dict[str, Any]]:
    """A frame for each label, `ok`; empty: a frame in which a guess was refused; `a or b`: in which it was narrowed to
    two."""
    out = []
    for k, text in enumerate(labels, first):
        label, _, alternative = text.partition(" or ")
        pose = {"label": label or HOLD.label, "alternative": alternative or None}
        out.append({"sequence": k, "status": "ok" if label and not alternative else "unsure", "pose": pose})
    return out


def test_a_hold_is_named_by_most_of_its_frames_and_mistaken_by_what_lasts() -> None:
    named = results(10, *[""] * 6, *["crown_thrust"] * 16, *["left_eye_thrust"] * 8)
    seen = look_at(named, HOLD, fps=30)
    assert seen.named and not seen.another and seen.after_s == 0.2
    seen = look_at(results(10, *["crown_thrust"] * 15, *["neutral"] * 6, *["left_eye_thrust"] * 9), HOLD, fps=30)
    assert not seen.named and seen.another and seen.after_s == 0
    assert look_at(results(10, *[""] * 30), HOLD, fps=30) == type(seen)(
        "crown_thrust", named=False, told=False, another=False, two_others=False, after_s=None
    )


def test_a_hold_may_be_told_as_one_of_two() -> None:
    either = ["crown_thrust or solar_plexus_thrust"] * 10
    seen = look_at(results(10, *["crown_thrust"] * 6, *either, *[""] * 14), HOLD, fps=30)
    assert seen.told and not (seen.named or seen.another or seen.two_others)
    neither = ["left_eye_thrust or left_chest_thrust"] * 9
    seen = look_at(results(10, *either, *neither, *[""] * 11), HOLD, fps=30)
    assert seen.two_others and not (seen.told or seen.named or seen.another)


def test_a_way_between_holds_may_name_either_and_no_third() -> None:
    truth = Truth(60, 30, [HOLD, Hold("left_eye_thrust", 46, 59)])
    on_the_way = ("crown_thrust", "", "neutral", "right_knee_block", "left_eye_thrust", "left_eye_thrust")
    assert told_on_the_way(results(40, *on_the_way), truth) == [0, 0, 0, 1, 0, 0]
    two = ("left_eye_thrust or left_chest_thrust", "right_knee_block or left_knee_block", "", "", "", "")
    assert told_on_the_way(results(40, *two), truth) == [0, 2, 0, 0, 0, 0]


def test_a_pose_that_is_never_named_has_no_time_until_then() -> None:
    missed = look_at(results(10, *[""] * 30), HOLD, fps=30)
    told = {"pose": "x", "holds": 1, "named": 0, "named_share": 0, "or_one_of_two": 0, "another": 0, "two_others": 0,
            "named_after_p50_s": None}  # fmt: skip
    assert row("x", [missed]) == told


def test_films_of_a_folder_go_through_the_program_and_are_reported(tmp_path: Path) -> None:
    for suffix in (".mp4", ".json"):
        shutil.copy(models_folder() / f"demo{suffix}", tmp_path / f"somebody{suffix}")
    done = bench("--films", tmp_path, "--out-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (part,) = report_of(tmp_path / "out")["parts"]
    rows = {row["pose"]: row for row in part["rows"]}
    assert list(rows) == [*load_classes().names, ALL]
    assert rows[ALL]["holds"] == 12 and rows[ALL]["named"] >= 10 and rows[ALL]["another"] == 0
    assert rows["neutral"]["holds"] == 2


def test_a_folder_without_films_is_named(tmp_path: Path) -> None:
    check_sentence(bench("--films", tmp_path, "--out-dir", tmp_path), "--films", "arnis-train synth films")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.mp4").write_bytes(b"")
    check_sentence(bench("--films", tmp_path, "--out-dir", tmp_path / "out"), "a.json", "arnis-train synth films")
