"""What other tools make of the same model and calibration data: one method a process, so that none disturbs another.

python benchmarks/peers.py METHOD MODEL.onnx CALIBRATION.npy SCORED.npy OUTPUTS.npy
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def run_onnxruntime(model: str, scored: np.ndarray, batch: int = 1) -> np.ndarray:
    """First output of an ONNX model on stock ONNX Runtime; exact u8 x s8 products also without VNNI."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: scored[i : i + batch]})[0] for i in range(0, len(scored), batch)])


def quantize_onnxruntime(model: str, calibration: np.ndarray, quantized: str, method: str = "MinMax") -> None:
    """ONNX Runtime quantize_static in the form that it runs fastest: QDQ, u8 activations, s8 weights per channel."""
    import onnx
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load(model, load_external_data=False).graph.input[0].name

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows: Iterator[dict[str, np.ndarray]] = iter({name: x[None]} for x in calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = f"{folder}/prepared.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        q.quantize_static(
            prepared,
            quantized,
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            calibrate_method=getattr(q.CalibrationMethod, method),
        )


def onnxruntime_static(method: str) -> Callable[[str, np.ndarray, np.ndarray], np.ndarray]:
    """`quantize_onnxruntime` with one of its methods to find ranges."""

    def run(model: str, calibration: np.ndarray, scored: np.ndarray) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            quantized = f"{folder}/quantized.onnx"
            quantize_onnxruntime(model, calibration, quantized, method)
            return run_onnxruntime(quantized, scored)

    return run


def nncf_onnx(fast: bool) -> Callable[[str, np.ndarray, np.ndarray], np.ndarray]:
    """NNCF on the ONNX model, preset MIXED, run by ONNX Runtime; `fast` chooses between its two bias corrections."""

    def run(model: str, calibration: np.ndarray, scored: np.ndarray) -> np.ndarray:
        import nncf
        import onnx

        nncf.set_log_level(logging.ERROR)
        network = onnx.load(model)
        name = network.graph.input[0].name
        quantized = nncf.quantize(
            network,
            nncf.Dataset([{name: x[None]} for x in calibration]),
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=fast,
            subset_size=len(calibration),
        )
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(quantized, f"{folder}/quantized.onnx")
            return run_onnxruntime(f"{folder}/quantized.onnx", scored)

    return run


def nncf_openvino(fast: bool) -> Callable[[str, np.ndarray, np.ndarray], np.ndarray]:
    """NNCF on OpenVINO, preset MIXED; `fast` chooses between its two bias corrections."""

    def run(model: str, calibration: np.ndarray, scored: np.ndarray) -> np.ndarray:
        import nncf
        import openvino as ov

        nncf.set_log_level(logging.ERROR)
        core = ov.Core()
        network = core.read_model(model)
        dataset = nncf.Dataset([x[None] for x in calibration])
        quantized = nncf.quantize(
            network,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=fast,
            subset_size=len(calibration),
        )
        compiled = core.compile_model(quantized, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return np.concatenate([compiled(x[None])[0] for x in scored])

    return run


METHODS: dict[str, Callable[[str, np.ndarray, np.ndarray], np.ndarray]] = {
    "onnxruntime MinMax": onnxruntime_static("MinMax"),
    "onnxruntime Percentile": onnxruntime_static("Percentile"),
    "nncf fast bias correction": nncf_onnx(fast=True),
    "nncf full bias correction": nncf_onnx(fast=False),
    "nncf on openvino": nncf_openvino(fast=True),
    "float": lambda model, _calibration, scored: run_onnxruntime(model, scored),
}


def main(arguments: list[str]) -> Any:
    method, model, calibration, scored, out = arguments
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    outputs = METHODS[method](model, np.load(calibration), np.load(scored))
    np.save(Path(out), outputs)


if __name__ == "__main__":
    main(sys.argv[1:])
