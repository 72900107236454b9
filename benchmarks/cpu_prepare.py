"""Make the folder of one configuration of `cpu_kernels.py`, in a process of its own.

python benchmarks/cpu_prepare.py WHAT NETWORK SAMPLES; WHAT is a row of PREPARE. Prints the folder, which stays in
build/ for the next run (`cache.py`). All start from the same export and see the same SAMPLES.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cache import cached, ours, place, text_of

BATCHES = (1, 8)
REAL = ("efficientnet-lite0", "resnet20")
"""Networks with trained weights get the recipe that tunes them."""
REDUCED = "-reduce-range"
"""Without VNNI, what `int8` is exact and fast with (docs/passes.md): weights within +-64."""
SAME_DB = 20.0
"""The LiteRT file holds the integers of ONNX Runtime's model; rounding and the mean differ, which costs no more."""


@dataclass(frozen=True)
class Job:
    """One network; `samples` to calibrate on."""

    network: str
    samples: int

    def made(self, what: str) -> Path:
        """The folder of a row of PREPARE."""
        return cached(*self.where(what), lambda folder: PREPARE[what](self, folder))

    def where(self, what: str) -> tuple[str, object]:
        """Name and key of what `cached` keeps."""
        name = f"cpu-{what.replace(' ', '-')}-{self.network}"
        if what == "float":
            return name, text_of("networks", "models", "cpu_prepare")
        own = (ours(), recipe_of(self.network)) if what == "ours" else text_of("peers", "tflite_writer")
        return name, [place(*self.where("float")).name, self.samples, own]

    def model(self) -> str:
        return str(self.made("float") / "model.onnx")

    def calibration(self) -> np.ndarray:
        """[samples, 3, H, W] float32."""
        found: np.ndarray = np.load(self.made("float") / "calibration.npy")[: self.samples]
        return found


def float_model(job: Job, folder: Path) -> None:
    """Export to ONNX with a dynamic batch; save calibration data and the inputs to time with."""
    import torch
    from networks import NETWORKS

    module, data = NETWORKS[job.network]()
    example, shapes = (torch.from_numpy(data[:2]),), [{0: torch.export.Dim("batch")}]
    options = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False, "verbose": False}
    torch.onnx.export(module, example, folder / "model.onnx", **options)
    np.save(folder / "calibration.npy", data)
    for batch in BATCHES:
        np.save(folder / f"x{batch}.npy", np.resize(data, (batch, *data.shape[1:])))


def onnxruntime_int8(job: Job, folder: Path) -> None:
    """quantize_static."""
    from peers import quantize_onnxruntime

    quantize_onnxruntime(job.model(), job.calibration(), str(folder / "model.onnx"))


def openvino_int8(job: Job, folder: Path) -> None:
    """NNCF, preset MIXED, all 8 bits of the weights in use."""
    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    quantized = nncf.quantize(
        ov.Core().read_model(job.model()),
        nncf.Dataset([x[None] for x in job.calibration()]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=job.samples,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE),
    )
    ov.save_model(quantized, folder / "model.xml")


def litert_int8(job: Job, folder: Path) -> None:
    """The integers of ONNX Runtime's model in a LiteRT file for each batch size; checked against that model."""
    import onnx
    from cpu_worker import litert
    from models import sqnr_db
    from peers import run_onnxruntime
    from tflite_writer import tflite

    quantized = str(job.made("ort int8") / "model.onnx")
    model, x = onnx.load(quantized), np.load(job.made("float") / "x1.npy")
    for batch in BATCHES:
        (folder / f"{batch}.tflite").write_bytes(tflite(model, batch))
    got = litert(str(folder / "1.tflite"), x, 1)()
    same = sqnr_db(run_onnxruntime(quantized, x), got)
    if same < SAME_DB:
        raise SystemExit(f"LiteRT computes something else: {same:.1f} dB against ONNX Runtime's int8 model")


def integers(job: Job, folder: Path) -> None:
    """mulshift, integer form, verified; and the QDQ form of the same compilation."""
    import mulshift
    from mulshift.ir import Level

    np.save(folder / "calibration.npy", job.calibration())
    options = {"recipe": recipe_of(job.network), "output": str(folder / "integer"), "verify_samples": 1}
    compiled = mulshift.compile(job.model(), str(folder / "calibration.npy"), **options)
    mulshift.lower(compiled.levels[Level.QDQ], "onnxruntime-qdq").save(folder / "qdq")


def recipe_of(network: str) -> str:
    """The fastest one that is exact on this machine."""
    from mulshift import kernels

    return ("int8" if network in REAL else "int8-fast") + ("" if kernels.instruction_set() != "avx2" else REDUCED)


PREPARE: dict[str, Callable[[Job, Path], None]] = {
    "float": float_model,
    "ort int8": onnxruntime_int8,
    "openvino int8": openvino_int8,
    "litert int8": litert_int8,
    "ours": integers,
}
"""In this order: each may read what those before it wrote."""


def main(what: str, network: str, samples: str) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    sys.stdout.write(f"{Job(network, int(samples)).made(what)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
