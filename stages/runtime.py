"""Runs ONNX files behind one call, on the device and runtime that settings name, or on the best here (`auto`).

Only the runtime that is used gets imported, so that a restarted worker is back at once. `auto` tries what there is once
and remembers the answer in the user's cache folder, keyed by everything that could change it.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from engine.errors import UserError
from engine.leftovers import process_exists
from stages.devices import (
    RUNTIMES,
    Backend,
    CannotLoad,
    Decision,
    Machine,
    allowed,
    choose,
    hardware,
    load_each,
    reason_of,
    survey,
)
from stages.sessions import Device, How, Loader, Network, NotThere, Place, Precision

__all__ = [
    "RUNTIMES",
    "Backend",
    "Device",
    "Network",
    "Precision",
    "cache_folder",
    "cpu_name",
    "default_threads",
    "load_network",
    "usable_cores",
]

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-migraphx", "onnxruntime-directml", "openvino")
"""Where the runtimes may come from."""

log = logging.getLogger(__name__)


def load_network(
    model_file: Path,
    backend: Backend = "auto",
    threads: int = 0,
    precision: Precision = "f32",
    device: Device = "cpu",
    shapes: Sequence[tuple[int, ...]] | None = None,
    machine: Machine | None = None,
) -> Network:
    """Load an ONNX file; `threads` 0 takes `default_threads()`, `shapes` are the input shapes to try it with.

    The file is read once and handed over as bytes, so a file that refers to data outside itself is refused.
    Raises UserError when the file is missing or broken, or the runtime or device is not there or lacks the precision.
    """
    if not model_file.is_file():
        raise UserError(f"model file {model_file} does not exist; give the path of an ONNX file")
    if model_file.suffix == ".xml":
        raise UserError(
            f"{model_file} is OpenVINO IR, which is for other programs; give the folder with that model's ONNX file"
        )
    machine = machine or Machine()
    data = model_file.read_bytes()
    how = How(threads or default_threads(), precision, cache_folder(), None if shapes is None else tuple(shapes))
    installed = machine.installed()
    if not installed or backend not in ("auto", *installed):
        missing = backend if backend != "auto" else RUNTIMES[0]
        raise UserError(
            f"the runtime {missing} is not installed; run `pip install {missing}` or choose another backend"
        )
    if precision != "f32" and {place.runtime for place in allowed(device, backend)} == {"onnxruntime"}:
        where = device if backend == "auto" else backend
        raise UserError(f'model {model_file}: precision = "{precision}" is for OpenVINO only, not for {where}; set it '
                        'to "f32", or backend and device to "auto"')  # fmt: skip
    quickest = device == "auto" or device == "cpu" and backend == "auto" and len(installed) > 1
    network = (_load_quickest if quickest else _load_named)(model_file, data, how, device, backend, machine)
    _give_back_memory()
    return network


def _give_back_memory() -> None:
    """What loading took and nobody uses any more, up to twice the model's size; the C library would keep it."""
    if sys.platform == "linux":  # on Windows there is no library without a name
        with suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)


