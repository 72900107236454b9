"""Make the folder of one configuration of `speed.py`, in a process of its own.

python benchmarks/transformer/prepare.py WHAT NETWORK SAMPLES; WHAT is "float" or a row of PREPARE. Prints the
folder, which stays in build/ for the next run; with "found", JSON of all that is there already. All start from the same
export and see the same SAMPLES.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import here
import numpy as np
from cache import cached, ours, place, text_of
from recipe import QUICK_OPTIONS, recipe_name, varied

MODEL, DATA, FOUND = "model.onnx", "data.npz", "found"
WEIGHT_BLOCKS = (32, 64)
"""Of MatMulNBits: SmolLM2's 576 and 1536 are multiples of both."""


@dataclass(frozen=True)
class Job:
    """One network; `samples` to calibrate on."""

    network: str
    samples: int

    def exported(self) -> Path:
        """The folder of the float model and its data."""
        return cached(*where(self, "float"), self._export)

    def _export(self, folder: Path) -> None:
        import torch
        from nets import NETWORKS

        network = NETWORKS[self.network]()
        example = tuple(torch.from_numpy(v[0]) for v in network.data.values())
        names = {"input_names": list(network.data), "output_names": ["y"]}
        with torch.no_grad():
            torch.onnx.export(
                network.module, example, folder / MODEL, dynamo=True, external_data=False, verbose=False, **names
            )
        np.savez(folder / DATA, **network.data)

    def model(self) -> str:
        return str(self.exported() / MODEL)

    def calibration(self) -> list[dict[str, np.ndarray]]:
        with np.load(self.exported() / DATA) as data:
            return [{k: data[k][i] for k in data.files} for i in range(self.samples)]


def onnxruntime_static(products: bool) -> Callable[[Job, Path], None]:
    """quantize_static: QDQ, u8 x s8 per channel; of all operators, or of products with weights and activations only."""

    def make(job: Job, folder: Path) -> None:
        from onnxruntime import quantization as q
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(q.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.rows: Iterator[dict[str, np.ndarray]] = iter(job.calibration())

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.rows, None)

        prepared = str(folder / "prepared.onnx")
        quant_pre_process(job.model(), prepared, skip_symbolic_shape=True)
        q.quantize_static(
            prepared,
            folder / MODEL,
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"] if products else None,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )
        Path(prepared).unlink()

    return make


def onnxruntime_dynamic(job: Job, folder: Path) -> None:
    """quantize_dynamic: ranges of activations found as it runs; no convolutions, which it runs slower than float."""
    import onnx
    from onnxruntime import quantization as q

    model = onnx.load(job.model())
    del model.graph.value_info[:]  # the exporter's shapes of some values contradict those that quantize_dynamic infers
    q.quantize_dynamic(model, folder / MODEL, ["MatMul", "Gemm"], per_channel=True, weight_type=q.QuantType.QInt8)


def openvino_int8(job: Job, folder: Path) -> None:
    """NNCF, preset MIXED, for transformers, all 8 bits of the weights in use."""
    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    quantized = nncf.quantize(
        ov.Core().read_model(job.model()),
        nncf.Dataset(job.calibration()),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=job.samples,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE),
    )
    ov.save_model(quantized, folder / "model.xml")


def weights_only(bits: int, block: int) -> Callable[[Job, Path], None]:
    """MatMulNBits of 8 or 4 bits, one scale for `block` weights, activations in 8 bits too (accuracy level 4)."""

    def make(job: Job, folder: Path) -> None:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        made = MatMulNBitsQuantizer(onnx.load(job.model()), bits, block, is_symmetric=True, accuracy_level=4)
        made.process()
        kinds = [node.op_type for node in made.model.model.graph.node]
        if "MatMul" in kinds or "MatMulNBits" not in kinds:
            raise SystemExit("not every MatMul became a MatMulNBits")
        onnx.save(made.model.model, folder / MODEL)

    return make


def integers(weight_bits: int) -> Callable[[Job, Path], None]:
    """mulshift, integer form; random weights need no tuning, which would not change the operators."""

    def make(job: Job, folder: Path) -> None:
        import mulshift
        from mulshift.ir import Level
        from mulshift.passes.pipeline import Pipeline

        recipe = varied(weight_bits, **QUICK_OPTIONS)
        result = Pipeline(recipe, checked=0).run(mulshift.load(job.model()), job.calibration())
        mulshift.lower(result.levels[Level.INTEGER], "onnxruntime").save(folder)

    return make


PREPARE: dict[str, Callable[[Job, Path], None]] = {
    "ort int8 all": onnxruntime_static(products=False),
    "ort int8 products": onnxruntime_static(products=True),
    "ort int8 dynamic": onnxruntime_dynamic,
    "openvino int8": openvino_int8,
    "ours": integers(8),
    "ours 4 bits": integers(4),
    **{f"nbits {block}": weights_only(8, block) for block in WEIGHT_BLOCKS},
    **{f"nbits4 {block}": weights_only(4, block) for block in WEIGHT_BLOCKS},
}


def where(job: Job, what: str) -> tuple[str, object]:
    """Name and key of what `cached` keeps."""
    if what == "float":
        return f"float-{job.network}", text_of("transformer/nets")
    source = place(*where(job, "float")).name
    key = [
        source,
        job.samples,
        text_of("transformer/prepare", "transformer/recipe"),
        (ours(), recipe_name()) if what.startswith("ours") else "",
    ]
    return f"{what.replace(' ', '-')}-{job.network}", key


def main(what: str, network: str, samples: str) -> None:
    here.quiet()
    job = Job(network, int(samples))
    if what == FOUND:
        places = {name: place(*where(job, name)) for name in ("float", *PREPARE)}
        sys.stdout.write(json.dumps({name: str(folder) for name, folder in places.items() if folder.is_dir()}) + "\n")
        return
    made = job.exported()
    if what != "float":
        made = cached(*where(job, what), lambda folder: PREPARE[what](job, folder))
    sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
