"""Our passes inside somebody else's export: torch's exporter, onnx_ir's Sequential, ONNX Runtime, no `compile`.

python examples/plug_into_export.py
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx_ir.passes import common

from mulshift.passes import PASSES


def network() -> torch.nn.Module:
    """A small convolutional network with random weights."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 10),
    ).eval()


def export(module: torch.nn.Module, x: torch.Tensor) -> ir.Model:
    """The export that was there before: torch gives an onnx_ir model, as every pass here takes it."""
    program = torch.onnx.export(module, (x,), dynamo=True, input_names=["x"], output_names=["y"], verbose=False)
    assert program is not None
    return program.model


def quantize(samples: list[dict[str, np.ndarray]]) -> ir.passes.Sequential:
    """onnx_ir's passes and ours in one sequence."""
    return ir.passes.Sequential(
        common.CommonSubexpressionEliminationPass(),
        PASSES["canonicalize"](),
        PASSES["fold-bn"](),
        PASSES["calibrate"](samples=samples),  # type: ignore[call-arg]
        PASSES["insert-fake-quant"](),
        PASSES["to-integer"](),
        common.RemoveUnusedNodesPass(),
    )


def main() -> None:
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((1, 3, 16, 16), np.float32)} for _ in range(8)]
    module = network()
    model = quantize(samples)(export(module, torch.from_numpy(samples[0]["x"]))).model

    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (integer,) = session.run(None, samples[0])
    with torch.no_grad():
        expected = module(torch.from_numpy(samples[0]["x"])).numpy()
    sqnr = 10 * np.log10((expected**2).sum() / ((expected - integer) ** 2).sum())
    print("operators:", ", ".join(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in model.graph))
    print(f"SQNR: {sqnr:.1f} dB")


if __name__ == "__main__":
    main()
