"""What was measured on: processor, memory, system, versions, load. Nothing that names the machine or its user."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version

import msgspec

from benchmarks.networks import installed_runtimes, precisions
from engine.revision import git_revision
from stages.runtime import Precision, cpu_name, usable_cores

PACKAGES = ("arnis-stream", "numpy", "opencv-python-headless", "av", "pyzmq", "msgspec", "onnxruntime", "openvino")


class Machine(msgspec.Struct, kw_only=True):
    """The machine of one run."""

    cpu: str
    cores: int
    """That this process may use."""
    memory_gb: float | None
    precisions: tuple[Precision, ...] = ("f32",)
    """That the processor computes itself: where clouds call all theirs alike, these tell old ones from new ones."""
    system: str
    versions: dict[str, str]
    load_before: tuple[float, float, float] | None
    """Load averages of 1, 5 and 15 minutes; None where the system has none."""
    load_after: tuple[float, float, float] | None = None
    devices: dict[str, str] = {}
    """Networks and what they really ran on."""

    @property
    def slug(self) -> str:
        """Name for files: `amd-epyc-2-cores`, `amd-epyc-bf16-2-cores`."""
        words = re.sub(r"\((r|tm)\)|\bcpu\b|@", " ", self.cpu.lower())
        shorter = " ".join(self.precisions[1:])
        return re.sub(r"[^a-z0-9.]+", "-", f"{words} {shorter} {self.cores} cores").strip("-")


def look_at_machine() -> Machine:
    """The machine as it is now."""
    return Machine(
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_gb=_memory_gb(),
        precisions=tuple(dict.fromkeys(each for backend in installed_runtimes() for each in precisions(backend))),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions=_versions(),
        load_before=load(),
    )


def load() -> tuple[float, float, float] | None:
    """Load averages of 1, 5 and 15 minutes."""
    return os.getloadavg() if hasattr(os, "getloadavg") else None


def _memory_gb() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"revision": git_revision()}
