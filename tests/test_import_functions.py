"""Model functions at import: ours are operators and stay, those of others are inlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from float_graphs import by_ort, graph, ops, random

from mulshift.ir import Interpreter, Level, equal, get_level, load
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.fuse import Fuse
from mulshift.passes.insert_fake_quant import InsertFakeQuant

BODY = """g (float[2,5,4,8] q, float[2,6,4,8] k, bool[2,1,5,6] m) => (float[2,5,4,8] y) {
    qt=Transpose<perm=[0,2,1,3]>(q) kt=Transpose<perm=[0,2,3,1]>(k) vt=Transpose<perm=[0,2,1,3]>(k)
    s=MatMul(qt,kt) z=Where(m,s,low) p=Softmax(z) o=MatMul(p,vt) y=Transpose<perm=[0,2,1,3]>(o) }"""
FEEDS = {"q": random((2, 5, 4, 8)), "k": random((2, 6, 4, 8), 1), "m": random((2, 1, 5, 6), 2) > -0.5}


def fused() -> ir.Model:
    model = graph(BODY, {"low": np.asarray(-1e9, np.float32)})
    Fuse()(model)
    assert ops(model) == ["MaskedAttention"]
    return model


def test_float_level(tmp_path: Path) -> None:
    """A saved FLOAT graph of ours comes back as it was."""
    model = fused()
    ir.save(model, tmp_path / "m.onnx")
    again = load(tmp_path / "m.onnx")
    assert ops(again) == ["MaskedAttention"]
    assert list(again.functions) == [("mulshift.float", "MaskedAttention", "")]
    assert equal(model, again)
    expected = next(iter(Interpreter(model).run(FEEDS).values())).numpy()
    assert np.array_equal(next(iter(Interpreter(again).run(FEEDS).values())).numpy(), expected)
    np.testing.assert_allclose(by_ort(again, FEEDS)[0], expected, rtol=0, atol=1e-5)  # float32 sums of 8, of order 1


def test_qdq_level(tmp_path: Path) -> None:
    """So does a QDQ graph."""
    model = fused()
    Calibrate(samples=[FEEDS])(model)
    InsertFakeQuant()(model)
    ir.save(model, tmp_path / "m.onnx")
    again = load(tmp_path / "m.onnx")
    assert get_level(again) is Level.QDQ
    assert ops(again) == ops(model)
    assert np.array_equal(by_ort(again, FEEDS)[0], by_ort(model, FEEDS)[0])


def test_functions_of_others_are_inlined() -> None:
    """Also where they call one of ours."""
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1, "mulshift.float" : 1]>
    g (float[2,4] x) => (float[2,4] y) { y = other.Gate(x) }
    <domain: "other", opset_import: ["" : 21, "mulshift.float" : 1]>
    Gate (x) => (y) { s = mulshift.float.Swish<alpha: float = 2.0>(x) y = Neg(s) }
    <domain: "mulshift.float", opset_import: ["" : 21]>
    Swish <alpha: float = 1.0> (X) => (Y)
    { factor = Constant<value_float: float = @alpha>() scaled = Mul(X, factor) gate = Sigmoid(scaled) Y = Mul(X, gate) }
    """
    model = load(ir.from_onnx_text(text))
    assert ops(model) == ["Swish", "Neg"]
    x = random((2, 4))
    np.testing.assert_allclose(by_ort(model, {"x": x})[0], -x / (1 + np.exp(-2 * x)), rtol=0, atol=1e-6)
