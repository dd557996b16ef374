"""INT8 after training, by NNCF."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engine.errors import UserError


def write_int8(
    network: Any,
    samples: Sequence[Mapping[str, np.ndarray]],
    out: Path,
    float_types: Sequence[str],
    float_names: Sequence[str] = (),
) -> None:
    """Write the INT8 form of an ONNX model, calibrated on `samples` of its inputs by name; operators of some types, and
    some by their names, stay FP32.

    Raises UserError when NNCF is not installed.
    """
    try:
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters
    except ModuleNotFoundError:
        raise UserError("--int8 needs nncf, which is not installed; run `pip install '.[train]'`") from None
    # Not by `nncf.set_log_level`, which sets its handlers too, whoever put them there.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    quantised = nncf.quantize(
        network,
        nncf.Dataset(list(samples)),
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(types=list(float_types), names=list(float_names), validate=False),
        # ONNX Runtime knows one scale for all channels of an activation; NNCF would give depthwise layers one each.
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_quantization_params=QuantizationParameters(per_channel=False)
        ),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(quantised, out)
