"""Convolutions, transposed convolutions and pools over random shapes and attributes: exact, one step from QDQ."""

from __future__ import annotations

from typing import Any

import numpy as np
import qdq_graphs as g
from hypothesis import assume, given, settings
from hypothesis import strategies as st

FEW = settings(max_examples=25)


@st.composite
def windows(draw: st.DrawFn, dilated: bool = True) -> dict[str, Any]:
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    size = st.integers(1, 3)
    return {
        "kernel_shape": [draw(size) for _ in range(rank)],
        "strides": [draw(size) for _ in range(rank)],
        "dilations": [draw(st.integers(1, 2)) if dilated else 1 for _ in range(rank)],
        "pads": [draw(st.integers(0, 2)) for _ in range(2 * rank)],
    }


def text(attributes: dict[str, Any]) -> str:
    return ", ".join(f"{k} = {list(v) if isinstance(v, list | tuple) else v}" for k, v in attributes.items())


def dims(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


def run(op: str, attributes: dict[str, Any], x: tuple[int, ...], constants: dict[str, Any]) -> None:
    inputs = ", ".join(["x", *constants])
    relu = "" if "Pool" in op else " out = Relu(h)"
    body = f"{'out' if 'Pool' in op else 'h'} = {op} <{text(attributes)}> ({inputs}){relu}"
    feeds = {"x": g.normal(*x)}
    model = g.graph(f"(float[{dims(x)}] x) => (float out) {{ {body} }}", constants)
    g.check(g.qdq(model, feeds), feeds)


def fits(size: int, w: dict[str, Any]) -> bool:
    reach = [(k - 1) * d + 1 for k, d in zip(w["kernel_shape"], w["dilations"], strict=True)]
    rank = len(reach)
    return all(size + w["pads"][i] + w["pads"][i + rank] >= reach[i] for i in range(rank))


@FEW
@given(w=windows(), size=st.integers(3, 7), group=st.sampled_from([1, 2, 4]), out=st.integers(1, 2))
def test_conv(w: dict[str, Any], size: int, group: int, out: int) -> None:
    assume(fits(size, w))
    rank = len(w["strides"])
    weight = g.normal(out * group, 4 // group, *w["kernel_shape"])
    run("Conv", {**w, "group": group}, (2, 4, *[size] * rank), {"w": weight, "b": g.normal(out * group)})


@FEW
@given(w=windows(), size=st.integers(2, 5), group=st.sampled_from([1, 2, 4]), data=st.data())
def test_conv_transpose(w: dict[str, Any], size: int, group: int, data: st.DataObject) -> None:
    rank = len(w["strides"])
    extra = [data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(w["strides"], w["dilations"], strict=True)]
    assume(all(e < s for e, s in zip(extra, w["strides"], strict=True)))
    for i in range(rank):
        full = (size - 1) * w["strides"][i] + (w["kernel_shape"][i] - 1) * w["dilations"][i] + 1 + extra[i]
        assume(full - w["pads"][i] - w["pads"][i + rank] >= 1)
    weight = g.normal(4, 2, *w["kernel_shape"])
    attributes = {**w, "group": group, "output_padding": extra}
    run("ConvTranspose", attributes, (2, 4, *[size] * rank), {"w": weight, "b": g.normal(2 * group)})


def small_pads(w: dict[str, Any]) -> bool:
    """ONNX Runtime refuses a pool whose padding is as large as its kernel."""
    rank = len(w["strides"])
    return all(p < k for p, k in zip(w["pads"], w["kernel_shape"] * 2, strict=True)) and rank > 0


@FEW
@given(w=windows(), size=st.integers(3, 7), ceil=st.booleans())
def test_max_pool(w: dict[str, Any], size: int, ceil: bool) -> None:
    assume(fits(size, w) and small_pads(w))
    run("MaxPool", {**w, "ceil_mode": int(ceil)}, (2, 3, *[size] * len(w["strides"])), {})


@FEW
@given(w=windows(dilated=False), size=st.integers(3, 7), ceil=st.booleans(), whole=st.booleans())
def test_average_pool(w: dict[str, Any], size: int, ceil: bool, whole: bool) -> None:
    assume(fits(size, w) and small_pads(w))
    attributes = {**w, "ceil_mode": int(ceil), "count_include_pad": int(whole)}
    run("AveragePool", attributes, (2, 3, *[size] * len(w["strides"])), {})


def test_the_shared_check_can_fail() -> None:
    """A wrong bias in the integer graph is seen by the comparison with the QDQ graph."""
    feeds = {"x": g.normal(1, 3, 4, 4)}
    model = g.graph("(float[1,3,4,4] x) => (float out) { h = Conv (x, w) out = Relu(h) }", {"w": g.normal(2, 3, 1, 1)})
    g.qdq(model, feeds)
    integer = g.lower(model)
    bias = integer.graph.initializers["h.bias"]
    assert bias.const_value is not None
    wrong = g.ir.tensor(bias.const_value.numpy() + 100000, name="h.bias")
    bias.const_value = wrong
    right, off = g.ort_values(g.lower(model), feeds)["out"], g.ort_values(integer, feeds)["out"]
    assert not np.array_equal(right, off)
