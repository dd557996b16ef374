"""Settings: typed Structs, filled from TOML files and the command line, each value with the place it came from.

Later layers win: defaults in the Structs < the program's config.toml < the user's file < `--set` < flags.
"""

from __future__ import annotations

import difflib
import importlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from engine.errors import UserError
from engine.packet import Packet

_LIVE_IN_FLIGHT = 3
"""More make the picture older; a file, of which nobody waits for the newest frame, gains 4 to 16 % of frames by 7."""
Origin = Literal["default", "file", "command line"]
SectionT = TypeVar("SectionT", bound=msgspec.Struct)


class EngineSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Section [engine]."""

    packet: str = "engine.packet:Packet"
    source: str = ""
    policy: Literal["auto", "latest", "every"] = "auto"
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=64)] | Literal["auto"] = "auto"
    slots: Annotated[int, msgspec.Meta(ge=4, le=128)] = 10
    max_age_ms: Annotated[float, msgspec.Meta(gt=0, le=60_000)] = 1000.0
    write_off_ms: Annotated[float, msgspec.Meta(ge=50, le=60_000)] = 1000.0
    reorder_ms: Annotated[float, msgspec.Meta(ge=1, le=60_000)] = 500.0
    transport: Literal["shm", "copy"] = "shm"
    links: Literal["auto", "ipc", "tcp"] = "auto"
    heartbeat_s: Annotated[float, msgspec.Meta(ge=0.05, le=10)] = 1.0
    silent_s: Annotated[float, msgspec.Meta(ge=1, le=600)] = 10.0
    starting_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 180.0
    restarts: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 5
    restarts_within_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 60.0
    errors_in_a_row: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 30
    warm_up_frames: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 10
    profile: str = ""

    def frames_in_flight(self, *, live: bool) -> int:
        """How many frames of a stream may be in the pipeline at once."""
        if self.in_flight != "auto":
            return self.in_flight
        return min(_LIVE_IN_FLIGHT, self.slots - 3) if live else self.slots - 3

    def check(self) -> None:
        """What no single bound can say. Raises UserError."""
        if self.in_flight != "auto" and self.slots < self.in_flight + 3:
            raise UserError(
                f"engine.slots = {self.slots} is too few for engine.in_flight = {self.in_flight}: a frame being "
                f"written, one waiting and one to spare come on top; use at least {self.in_flight + 3}"
            )
        if self.silent_s < 3 * self.heartbeat_s:
            raise UserError(
                f"engine.silent_s = {self.silent_s} is too short for engine.heartbeat_s = {self.heartbeat_s}: "
                "a worker would count as dead between two signs of life; use at least three times as much"
            )
        if not self.source:
            raise UserError('engine.source is empty: name the class that reads frames as "module:Class"')


class WorkerSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One entry of [[worker]]: a process and the stages that it runs in order."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]{1,32}$")]
    stages: Annotated[list[str], msgspec.Meta(min_length=1)]
    replicas: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1


class Setting(msgspec.Struct, frozen=True):
    """One line of `--print-config`."""

    section: str
    key: str
    value: Any
    origin: Origin


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All that holds for one run."""

    engine: EngineSettings
    workers: list[WorkerSettings]
    sections: dict[str, msgspec.Struct]
    """Settings of the stages and of the source by section name."""
    origins: dict[str, Origin]
    """Where `section.key` came from; absent: default."""

    def describe(self) -> list[Setting]:
        """Every setting with its value and origin, for `--print-config`."""
        everything: dict[str, msgspec.Struct] = {"engine": self.engine, **self.sections}
        lines = [
            Setting(section, key, value, self.origins.get(f"{section}.{key}", "default"))
            for section, struct in everything.items()
            for key, value in msgspec.to_builtins(struct).items()
        ]
        origin = self.origins.get("worker", "default")
        return lines + [Setting("worker", worker.name, msgspec.to_builtins(worker), origin) for worker in self.workers]

    def section(self, kind: type[SectionT]) -> SectionT | None:
        """The settings of this type; None where no stage reads such, as one of somebody's own has its place."""
        return next((section for section in self.sections.values() if isinstance(section, kind)), None)

    def with_workers(self, count: int | None) -> Config:
        """The same with at most `count` worker processes: the first ones are joined; None changes nothing."""
        if count is None or count >= len(self.workers):
            return self
        if count < 1:
            raise UserError(f"--workers {count} is not possible: at least 1 process is needed")
        split = len(self.workers) - count + 1
        return msgspec.structs.replace(self, workers=[join_workers(self.workers[:split]), *self.workers[split:]])


def join_workers(workers: Sequence[WorkerSettings]) -> WorkerSettings:
    """One process that runs all of their stages in order."""
    name = "_".join(worker.name for worker in workers)[:32]
    return WorkerSettings(name=name, stages=[stage for worker in workers for stage in worker.stages])