def default_threads(*, overlapping: bool = False) -> int:
    """Threads for one network: half the cores that this process may use, at most four, and at least two if there are
    and the networks take turns. Where they overlap, in processes of their own, a second thread on two cores takes from
    the others more than it gives: the demo clip, every frame detected, did 90 frames a second with, and 116 without."""
    cores = usable_cores()
    return min(cores, max(1 if overlapping else 2, min(4, cores // 2)))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's model as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (found := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return found[1].strip()
    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def cache_folder() -> Path:
    """The user's cache folder of this program; not created here."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "arnis-stream"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "arnis-stream" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "arnis-stream"


def _load_named(file: Path, data: bytes, how: How, device: Device, backend: Backend, machine: Machine) -> Network:
    """On the device that the user named: never on another."""
    candidates = survey(machine, device, backend, how.precision)
    if not candidates:
        raise UserError(f'model {file}: device = "{device}" does not go with backend = "{backend}"; set that to "auto"')
    there = [candidate.place for candidate in candidates if not candidate.missing]
    failed: dict[Place, Exception] = {}
    for place in there:
        networks, failures = load_each([place], data, how, machine)
        if networks:
            return networks[place]
        failed |= failures
    if device == "cpu":
        place, error = next(iter(failed.items()))
        raise _cannot_load(file, place, error)
    reasons = [candidate.why() for candidate in candidates if candidate.missing]
    reasons += [f"{place}: {reason_of(error)}" for place, error in failed.items()]
    mend = next((candidate.mend for candidate in candidates if candidate.mend), "look after its driver and libraries")
    raise UserError(
        f'model {file}: device = "{device}" cannot be used: {"; ".join(reasons)}; {mend}, or set device = "auto"'
    )


def _load_quickest(file: Path, data: bytes, how: How, device: Device, backend: Backend, machine: Machine) -> Network:
    """As remembered, or found out now."""
    name = file.parent.name
    memory = how.cache / f"runtime-{_cache_key(data, how, device, backend)}.json"
    machine = msgspec.structs.replace(machine, load=_unless_fatal(machine.load, memory.stem))
    if remembered := _recall(memory):
        networks, failed = load_each([remembered.place], data, how, machine)
        if networks:
            log.info("%s runs on %s, as remembered", name, remembered)
            return networks[remembered.place]
        reason = reason_of(failed[remembered.place])
        log.warning("%s no longer runs on %s (%s): the choice is made anew", name, remembered.place, reason)
    candidates = survey(machine, device, backend, how.precision)
    try:
        chosen = choose(candidates, data, how, machine)
    except CannotLoad as error:
        raise _cannot_load(file, error.place, error) from error
    for place, reason in chosen.failures.items():
        spared = f'backend = "{chosen.network.backend}"' if place.device == "cpu" else 'device = "cpu"'
        log.warning("%s cannot run on %s: %s; %s leaves it untried", name, place, reason, spared)
    log.info("%s runs on %s", name, chosen.decision)
    # What failed may be mended any time, and what was timed on a busy machine may be wrong.
    if chosen.steady and not chosen.failures:
        _remember(memory, chosen.decision)
    return chosen.network


def _unless_fatal(load: Loader, name: str) -> Loader:
    """`load`, which leaves out once what crashed or hung the process before: a bad driver would end every restart."""
    fatal: set[Place] = set()

    def load_marked(place: Place, data: bytes, how: How) -> Network:
        if place.device == "cpu":
            return load(place, data, how)
        # One mark for each process: a replica of this worker may try the same at the same time.
        for left in how.cache.glob(f"trying-{name}-{place.key}-*"):
            if not _is_tried_now(left):
                fatal.add(place)
                left.unlink(missing_ok=True)
        mark = how.cache / f"trying-{name}-{place.key}-{os.getpid()}"
        if place in fatal:
            raise NotThere("the process that tried it last did not survive that")
        with suppress(OSError):  # without a cache nobody knows
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        try:
            return load(place, data, how)
        finally:
            with suppress(OSError):
                mark.unlink()

    return load_marked


def _is_tried_now(mark: Path) -> bool:
    """Whether the mark is of another process that still runs."""
    pid = int(mark.name.rpartition("-")[2])
    return os.name == "posix" and pid != os.getpid() and process_exists(pid)


def _cannot_load(file: Path, place: Place, error: Exception) -> UserError:
    return UserError(f"{place.runtime} cannot load the model {file}: {reason_of(error)}; export it anew")


def _cache_key(data: bytes, *what: object) -> str:
    digest = hashlib.sha256(hashlib.sha256(data).digest())
    digest.update(repr((what, [_version(name) for name in PACKAGES], cpu_name(), os.cpu_count(), hardware())).encode())
    return digest.hexdigest()[:24]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _recall(path: Path) -> Decision | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Decision)
    except OSError:  # mostly as there is none yet; of a folder that may not be entered `_remember` tells
        return None
    except msgspec.DecodeError:
        log.warning("the remembered choice of runtime in %s is damaged and is made anew", path)
        return None


def _remember(path: Path, decision: Decision) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(msgspec.json.encode(decision))
        os.replace(stream.name, path)
    except OSError as error:
        log.warning("the choice of runtime cannot be remembered in %s (%s); it is made anew at each start", path, error)
