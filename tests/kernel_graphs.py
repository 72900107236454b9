"""Small INTEGER graphs for the tests of fuse-kernels, and the proof of a fusion."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import qdq_graphs as g

from mulshift.backends import lower
from mulshift.backends.verify import verify_integer
from mulshift.ir import Array, Feeds, levels
from mulshift.ir.layout import plain_array, stands_for
from mulshift.passes.fuse_kernels import FuseKernels


def fuse(integer: ir.Model, feeds: Feeds) -> tuple[ir.Model, FuseKernels]:
    """The fused copy, after proving it: legal, the same integers in Python and on ONNX Runtime, a second run idle."""
    model, step = integer.clone(), FuseKernels()
    step(model)
    assert levels.check(model) == []
    verify_integer(lower(integer, "onnxruntime"), integer, [feeds])
    before, after = g.python_values(integer, feeds), g.python_values(model, feeds)
    values = {v.name: v for n in model.graph for v in n.outputs}
    for name, array in after.items():
        plain = plain_array(values[name], array)
        if stands_for(values[name]) in before:
            assert np.array_equal(before[stands_for(values[name])], plain), name
    assert {v.name for v in integer.graph.outputs} <= set(after)
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    again = FuseKernels()
    again(model)
    assert not again.log.changed
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once
    return model, step


def ops(model: ir.Model) -> list[str]:
    """Operators between the borders, without the domain."""
    found = (o.removeprefix("mulshift::") for o in g.operators(model))
    return [o for o in found if o not in ("QuantizeLinear", "DequantizeLinear")]


def weights(**shapes: tuple[int, ...]) -> dict[str, Array]:
    """Seeded noise; another seed for each."""
    return {k: g.normal(*s, seed=i) for i, (k, s) in enumerate(shapes.items())}


X = {"x": g.normal(1, 3, 8, 8, seed=9)}
FIRST = "(float[1,3,8,8] x) => (float[1,6,A,B] y) { a = Conv <pads=[1,1,1,1]> (x, w) "


def residual(then: str = "") -> ir.Model:
    given = weights(w=(8, 3, 3, 3), v=(8, 8, 1, 1), w2=(6, 8, 1, 1))
    return g.lower(g.qdq(g.graph(f"{FIRST} b = Conv(a, v) m = Add(b, a) {then} y = Conv(m, w2) }}", given), X))