def import_name(dotted: str, setting: str) -> Any:
    """The object that `"module:Name"` names. Raises UserError when there is none; errors inside the module pass."""
    module_name, _, attribute = dotted.partition(":")
    if not module_name or module_name.startswith("."):
        raise UserError(f'{setting}: {dotted!r} names nothing; write "module:Class"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise UserError(
                f"{setting}: there is no module {error.name!r} (in {dotted!r}); correct the name, install it, or put "
                "its folder into PYTHONPATH"
            ) from error
        raise UserError(f"{setting}: {dotted!r} needs the Python package {error.name!r}: install it") from error
    if not hasattr(module, attribute):
        raise UserError(
            f"{setting}: {dotted!r} names nothing, as {module_name} has no {attribute!r}; "
            'write "module:Class" as the default configuration does'
        )
    return getattr(module, attribute)


def load_config(
    default_file: Path,
    user_file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    packet: type[Packet] = Packet,
) -> Config:
    """Read and check the whole configuration.

    `overrides` are `section.key=value` texts of `--set`; `flags` maps `section.key` to values that other options gave;
    `packet` is what the stages need to travel, at least.
    Raises UserError that names the file or option, the key, the value and what is allowed.
    """
    layers = _Layers()
    layers.add_file(default_file, "default")
    default_workers = layers.workers
    if user_file is not None:
        layers.add_file(user_file, "file")
    for text in overrides:
        layers.add_override(text)
    for name, value in (flags or {}).items():
        layers.add(*_split(name, f"option for {name}"), value, "command line", "command line")

    engine: EngineSettings = layers.take("engine", EngineSettings)
    engine.check()
    _check_packet(engine.packet, packet)
    workers = _decode_workers(layers.workers, layers.workers_label)
    # A file that leaves out a stage need not leave out its section, which the program's own file has.
    shipped = _decode_workers(default_workers, str(default_file))
    known = {name: kind for _, name, kind in _settings_types(engine, [*shipped, *workers])}
    _check_sections(engine, [*shipped, *workers])
    _check_replicas(workers, layers.workers_label)
    sections = {name: layers.take(name, kind) for name, kind in known.items()}
    layers.refuse_rest(["engine", "worker", *sections])
    return Config(engine=engine, workers=workers, sections=sections, origins=layers.origins)


class _Value(msgspec.Struct):
    value: Any
    label: str
    text: str | None = None
    """As typed on the command line: stands in when a text is wanted and `value` was read as something else."""


class _Layers:
    """Collects raw values by section and key, the last one winning."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, _Value]] = {}
        self.origins: dict[str, Origin] = {}
        self.workers: list[Any] = []
        self.workers_label = ""

    def add(self, section: str, key: str, value: Any, label: str, origin: Origin, text: str | None = None) -> None:
        if section == "worker":
            raise UserError(f"{label}: workers can't be set one by one; write [[worker]] into a file for --config")
        self.values.setdefault(section, {})[key] = _Value(value, label, text)
        self.origins[f"{section}.{key}"] = origin

    def add_file(self, path: Path, origin: Origin) -> None:
        for section, values in _read_toml(path).items():
            if section == "worker":
                self.workers, self.workers_label = values, str(path)
                self.origins["worker"] = origin
            elif not isinstance(values, dict):
                raise UserError(f"{path}: {section} = {values!r} stands outside a section; put it under [engine], say")
            else:
                self.values.setdefault(section, {})
                for key, value in values.items():
                    self.add(section, key, value, str(path), origin)

    def add_override(self, text: str) -> None:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: write section.key=value")
        section, key = _split(name.strip(), f"--set {text}")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        self.add(section, key, parsed, f"--set {text}", "command line", value)

    def take(self, section: str, kind: type[Any]) -> Any:
        """Decode one section; raises UserError."""
        values = self.values.get(section, {})
        raw = {key: entry.value for key, entry in values.items()}
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for key, entry in values.items():
            if key not in fields:
                raise UserError(f"{entry.label}: {section}.{key} is unknown{_suggest(key, fields)}")
            raw[key] = _fitting(section, key, entry, fields[key].type)
        try:
            return msgspec.convert(raw, kind)
        except (msgspec.ValidationError, ValueError) as error:
            raise UserError(f"[{section}]: {error}") from error

    def refuse_rest(self, known: Sequence[str]) -> None:
        """Raise UserError for a section that nothing reads."""
        for section, values in self.values.items():
            if section not in known:
                label = next((entry.label for entry in values.values()), "configuration")
                raise UserError(f"{label}: there is no section [{section}]{_suggest(section, known)}")


def _fitting(section: str, key: str, entry: _Value, kind: Any) -> Any:
    """The raw value if it fits the field's type, else the text as typed, else UserError."""
    try:
        msgspec.convert(entry.value, kind)
        return entry.value
    except msgspec.ValidationError as error:
        if entry.text is not None:
            try:
                return msgspec.convert(entry.text, kind)
            except msgspec.ValidationError:
                pass  # the error of the parsed value says more
        said = f"{entry.label}: {section}.{key} = {entry.value!r} is not allowed"
        raise UserError(f"{said}; allowed: {_in_words(msgspec.inspect.type_info(kind))}") from error


