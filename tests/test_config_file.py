"""`config.toml` says every setting with its default and one line of meaning."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from engine.config import EngineSettings

CONFIG = Path(__file__).parent.parent / "config.toml"


def sections() -> dict[str, type[msgspec.Struct]]:
    """Settings type of each section that the source and the stages of the configuration name."""
    config = tomllib.loads(CONFIG.read_text())
    dotted = [config["engine"]["source"], *(name for worker in config["worker"] for name in worker["stages"])]
    found = {}
    for name in dotted:
        module, _, attribute = name.partition(":")
        part = getattr(import_module(module), attribute)
        found[part.name] = part.settings_type
    return found


@pytest.mark.parametrize("name", sections())
def test_a_section_mirrors_the_defaults_in_the_code(name: str) -> None:
    written = tomllib.loads(CONFIG.read_text()).get(name, {})
    assert written == msgspec.to_builtins(sections()[name]())


def test_the_engines_section_mirrors_its_defaults_too() -> None:
    written = tomllib.loads(CONFIG.read_text())["engine"]
    named = {name: written[name] for name in ("packet", "source")}  # what the engine itself knows nothing of
    assert written == msgspec.to_builtins(EngineSettings()) | named


def test_every_setting_says_what_it_means() -> None:
    bare = []
    for line in CONFIG.read_text().splitlines():
        is_setting = "=" in line and not line.lstrip().startswith(("#", "stages", "name"))
        if is_setting and "#" not in line:
            bare.append(line)
    assert not bare
