"""Loads an ONNX file on one place: one device of one runtime. `stages.devices` says which there are.

Only the runtime that is used gets imported. A network that comes back from anywhere but the CPU has done one inference
there: a list of devices says what a runtime was built with, only an inference says what works.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

RuntimeName = Literal["onnxruntime", "openvino"]
Precision = Literal["f32", "bf16", "f16"]
Device = Literal[
    "auto", "tensorrt", "cuda", "migraphx", "openvino-gpu", "openvino-npu", "directml", "coreml", "cpu"
]  # fmt: skip


class Place(msgspec.Struct, frozen=True):
    """One device of one runtime."""

    device: Device
    """As settings call it."""
    runtime: RuntimeName
    title: str
    """For people."""
    key: str
    """What the runtime calls it: ONNX Runtime's provider, OpenVINO's device."""

    def __str__(self) -> str:
        return f"{self.runtime} {self.title}"


class How(msgspec.Struct, frozen=True):
    """How a network is to be run."""

    threads: int
    """On the CPU."""
    precision: Precision
    cache: Path
    """Folder in which runtimes may keep what they compile for other devices than the CPU."""
    shapes: tuple[tuple[int, ...], ...] | None = None
    """Of the inputs of a trial, for what is free in the file; None: 1 for each free dimension."""


class TensorSpec(msgspec.Struct, frozen=True):
    """Name, dtype and shape of an input or output; 0 in `shape` is a free dimension."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Network(msgspec.Struct, frozen=True):
    """A loaded network; call it with one array per input and get one new array per output."""

    run: Callable[[Sequence[np.ndarray]], list[np.ndarray]]
    backend: RuntimeName
    device: str
    """What it really runs on, for people: `CPU, 2 threads, f32`."""
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    """The file's own key-value pairs."""

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Outputs in the file's order; `inputs` of the dtypes and shapes that `self.inputs` names."""
        return self.run(inputs)

    def describe(self) -> str:
        return f"{self.backend} {self.version} on {self.device}"


Loader = Callable[[Place, bytes, How], Network]
"""As `load`."""


class NotThere(Exception):
    """The place can't be used, or the runtime computed elsewhere; the text says why."""


def load(place: Place, data: bytes, how: How) -> Network:
    """The ONNX file `data` on this place; raises NotThere, or whatever the runtime raises."""
    return (_load_openvino if place.runtime == "openvino" else _load_onnxruntime)(place, data, how)


def trial_inputs(specs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]] | None = None) -> list[np.ndarray]:
    """Noise for each input, always the same; free dimensions are 1 unless `shapes`, of as many, says otherwise."""
    generator = np.random.default_rng(0)
    own = [spec.shape for spec in specs]
    if shapes is None or list(map(len, shapes)) != list(map(len, own)):
        shapes = own
    sizes = [[fixed or size or 1 for fixed, size in zip(*both, strict=True)] for both in zip(own, shapes, strict=True)]
    return [generator.integers(0, 255, size).astype(spec.dtype) for spec, size in zip(specs, sizes, strict=True)]


def _load_onnxruntime(place: Place, data: bytes, how: How) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = how.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning keeps the cores busy for more than a second after each call, and other processes need them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if place.device == "cpu":
        session = onnxruntime.InferenceSession(data, options, providers=[place.key])
        specs = tuple(onnxruntime_spec(item) for item in session.get_inputs())
        device = _cpu_text(how.threads, "f32")
    else:
        session, specs, shared = _proven_session(place, data, options, how)
        device = f"{place.title}, f32{shared}"
    names = [spec.name for spec in specs]

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return Network(
        run=run,
        backend="onnxruntime",
        device=device,
        version=onnxruntime.__version__,
        inputs=specs,
        outputs=tuple(onnxruntime_spec(item) for item in session.get_outputs()),
        metadata=dict(session.get_modelmeta().custom_metadata_map),
    )


