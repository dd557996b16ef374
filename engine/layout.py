"""The pipeline's shape as processes and addresses: the run's folder, and what each worker is told."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.config import Config, EngineSettings, import_name
from engine.errors import UserError
from engine.leftovers import left_by_the_dead, own_names
from engine.stage import stage_label
from engine.state import cannot_write

_PREFIX = own_names("engine-run")
_LONGEST_ADDRESS = 100
"""The system cuts the path of a socket at 107 characters."""


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker process has to know; it travels as MessagePack."""

    kind: Literal["capture", "stages"]
    name: str
    supervisor_pid: int
    folder: str
    streams: list[str]
    engine: EngineSettings
    sections: dict[str, Any]
    entry_endpoints: dict[str, str]
    """Where capture of each stream listens."""
    restarts: int = 0
    resumes: bool = False
    log_level: str = "WARNING"

    stages: list[str] = []
    first: bool = False
    last: bool = False
    pull_endpoint: str = ""
    push_endpoints: list[str] = []
    all_stages: int = 0
    """How many stages there are in all workers."""
    entry_stages: list[str] = []
    """The label of each worker's first stage."""

    stream: str = ""
    source: str = ""
    max_frames: int | None = None


class RunFolder:
    """A folder that only this user can enter, for socket files and shared tables; removed at the end."""

    def __init__(self, links: str) -> None:
        """`links`: as in `EngineSettings`; ZeroMQ's wheels for Windows have no ipc."""
        self._tcp = links == "tcp" or links == "auto" and sys.platform == "win32"
        self._ports: list[socket.socket] = []
        parent = Path(tempfile.gettempdir())
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if runtime and Path(runtime).is_dir() and os.access(runtime, os.W_OK):
            parent = Path(runtime)  # in memory, and private to the user
        for path in left_by_the_dead(parent, _PREFIX):
            shutil.rmtree(path, ignore_errors=True)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-", dir=parent))
        except OSError as error:
            raise cannot_write(parent, error) from error

    def endpoint(self, name: str) -> str:
        """A new address for a socket to bind to."""
        if self._tcp:
            # Held until `release`, so that the next free port is another one.
            held = socket.socket()
            held.bind(("127.0.0.1", 0))
            self._ports.append(held)
            return f"tcp://127.0.0.1:{held.getsockname()[1]}"
        path = str(self.path / name)
        if len(path.encode()) > _LONGEST_ADDRESS:
            raise UserError(
                f"{path} is too long a path for a socket: set TMPDIR to a shorter one, or engine.links to tcp"
            )
        return f"ipc://{path}"

    def release(self) -> None:
        """Let the workers have their ports."""
        for held in self._ports:
            held.close()
        self._ports.clear()

    def remove(self) -> None:
        self.release()
        with suppress(OSError):
            shutil.rmtree(self.path)


def stream_names(sources: Sequence[str]) -> list[str]:
    """ "0", "1", ... in the order of the sources."""
    return [str(number) for number in range(len(sources))]


def entry_stages(config: Config) -> list[str]:
    """Labels of the stages before which a packet has travelled."""
    return [stage_label(import_name(worker.stages[0], f"[[worker]] {worker.name}")) for worker in config.workers]


def count_stages(config: Config) -> int:
    return sum(len(worker.stages) for worker in config.workers)


def sections_of(config: Config) -> dict[str, Any]:
    """All settings of stages and source as plain values."""
    return {name: msgspec.to_builtins(section) for name, section in config.sections.items()}


def make_specs(
    config: Config, sources: Sequence[str], folder: RunFolder, max_frames: int | None, log_level: str
) -> list[WorkerSpec]:
    """One spec for each process: the stages' workers in the order of the data, then one capture for each source."""
    streams = stream_names(sources)
    common: dict[str, Any] = {
        "supervisor_pid": os.getpid(),
        "folder": str(folder.path),
        "streams": streams,
        "engine": config.engine,
        "sections": sections_of(config),
        "entry_endpoints": {name: folder.endpoint(f"entry-{name}") for name in streams},
        "log_level": log_level,
        "all_stages": count_stages(config),
        "entry_stages": entry_stages(config),
    }
    specs = _stage_specs(config, folder, common)
    for name, source in zip(streams, sources, strict=True):
        capture: dict[str, Any] = {"name": f"capture-{name}", "stream": name, "source": source}
        specs.append(WorkerSpec(kind="capture", max_frames=max_frames, **capture, **common))
    folder.release()
    return specs


def _stage_specs(config: Config, folder: RunFolder, common: Mapping[str, Any]) -> list[WorkerSpec]:
    names = [_replica_names(worker.name, worker.replicas) for worker in config.workers]
    pulls = [{name: folder.endpoint(f"pull-{name}") for name in group} for group in names[1:]]
    specs = []
    for index, worker in enumerate(config.workers):
        for name in names[index]:
            specs.append(
                WorkerSpec(
                    kind="stages",
                    name=name,
                    stages=worker.stages,
                    first=index == 0,
                    last=index == len(config.workers) - 1,
                    pull_endpoint=pulls[index - 1][name] if index else "",
                    push_endpoints=list(pulls[index].values()) if index < len(pulls) else [],
                    **common,
                )
            )
    return specs


def _replica_names(name: str, replicas: int) -> list[str]:
    return [name] if replicas == 1 else [f"{name}-{number}" for number in range(replicas)]
