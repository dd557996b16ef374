"""Settings: which layer wins, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import Bench

from engine.config import EngineSettings, load_config
from engine.errors import UserError


@pytest.fixture
def default_file(tmp_path: Path) -> Path:
    return Bench(tmp_path).file


def user_file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_later_layers_win_and_each_value_says_where_it_came_from(default_file: Path, tmp_path: Path) -> None:
    mine = user_file(tmp_path, "[engine]\nin_flight = 2\nslots = 6\n[read]\ndelay_ms = 1\n")
    config = load_config(default_file, mine, ["engine.slots=7", "read.pid_file=7"], {"engine.policy": "latest"})
    found = {(line.section, line.key): (line.value, line.origin) for line in config.describe()}
    assert found["engine", "in_flight"] == (2, "file")
    assert found["engine", "slots"] == (7, "command line")
    assert found["engine", "policy"] == ("latest", "command line")
    assert found["engine", "max_age_ms"] == (1000.0, "default")
    assert found["read", "delay_ms"] == (1.0, "file")
    assert found["read", "pid_file"] == ("7", "command line")
    assert found["worker", "detect"][1] == "default"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("engine.in_flight=99", ["--set engine.in_flight=99", "99", "from 1 to 64"]),
        ("engine.in_flight=many", ["'many'", "int"]),
        ("engine.policy=newest", ["one of 'auto', 'every', 'latest'"]),
        ("engine.slot=5", ["engine.slot is unknown", "did you mean 'slots'"]),
        ("reed.delay_ms=5", ["no section [reed]", "did you mean 'read'"]),
        ("numbers.width=wide", ["numbers.width", "'wide'", "int"]),
        ("engine.in_flight=8", ["too few", "at least 11"]),
        ("worker.replicas=2", ["worker.replicas=2", "[[worker]]", "--config"]),
        ("engine.silent_s=1", ["engine.silent_s", "three times"]),
        ("engine.packet=json:dumps", ["engine.packet", "'json:dumps'", "engine.packet:Packet"]),
        ("nonsense", ["section.key=value"]),
        ("engine=3", ["section.key"]),
    ],
)
def test_a_wrong_setting_names_place_value_and_what_is_allowed(
    default_file: Path, override: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load_config(default_file, overrides=[override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[engine\n", ["mine.toml", "TOML"]),
        ("in_flight = 2\n", ["in_flight", "outside a section"]),
        ('[read]\ndelay_ms = "long"\n', ["mine.toml", "read.delay_ms", "number"]),
        ('[[worker]]\nname = "a"\nstages = ["bench_parts:Nobody"]\n', ["bench_parts:Nobody"]),
        ('[[worker]]\nname = "a"\nstages = ["no_such_module:Read"]\n', ["no_such_module", "PYTHONPATH"]),
        ('[[worker]]\nname = "a"\nstages = ["bench_parts:Numbers"]\n', ["a:", "bench_parts:Numbers", "`process`"]),
        ('[engine]\nsource = "bench_parts:Read"\n', ["engine.source", "bench_parts:Read", "`read`"]),
        ('[[worker]]\nname = "a"\nstages = ["bench_parts:lines_of"]\n', ["a:", "bench_parts:lines_of", "no stage"]),
        ('[[worker]]\nname = "a"\nstages = []\n', ["stages"]),
        ('[[worker]]\nname = "a"\nstages = ["bench_parts:Read"]\nreplicas = 2\n', ["last", "replicas"]),
        (
            '[[worker]]\nname = "a"\nstages = ["bench_parts:Write"]\nreplicas = 2\n'
            '[[worker]]\nname = "b"\nstages = ["bench_parts:Read"]\n',
            ["'a'", "replicas", "bench_parts:Write", "last worker"],
        ),
        (
            '[[worker]]\nname = "a"\nstages = ["bench_parts:Read"]\nreplicas = 2\n'
            '[[worker]]\nname = "b"\nstages = ["bench_parts:Write"]\n'
            '[[worker]]\nname = "c"\nstages = ["bench_parts:Middle"]\n',
            ["'b'", "replicas", "bench_parts:Write", "last worker"],
        ),
        ('[[worker]]\nname = "../a"\nstages = ["bench_parts:Read"]\n', ["name"]),
    ],
)
def test_a_wrong_file_names_itself_and_the_mistake(
    default_file: Path, tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load_config(default_file, user_file(tmp_path, text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_parts_that_do_not_fit_are_refused_before_a_worker_starts(
    default_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "misfits.py").write_text(
        "import bench_parts\n"
        "class Needy(bench_parts.NumberPacket, kw_only=True):\n    must: int\n"
        "class Loose(bench_parts.Read):\n    settings_type = dict\n"
        "class Other(bench_parts.Middle):\n    name = 'read'\n    settings_type = bench_parts.WriteSettings\n"
    )
    workers = '[[worker]]\nname = "a"\nstages = ["bench_parts:Read", "misfits:{}"]\n'
    for text, said in (
        ('[engine]\npacket = "misfits:Needy"\n', r"misfits:Needy.* needs a default for each field.*'must'"),
        (workers.format("Loose"), r"`settings_type` of 'misfits:Loose' is no msgspec Struct"),
        (workers.format("Other"), r"misfits:Other' reads the section \[read\] as WriteSettings.* as WorkSettings"),
    ):
        with pytest.raises(UserError, match=said):
            load_config(default_file, user_file(tmp_path, text))


def test_a_missing_file_is_named(default_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        load_config(default_file, tmp_path / "nowhere.toml")


def test_a_file_that_leaves_out_a_stage_need_not_leave_out_its_section(default_file: Path, tmp_path: Path) -> None:
    default_file.write_text(default_file.read_text() + "[middle]\ndelay_ms = 1\n")
    mine = user_file(tmp_path, '[[worker]]\nname = "all"\nstages = ["bench_parts:Read", "bench_parts:Write"]\n')
    config = load_config(default_file, mine)
    assert [worker.name for worker in config.workers] == ["all"]
    assert [line.origin for line in config.describe() if line.section == "worker"] == ["file"]


def test_fewer_workers_join_the_first_ones(default_file: Path) -> None:
    config = load_config(default_file).with_workers(2)
    assert [(worker.name, len(worker.stages)) for worker in config.workers] == [("detect_classify", 2), ("output", 1)]
    with pytest.raises(UserError, match="at least 1"):
        config.with_workers(0)


@pytest.mark.parametrize(("given", "live", "file"), [({}, 3, 7), ({"slots": 4}, 1, 1), ({"in_flight": 2}, 2, 2)])
def test_a_file_has_more_frames_in_flight_than_what_is_live(given: dict[str, int], live: int, file: int) -> None:
    settings = EngineSettings(**given)  # type: ignore[arg-type]
    assert (settings.frames_in_flight(live=True), settings.frames_in_flight(live=False)) == (live, file)
