"""Attention in the qdq form: ONNX Runtime takes it with all its optimizations, and gives what the float model gives."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import graph, random

import mulshift
from mulshift.ir import Array, Interpreter

TOKENS, WIDTH, HEADS = 6, 16, 2
SHAPE = f"[1, {TOKENS}, {WIDTH}]"
NUMBERS: dict[str, Array] = {
    **{f"{p}w": random((WIDTH, WIDTH), i) / 2 for i, p in enumerate("qkvo")},
    "heads": np.array([1, TOKENS, HEADS, WIDTH // HEADS]),
    "flat": np.array([1, TOKENS, WIDTH]),
    "root": np.asarray((WIDTH // HEADS) ** -0.5, np.float32),
    "low": np.asarray(-1e6, np.float32),
    "mask": np.tri(TOKENS, dtype=bool),
}


def attention(masked: bool) -> ir.Model:
    """Two heads behind projections, by hand; with a mask each token sees itself and those before it."""
    heads = " ".join(
        f"{p} = MatMul (x, {p}w) {p}h = Reshape ({p}, heads) {p}t = Transpose <perm = [{perm}]> ({p}h)"
        for p, perm in (("q", "0, 2, 1, 3"), ("k", "0, 2, 3, 1"), ("v", "0, 2, 1, 3"))
    )
    seen = "z = Where (mask, d, low)" if masked else "z = Identity (d)"
    text = f"""attention (float{SHAPE} x) => (float{SHAPE} y) {{
      {heads}
      s = MatMul (qt, kt) d = Mul (s, root) {seen} p = Softmax (z)
      o = MatMul (p, vt) ot = Transpose <perm = [0, 2, 1, 3]> (o) of = Reshape (ot, flat) y = MatMul (of, ow)
    }}"""
    return graph(text, {k: v for k, v in NUMBERS.items() if masked or k not in ("mask", "low")})


@pytest.mark.parametrize("masked", [True, False])
def test_optimized(masked: bool) -> None:
    """All activations are u8: ONNX Runtime 1.31 refuses what it makes of s8 pairs in a function body."""
    samples = [{"x": random((1, TOKENS, WIDTH), 10 + i)} for i in range(8)]
    wanted = np.asarray(Interpreter(attention(masked)).run(samples[0])["y"])
    artifact = mulshift.compile(attention(masked), samples, recipe="int8-fast", target="onnxruntime-qdq").artifact
    made = [n.outputs[0].dtype for n in artifact.model.graph if n.op_type == "QuantizeLinear"]
    assert made and set(made) == {ir.DataType.UINT8}
    got = artifact.run(samples[0])["y"]
    assert np.linalg.norm(got - wanted) < 0.05 * np.linalg.norm(wanted)  # 8 bits a tensor: about 30 dB


def test_signed() -> None:
    """TensorRT wants s8, also where there is attention."""
    samples = [{"x": random((1, TOKENS, WIDTH), 10 + i)} for i in range(4)]
    artifact = mulshift.compile(attention(True), samples, recipe="int8-fast", target="tensorrt").artifact
    made = [n.outputs[0].dtype for n in artifact.model.graph if n.op_type == "QuantizeLinear"]
    assert made and set(made) == {ir.DataType.INT8}
