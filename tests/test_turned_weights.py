"""Weights that are a Transpose of a constant too large to be folded (a tied head): one scale a channel all the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g

from mulshift.ir import Interpreter, constant
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.to_integer import ToInteger

SAMPLES = [{"x": g.normal(2, 3, 16, seed=7)}]
WEIGHT = g.normal(12, 16) * (10.0 ** np.linspace(-2, 1, 12))[:, None].astype(np.float32)


def _quantized(text: str, shape: str = "2,3,12") -> ir.Model:
    model = g.graph(f"(float[2,3,16] x) => (float[{shape}] y) {{ {text} }}", {"w": WEIGHT})
    Calibrate(samples=SAMPLES)(model)
    InsertFakeQuant()(model)
    return model


@pytest.mark.parametrize("text", ["t = Transpose<perm=[1,0]>(w) y = MatMul(x, t)", "t = Transpose(w) y = MatMul(x, t)"])
def test_one_scale_a_channel_and_integers(text: str) -> None:
    model = _quantized(text)
    (turn,) = [n for n in model.graph if n.op_type == "Transpose"]
    made = turn.inputs[0].producer()  # type: ignore[union-attr]
    assert made is not None and made.op_type == "DequantizeLinear"
    scale = constant(made.inputs[1])
    assert scale is not None and scale.size == 12
    assert [n.op_type for n in model.graph].count("QuantizeLinear") == 2, "x and w, and no pair behind the Transpose"
    exact = SAMPLES[0]["x"] @ WEIGHT.T
    ToInteger(float_islands="forbid")(model)
    got = Interpreter(model).run(SAMPLES[0])["y"].numpy()
    assert [n.op_type for n in model.graph if n.domain == "mulshift"][-1] == "GemmAccumulate"
    largest = np.abs(exact).max(axis=(0, 1))
    assert (np.abs(got - exact).max(axis=(0, 1)) < 0.03 * largest).all()  # 8 bits of x and w: about 1 % of each channel


def test_what_others_read_too_has_one_scale() -> None:
    """Abs reads the same Transpose: its pair cannot have a scale a channel of the product."""
    model = _quantized("t = Transpose<perm=[1,0]>(w) a = Abs(t) y = MatMul(x, t)")
    (turn,) = [n for n in model.graph if n.op_type == "Transpose"]
    made = turn.inputs[0].producer()  # type: ignore[union-attr]
    scale = None if made is None else constant(made.inputs[1])
    assert scale is None or scale.size == 1