def _proven_session(place: Place, data: bytes, options: Any, how: How) -> tuple[Any, tuple[TensorSpec, ...], str]:
    """A session that has run once, its inputs, and how much of the network runs on the CPU all the same.

    ONNX Runtime takes the CPU, without an error, for whatever a provider cannot or will not run: only the profile of
    an inference tells.
    """
    import onnxruntime

    _prepare(place, options)
    # A session that fails may keep its profile open, and Windows does not delete open files.
    with tempfile.TemporaryDirectory(prefix="arnis-profile-", ignore_cleanup_errors=True) as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trial")
        # With its own fallback it would print about the failure to standard output, and go on with the CPU.
        session = onnxruntime.InferenceSession(
            data, options, providers=providers_for(place, how, onnxruntime.get_available_providers()), enable_fallback=0
        )
        specs = tuple(onnxruntime_spec(item) for item in session.get_inputs())
        inputs = trial_inputs(specs, how.shapes)
        try:
            session.run(None, {spec.name: array for spec, array in zip(specs, inputs, strict=True)})
        finally:
            profile = Path(session.end_profiling())
        used = providers_used(json.loads(profile.read_text(encoding="utf-8")))
    if session.get_providers()[0] != place.key or used and not used[place.key]:
        fell_to = used.most_common(1)[0][0] if used else session.get_providers()[0]
        reason = f"ONNX Runtime computed on {fell_to} instead; its libraries or driver are missing"
        raise NotThere(f"{reason}, or it has no operation of this network")
    on_cpu = used["CPUExecutionProvider"]
    return session, specs, f", {on_cpu} of {used.total()} operations on the CPU" if on_cpu else ""


def _prepare(place: Place, options: Any) -> None:
    """What a provider needs before its session."""
    import onnxruntime

    if place.device in ("tensorrt", "cuda"):
        # TensorRT has no option for it: TF32 keeps ten bits of the mantissa, which moves keypoints.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        if hasattr(onnxruntime, "preload_dlls"):  # finds CUDA's libraries where pip put them
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()
    if place.device == "directml":  # it can't reuse memory by pattern, its manual says
        options.enable_mem_pattern = False


def providers_for(place: Place, how: How, available: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Providers with their options, best first; all compute in 32-bit floats."""
    cuda = ("CUDAExecutionProvider", {"use_tf32": "0"})
    match place.device:
        case "tensorrt":
            # Building an engine takes up to a minute, so it is kept.
            how.cache.mkdir(parents=True, exist_ok=True)
            kept = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(how.cache)}
            return [(place.key, kept), *([cuda] if cuda[0] in available else [])]
        case "cuda":
            return [cuda]
        case "coreml":  # the Neural Engine, and the GPU in the older format, know 16-bit floats only
            return [(place.key, {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"})]
    return [(place.key, {})]


def providers_used(profile: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How many operations of a profiled inference each provider computed."""
    done = [event["args"].get("provider") for event in profile if event.get("cat") == "Node" and "args" in event]
    return Counter(provider for provider in done if provider)


def onnxruntime_spec(item: Any) -> TensorSpec:
    """Of an input or an output (`onnxruntime.NodeArg`); 0 in the shape for what is free."""
    kind = item.type.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
    return TensorSpec(item.name, dtype, tuple(size if isinstance(size, int) else 0 for size in item.shape))


def _load_openvino(place: Place, data: bytes, how: How) -> Network:
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        # Left alone, it picks bf16 where the CPU has it, and f16 on a GPU, which moves keypoints by pixels.
        "INFERENCE_PRECISION_HINT": how.precision,
    }
    if place.device == "cpu":
        settings |= {"INFERENCE_NUM_THREADS": how.threads, "NUM_STREAMS": 1}
    else:
        settings["CACHE_DIR"] = str(how.cache)
    model = core.read_model(model=io.BytesIO(data))
    compiled = core.compile_model(model, place.key, settings)
    request = compiled.create_infer_request()
    count = len(model.outputs)

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        # `infer(inputs)` would look closely at each array, and copy all outputs once more, in a tenth of a millisecond.
        arrays = [np.ascontiguousarray(array) for array in inputs]
        for i, array in enumerate(arrays):
            request.set_input_tensor(i, openvino.Tensor(array, shared_memory=array.flags.writeable))
        request.infer(share_outputs=True)
        return [request.get_output_tensor(i).data.copy() for i in range(count)]

    on_cpu = place.device == "cpu"
    network = Network(
        run=run,
        backend="openvino",
        device=_cpu_text(how.threads, _precision_of(compiled)) if on_cpu else f"{place.key}, {how.precision}",
        version=openvino.__version__.split("-")[0],
        inputs=tuple(_openvino_spec(port) for port in model.inputs),
        outputs=tuple(_openvino_spec(port) for port in model.outputs),
        metadata=_openvino_metadata(model),
    )
    if not on_cpu:
        network(*trial_inputs(network.inputs, how.shapes))
    return network


def _precision_of(compiled: Any) -> str:
    """What it computes in: f32 on a processor that has not what was asked for."""
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


def _openvino_spec(port: Any) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else 0 for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()), shape)


def _openvino_metadata(model: Any) -> dict[str, str]:
    pairs: Any = dict(model.get_rt_info()).get("framework", {})
    pairs = getattr(pairs, "value", pairs)  # wrapped in some releases, plain in others
    return {key: str(getattr(value, "value", value)) for key, value in pairs.items()}


def _cpu_text(threads: int, precision: str) -> str:
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}, {precision}"
