"""fuse-kernels: attention without the Reshapes around it, and what keeps them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g
from kernel_graphs import fuse, ops

from mulshift.ir import attribute
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.canonicalize import Canonicalize
from mulshift.passes.fuse import Fuse
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.to_integer import ToInteger

B, N, H, D, WIDE = 2, 5, 4, 8, 12
FEEDS = {"x": g.normal(B, N, 16, seed=3)}
PROJECTIONS = """a = MatMul(x, wq) b = MatMul(x, wk) c = MatMul(x, wv)
    qh = Reshape(a, s) kh = Reshape(b, s) vh = Reshape(c, sv)"""
MIX = """qt = Transpose <perm = [0, 2, 1, 3]> (qh) kt = Transpose <perm = [0, 2, 3, 1]> (kh)
    vt = Transpose <perm = [0, 2, 1, 3]> (vh) d = MatMul(qt, kt) e = Mul(d, scale) {mask} p = Softmax <axis = -1> (z)
    o = MatMul(p, vt) t = Transpose <perm = [0, 2, 1, 3]> (o)"""
PLAIN = MIX.format(mask="z = Identity(e)")
JOIN = "m = Reshape(t, f) n = Relu(m) y = MatMul(n, w)"


def _integer(body: str) -> ir.Model:
    constants = {
        "wq": g.normal(16, H * D, seed=1),
        "wk": g.normal(16, H * D, seed=2),
        "wv": g.normal(16, H * WIDE, seed=4),
        "w": g.normal(H * WIDE, 6, seed=5),
        "w4": g.normal(WIDE, 6, seed=6),
        "s": np.array([B, N, H, D]),
        "sv": np.array([B, N, H, WIDE]),
        "f": np.array([B, N, H * WIDE]),
        "swap": np.array([N, B, H * WIDE]),
        "all": np.arange(4),
        "scale": np.asarray(D**-0.5, np.float32),
        "causal": np.where(np.tri(N, dtype=bool), 0, -np.inf).astype(np.float32),
    }
    constants = {k: v for k, v in constants.items() if f", {k})" in body}
    out = "A,C,H,6" if "w4" in constants else "A,C,6"
    model = g.graph(f"(float[{B},{N},16] x) => (float[{out}] y) {{ {body} }}", constants)
    for step in (Canonicalize(), Fuse(), Calibrate(samples=[FEEDS]), InsertFakeQuant(), ToInteger()):
        step(model)
    return model


@pytest.mark.parametrize("masked", [False, True])
def test_reshapes_around_attention_go(masked: bool) -> None:
    mix = MIX.format(mask="z = Add(e, causal)") if masked else PLAIN
    found, _ = fuse(_integer(f"{PROJECTIONS} {mix} {JOIN}"), FEEDS)
    kind = "FlatMaskedAttention" if masked else "FlatAttention"
    assert kind in ops(found) and "Reshape" not in ops(found)
    node = next(n for n in found.graph if n.op_type == kind)
    assert (attribute(node, "heads"), attribute(node, "groups")) == (H, H)
    assert "mulshift.accumulator_bound" in node.metadata_props


KEPT = {
    "the joined tensor has other rows": f"{PROJECTIONS} {PLAIN} m = Reshape(t, swap) n = Relu(m) y = MatMul(n, w)",
    "heads are not joined": f"{PROJECTIONS} {PLAIN} n = Relu(t) y = MatMul(n, w4)",
    "heads of q are read elsewhere": f"""{PROJECTIONS} {PLAIN} m = Reshape(t, f) u = MatMul(m, w)
    r = ReduceMax <keepdims = 0> (qh, all) y = Add(u, r)""",
}


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_them(name: str) -> None:
    found, _ = fuse(_integer(KEPT[name]), FEEDS)
    assert "Attention" in ops(found) and "Reshape" in ops(found)
