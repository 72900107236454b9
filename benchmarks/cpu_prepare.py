"""Make the file of one configuration of `cpu_kernels.py`, in a process of its own.

python benchmarks/cpu_prepare.py WHAT NETWORK FOLDER SAMPLES; WHAT is a row of PREPARE. Files are FOLDER/NETWORK-...
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BATCHES = (1, 8)
REAL = ("efficientnet-lite0", "resnet20")
"""Networks with trained weights get the recipe that tunes them."""
REDUCED = "-reduce-range"
"""Without VNNI, what `int8` is exact and fast with (docs/passes.md): weights within +-64."""
SAME_DB = 20.0
"""The LiteRT file holds the integers of ONNX Runtime's model; rounding and the mean differ, which costs no more."""


@dataclass(frozen=True)
class Job:
    """One network in a folder; `samples` to calibrate on."""

    network: str
    folder: Path
    samples: int

    def path(self, what: str) -> str:
        return str(self.folder / f"{self.network}-{what}")

    def calibration(self) -> np.ndarray:
        found: np.ndarray = np.load(self.path("calibration.npy"))
        return found


def float_model(job: Job) -> None:
    """Export to ONNX with a dynamic batch; save calibration data and the inputs to time with."""
    import torch
    from networks import NETWORKS

    module, data = NETWORKS[job.network]()
    example, shapes = (torch.from_numpy(data[:2]),), [{0: torch.export.Dim("batch")}]
    options = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False, "verbose": False}
    torch.onnx.export(module, example, job.path("model.onnx"), **options)
    np.save(job.path("calibration.npy"), data[: job.samples])
    for batch in BATCHES:
        np.save(job.path(f"x{batch}.npy"), np.resize(data, (batch, *data.shape[1:])))


def onnxruntime_int8(job: Job) -> None:
    """quantize_static."""
    from peers import quantize_onnxruntime

    quantize_onnxruntime(job.path("model.onnx"), job.calibration(), job.path("ort.onnx"))


def openvino_int8(job: Job) -> None:
    """NNCF, preset MIXED, all 8 bits of the weights in use."""
    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    quantized = nncf.quantize(
        ov.Core().read_model(job.path("model.onnx")),
        nncf.Dataset([x[None] for x in job.calibration()]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=job.samples,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE),
    )
    ov.save_model(quantized, job.path("openvino.xml"))


def litert_int8(job: Job) -> None:
    """The integers of ONNX Runtime's model in a LiteRT file for each batch size; checked against that model."""
    import onnx
    from cpu_worker import litert
    from models import sqnr_db
    from peers import run_onnxruntime
    from tflite_writer import tflite

    model, x = onnx.load(job.path("ort.onnx")), np.load(job.path("x1.npy"))
    for batch in BATCHES:
        Path(job.path(f"litert-{batch}.tflite")).write_bytes(tflite(model, batch))
    got = litert(job.path("litert-1.tflite"), x, 1)()
    same = sqnr_db(run_onnxruntime(job.path("ort.onnx"), x), got)
    if same < SAME_DB:
        raise SystemExit(f"LiteRT computes something else: {same:.1f} dB against ONNX Runtime's int8 model")


def ours(job: Job) -> None:
    """mulshift, integer form, verified; and the QDQ form of the same compilation."""
    import mulshift
    from mulshift import kernels
    from mulshift.ir import Level

    recipe = ("int8" if job.network in REAL else "int8-fast") + ("" if kernels.instruction_set() != "avx2" else REDUCED)
    data = job.path("model.onnx"), job.path("calibration.npy")
    compiled = mulshift.compile(*data, recipe=recipe, output=job.path("ours"), verify_samples=1)
    mulshift.lower(compiled.levels[Level.QDQ], "onnxruntime-qdq").save(Path(job.path("ours-qdq")))


PREPARE: dict[str, Callable[[Job], None]] = {
    "float": float_model,
    "ort int8": onnxruntime_int8,
    "openvino int8": openvino_int8,
    "litert int8": litert_int8,
    "ours": ours,
}
"""In this order: each may read what those before it wrote."""


def main(what: str, network: str, folder: str, samples: str) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    PREPARE[what](Job(network, Path(folder), int(samples)))


if __name__ == "__main__":
    main(*sys.argv[1:])
