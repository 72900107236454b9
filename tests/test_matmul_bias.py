"""A Linear on rows arrives as MatMul and Add: one product with a bias, rounded once, never an Add of its own."""

from __future__ import annotations

import torch
from torch import nn

import mulshift


def test_the_add_after_a_matmul_becomes_its_bias() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 4)).eval()
    rows = torch.randn(8, 1, 5, 8)

    compiled = mulshift.compile(
        module, [{"input": x.numpy()} for x in rows], recipe="int8-fast", example_inputs=(rows[0],)
    )

    operators = [layer.op.removeprefix("mulshift::") for layer in compiled.report.layers]
    assert operators == ["QuantizeLinear", "Gemm", "Gemm", "Table", "GemmAccumulate", "DequantizeLinear"]
