"""Runs ONNX files on ONNX Runtime or OpenVINO behind one call, or on whichever is faster here (`auto`).

Only the runtime that is used gets imported, so that a restarted worker is back at once. `auto` times both once and
remembers the answer in the user's cache folder, keyed by everything that could change it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from engine.clock import NS_PER_MS, now_ns
from engine.errors import UserError

Backend = Literal["auto", "onnxruntime", "openvino"]
Device = Literal["cpu", "gpu"]
Precision = Literal["f32", "bf16", "f16"]

RUNTIMES: tuple[Literal["onnxruntime", "openvino"], ...] = ("onnxruntime", "openvino")
TRIAL_RUNS = 10
WORTHWHILE = 0.9
"""OpenVINO must need less than this share of ONNX Runtime's time to be chosen: it takes 0.5 s longer to start."""

log = logging.getLogger(__name__)


class TensorSpec(msgspec.Struct, frozen=True):
    """Name, dtype and shape of an input or output; 0 in `shape` is a free dimension."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Network(msgspec.Struct, frozen=True):
    """A loaded network; call it with one array per input and get one new array per output."""

    run: Callable[[Sequence[np.ndarray]], list[np.ndarray]]
    backend: str
    device: str
    """What it really runs on, for people: `CPU, 2 threads, f32`."""
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    """The file's own key-value pairs."""

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Outputs in the file's order; `inputs` C-contiguous, of the dtypes and shapes that `self.inputs` names."""
        return self.run(inputs)

    def describe(self) -> str:
        return f"{self.backend} {self.version} on {self.device}"


def load_network(
    model_file: Path,
    backend: Backend = "auto",
    threads: int = 0,
    precision: Precision = "f32",
    device: Device = "cpu",
    shapes: Sequence[tuple[int, ...]] | None = None,
) -> Network:
    """Load an ONNX file; `threads` 0 takes `default_threads()`, `shapes` are the input shapes that `auto` is to time.

    The file is read once and handed over as bytes, so a file that refers to data outside itself is refused.
    Raises UserError when the file is missing or broken, or the runtime or device is not there.
    """
    if not model_file.is_file():
        raise UserError(f"model file {model_file} does not exist; give the path of an ONNX file")
    data = model_file.read_bytes()
    threads = threads or default_threads()
    installed = [name for name in RUNTIMES if find_spec(name)]
    if backend == "auto" and len(installed) == 2:
        return _load_faster(model_file, data, threads, precision, device, shapes)
    chosen = backend if backend != "auto" else installed[0] if installed else "onnxruntime"
    if chosen not in installed:
        raise UserError(f"the runtime {chosen} is not installed; run `pip install {chosen}` or choose another backend")
    return _load(chosen, model_file, data, threads, precision, device)


def default_threads() -> int:
    """Threads for one network: half the cores that this process may use, from one to four.

    The networks of body and stick work at the same time, on frames that follow one another. With two threads instead of
    one each answers a fifth sooner, but costs half as much again of a processor that has none to spare.
    """
    return max(1, min(4, usable_cores() // 2))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """The user's cache folder of this program; not created here."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "arnis-stream"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "arnis-stream" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "arnis-stream"


def _load(backend: str, file: Path, data: bytes, threads: int, precision: Precision, device: Device) -> Network:
    load = _load_openvino if backend == "openvino" else _load_onnxruntime
    try:
        return load(data, threads, precision, device)
    except UserError as error:
        raise UserError(f"model {file}: {error}") from None
    except Exception as error:  # the runtimes' own error types share no base class but this
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(f"{backend} cannot load the model {file}: {reason[0]}; export it anew") from error


def _load_onnxruntime(data: bytes, threads: int, precision: Precision, device: Device) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning keeps the cores busy for more than a second after each call, and other processes need them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = "CUDAExecutionProvider" if device == "gpu" else "CPUExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise UserError('this ONNX Runtime has no CUDA; install onnxruntime-gpu or set device = "cpu"')
    session = onnxruntime.InferenceSession(data, options, providers=[wanted])
    if session.get_providers()[0] != wanted:
        raise UserError('ONNX Runtime could not use the GPU; check the CUDA libraries or set device = "cpu"')
    names = [item.name for item in session.get_inputs()]

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return Network(
        run=run,
        backend="onnxruntime",
        device=_device_text(device.upper(), threads, "f32"),
        version=onnxruntime.__version__,
        inputs=tuple(_onnxruntime_spec(item) for item in session.get_inputs()),
        outputs=tuple(_onnxruntime_spec(item) for item in session.get_outputs()),
        metadata=dict(session.get_modelmeta().custom_metadata_map),
    )


def _onnxruntime_spec(item: Any) -> TensorSpec:
    kind = item.type.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
    return TensorSpec(item.name, dtype, tuple(size if isinstance(size, int) else 0 for size in item.shape))


def _load_openvino(data: bytes, threads: int, precision: Precision, device: Device) -> Network:
    import openvino

    core = openvino.Core()
    if device == "gpu" and not any(name.startswith("GPU") for name in core.available_devices):
        raise UserError('OpenVINO finds no GPU; install the GPU driver or set device = "cpu"')
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        # Left alone, it picks bf16 where the CPU has it, which moves keypoints by pixels.
        "INFERENCE_PRECISION_HINT": precision,
    }
    if device == "cpu":
        settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    model = core.read_model(model=io.BytesIO(data))
    request = core.compile_model(model, device.upper(), settings).create_infer_request()
    count = len(model.outputs)

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        request.infer(list(inputs), share_inputs=True)
        return [request.get_output_tensor(i).data.copy() for i in range(count)]

    return Network(
        run=run,
        backend="openvino",
        device=_device_text(device.upper(), threads, precision),
        version=openvino.__version__.split("-")[0],
        inputs=tuple(_openvino_spec(port) for port in model.inputs),
        outputs=tuple(_openvino_spec(port) for port in model.outputs),
        metadata=_openvino_metadata(model),
    )


def _openvino_spec(port: Any) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else 0 for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()), shape)