def _in_words(info: msgspec.inspect.Type) -> str:
    """A field's type and range: `int from 1 to 64`, `one of 'shm', 'copy'`."""
    if isinstance(info, msgspec.inspect.Metadata):
        return _in_words(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        return " or ".join(_in_words(part) for part in info.types)
    if isinstance(info, msgspec.inspect.LiteralType):
        return "one of " + ", ".join(repr(value) for value in info.values)
    if isinstance(info, msgspec.inspect.NoneType):
        return "nothing"
    if isinstance(info, msgspec.inspect.BoolType):
        return "true or false"
    words = type(info).__name__.removesuffix("Type").lower().replace("str", "text").replace("float", "number")
    bounds = (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"), ("pattern", "like"))
    said = [f"{word} {getattr(info, name)}" for name, word in bounds if getattr(info, name, None) is not None]
    if getattr(info, "min_length", None):
        words = f"a {words} that is not empty"
    return " ".join([words, *said])


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text; give a configuration in TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error


def _split(name: str, label: str) -> tuple[str, str]:
    section, dot, key = name.partition(".")
    if not (section and dot and key):
        raise UserError(f"{label}: {name!r} is not of the form section.key")
    return section, key


def _decode_workers(raw: Any, label: str) -> list[WorkerSettings]:
    try:
        workers = msgspec.convert(raw, list[WorkerSettings])
    except msgspec.ValidationError as error:
        reason = re.sub(r" - at `\$.*`$", "", str(error))
        raise UserError(f"{label}: [[worker]]: {reason}; each has a name and a list of stages, as in config.toml, and "
                        "stands under [[worker]] in two brackets") from error  # fmt: skip
    if not workers:
        raise UserError(f"{label}: there is no [[worker]]: name at least one with its stages")
    names = [worker.name for worker in workers]
    if len(set(names)) < len(names):
        raise UserError(f"{label}: two [[worker]] entries have the same name: {', '.join(names)}")
    if workers[-1].replicas != 1:
        raise UserError(f"{label}: [[worker]] {names[-1]!r} is the last and restores the order: its replicas must be 1")
    return workers


def _settings_types(engine: EngineSettings, workers: Iterable[WorkerSettings]) -> Iterator[tuple[str, str, type[Any]]]:
    """Of the source and of every stage where it is named, its section and the Struct of that."""
    named = [(engine.source, "engine.source", ["read", "close"])]
    named += [(dotted, f"[[worker]] {worker.name}", ["process"]) for worker in workers for dotted in worker.stages]
    for dotted, setting, methods in named:
        kind = import_name(dotted, setting)
        if methods == ["process"] and hasattr(kind, "process_batch"):
            methods = []
        lacking = [member for member in ("name", "settings_type", "open", *methods) if not hasattr(kind, member)]
        if lacking:
            raise UserError(f"{setting}: {dotted!r} is no stage or source: it has no `{'`, `'.join(lacking)}`")
        if not (isinstance(kind.settings_type, type) and issubclass(kind.settings_type, msgspec.Struct)):
            raise UserError(f"{setting}: `settings_type` of {dotted!r} is no msgspec Struct; make it one")
        yield f"{setting}: {dotted!r}", kind.name, kind.settings_type


def _check_sections(engine: EngineSettings, workers: Sequence[WorkerSettings]) -> None:
    """A worker knows of its stages only: who shares a section must read it alike."""
    found: dict[str, type[Any]] = {"engine": EngineSettings}
    for said, name, kind in _settings_types(engine, workers):
        if found.setdefault(name, kind) is not kind:
            raise UserError(
                f"{said} reads the section [{name}] as {kind.__name__}, and something else reads it as "
                f"{found[name].__name__}; give it another `name`"
            )


def _check_packet(dotted: str, least: type[Packet]) -> None:
    kind = import_name(dotted, "engine.packet")
    if not (isinstance(kind, type) and issubclass(kind, least)):
        wanted = f"{least.__module__}:{least.__name__}"
        raise UserError(f"engine.packet: {dotted!r} will not do as a packet; name {wanted} or a subclass")
    try:
        kind(stream="", sequence=0, pts=0.0, captured_at_ns=0)
    except TypeError as error:
        raise UserError(f"engine.packet: {dotted!r} needs a default for each field that it adds ({error})") from error


def _check_replicas(workers: Sequence[WorkerSettings], label: str) -> None:
    """Replicas take a stream's packets by turns and so overtake one another; only the last worker restores the order.
    A stage that remembers packets may be in none of them, nor between them and the last."""
    first = next((place for place, worker in enumerate(workers) if worker.replicas > 1), len(workers))
    for worker in workers[first:-1]:
        for dotted in worker.stages:
            if not getattr(import_name(dotted, f"[[worker]] {worker.name}"), "stateless", False):
                raise UserError(
                    f"{label}: [[worker]] {worker.name!r} is one of several replicas or behind them, and {dotted} may "
                    "remember a stream's earlier packets (it does not say that it is `stateless`): move it before them "
                    "or into the last worker, or leave replicas out"
                )


def _suggest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"