def _openvino_metadata(model: Any) -> dict[str, str]:
    pairs: Any = dict(model.get_rt_info()).get("framework", {})
    pairs = getattr(pairs, "value", pairs)  # wrapped in some releases, plain in others
    return {key: str(getattr(value, "value", value)) for key, value in pairs.items()}


def _device_text(device: str, threads: int, precision: str) -> str:
    count = "" if device == "GPU" else f", {threads} thread{'s' if threads > 1 else ''}"
    return f"{device}{count}, {precision}"


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    """What the cache remembers of one trial."""

    backend: Literal["onnxruntime", "openvino"]
    milliseconds: dict[str, float]


def _load_faster(
    file: Path,
    data: bytes,
    threads: int,
    precision: Precision,
    device: Device,
    shapes: Sequence[tuple[int, ...]] | None,
) -> Network:
    remembered = cache_folder() / f"runtime-{_cache_key(data, threads, precision, device, shapes)}.json"
    if remembered.is_file():
        try:
            choice = msgspec.json.decode(remembered.read_bytes(), type=_Choice)
            return _load(choice.backend, file, data, threads, precision, device)
        except msgspec.DecodeError:
            log.warning("the remembered choice of runtime in %s is damaged and is made anew", remembered)
    networks = _load_each(file, data, threads, precision, device)
    if len(networks) == 1:
        return next(iter(networks.values()))
    choice = _choose(networks, shapes)
    times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in choice.milliseconds.items())
    log.info("%s runs on %s, the better of the two here (%s)", file.parent.name, choice.backend, times)
    _remember(remembered, choice)
    return networks[choice.backend]


def _load_each(file: Path, data: bytes, threads: int, precision: Precision, device: Device) -> dict[str, Network]:
    """The file on each runtime that can load it; raises UserError when none can."""
    networks: dict[str, Network] = {}
    failures = []
    for name in RUNTIMES:
        try:
            networks[name] = _load(name, file, data, threads, precision, device)
        except UserError as error:
            failures.append(error)
    if not networks:
        raise failures[0]
    for failure in failures:
        log.warning("%s; the other runtime is used", failure)
    return networks


def _choose(networks: Mapping[str, Network], shapes: Sequence[tuple[int, ...]] | None) -> _Choice:
    """Time both by turns, so that a busy moment hits both alike, and compare the least disturbed run of each."""
    generator = np.random.default_rng(0)
    inputs = [
        generator.integers(0, 255, [size or 1 for size in shape]).astype(spec.dtype)
        for spec, shape in zip(
            networks["onnxruntime"].inputs,
            shapes or [spec.shape for spec in networks["onnxruntime"].inputs],
            strict=True,
        )
    ]
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(TRIAL_RUNS + 2):
        for name, network in networks.items():
            started = now_ns()
            network(*inputs)
            if turn >= 2:
                times[name].append((now_ns() - started) / NS_PER_MS)
    best = {name: round(min(values), 3) for name, values in times.items()}
    faster = best["openvino"] < WORTHWHILE * best["onnxruntime"]
    return _Choice("openvino" if faster else "onnxruntime", best)


def _cache_key(data: bytes, *what: object) -> str:
    digest = hashlib.sha256(hashlib.sha256(data).digest())
    digest.update(repr((what, [_version(name) for name in RUNTIMES], _processor())).encode())
    return digest.hexdigest()[:24]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor()} x{os.cpu_count()}"


def _remember(path: Path, choice: _Choice) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(msgspec.json.encode(choice))
        os.replace(stream.name, path)
    except OSError as error:
        log.warning("the choice of runtime cannot be remembered in %s (%s); it is made anew at each start", path, error)
