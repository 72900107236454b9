"""fuse-kernels: products on packed weights, channels last from end to end, epilogues; the same integers throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g
from kernel_graphs import FIRST, X, fuse, ops, residual, weights

from mulshift.ir import (
    Array,
    Level,
    add_initializer,
    get_qparams,
    origin,
    parse,
    set_level,
    show,
)
from mulshift.ir.layout import stands_for
from mulshift.passes import PASSES
from mulshift.passes.fuse_kernels import FuseKernels
from mulshift.passes.pipeline import Pipeline

BETWEEN: dict[str, tuple[str, dict[str, Array], int, list[str]]] = {
    "nothing": ("m = Relu(a)", {}, 8, []),
    "max pool": (
        "m = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(a)",
        {},
        8,
        ["MaxPoolNhwc", "Requantize"],
    ),
    "max pool, ceil": (
        "m = MaxPool<kernel_shape=[3,2], strides=[2,3], ceil_mode=1>(a)",
        {},
        8,
        ["MaxPoolNhwc", "Requantize"],
    ),
    "max pool, same": (
        'm = MaxPool<kernel_shape=[2,3], auto_pad="SAME_LOWER">(a)',
        {},
        8,
        ["MaxPoolNhwc", "Requantize"],
    ),
    "concat": ("s = Sigmoid(a) m = Concat<axis=1>(a, s)", {}, 16, ["Table", "Requantize", "Concat"]),
    "concat with a constant": ("m = Concat<axis=-3>(a, k)", {"k": g.normal(1, 2, 8, 8)}, 10, ["Concat"]),
    "slice": (
        "m = Slice(a, from, to, axes)",
        {"from": np.array([1, 2]), "to": np.array([7, 8]), "axes": np.array([2, -3])},
        6,
        ["Slice", "Requantize"],
    ),
    "slice, all axes": ("m = Slice(a, from, to)", {"from": np.zeros(2, int), "to": np.array([1, 5])}, 5, ["Slice"]),
    "each second pixel, more channels": (
        "s = Slice(a, i, to, h, two) t = Slice(s, i, to, v, two) m = Pad(t, by)",
        {"i": np.array([0]), "to": np.array([2**63 - 1]), "h": np.array([2]), "v": np.array([-1]), "two": np.array([2])}
        | {"by": np.array([0, 4, 0, 0, 0, 4, 0, 0])},
        16,
        ["SlicePad"],
    ),
    "slice of a slice": (
        "s = Slice(a, i, to, h, two) t = Slice(s, one, six, h, two) m = Slice(t, one, six)",
        {"i": np.array([1]), "to": np.array([8]), "h": np.array([2]), "two": np.array([2])}
        | {"one": np.array([0]), "six": np.array([6])},
        8,
        ["Slice", "Requantize", "SlicePad"],
    ),
    "slice read twice": (
        "s = Slice(a, i, to) t = Slice(s, i, to) u = Pad(s, by) m = Concat<axis=1>(t, u)",
        {"i": np.array([0]), "to": np.array([1]), "by": np.zeros(8, int)},
        16,
        ["Slice", "Slice", "Pad", "Concat"],
    ),
    "slice from the end": (
        "s = Slice(a, i, to, h) m = Pad(s, by)",
        {"i": np.array([-8]), "to": np.array([8]), "h": np.array([2]), "by": np.zeros(8, int)},
        8,
        ["Slice", "Pad"],
    ),
    "pad, reflected": (
        's = Slice(a, i, to, h) m = Pad<mode="reflect">(s, by)',
        {"i": np.array([1]), "to": np.array([8]), "h": np.array([2]), "by": np.array([0, 0, 1, 0, 0, 0, 0, 1])},
        8,
        ["Slice", "Pad"],
    ),
    "pad": ("m = Pad(a, by)", {"by": np.array([0, 1, 2, 0, 0, 3, 0, 1])}, 12, ["Pad"]),
    "pad, axes": (
        "m = Pad(a, by, k, at)",
        {"by": np.array([1, 2]), "k": np.float32(0), "at": np.array([1])},
        11,
        ["Pad"],
    ),
    "split": ("p, q = Split<axis=1, num_outputs=2>(a) m = Add(p, q)", {}, 4, ["Split", "Requantize", "Add"]),
    "gather": ("m = Gather<axis=1>(a, i)", {"i": np.array([7, 0, 3])}, 3, ["Gather", "Requantize"]),
    "resize, scales": (
        'm = Resize<mode="nearest", coordinate_transformation_mode="asymmetric">(a, , k)',
        {"k": np.array([1, 1, 2, 3], np.float32)},
        8,
        ["Resize"],
    ),
    "resize, sizes": (
        'm = Resize<mode="nearest">(a, , , k)',
        {"k": np.array([1, 8, 5, 12])},
        8,
        ["Resize", "Requantize"],
    ),
    "resize, axes": (
        'm = Resize<mode="nearest", axes=[3, 2]>(a, , k)',
        {"k": np.array([2, 1], np.float32)},
        8,
        ["Resize"],
    ),
    "resize, linear": (
        'm = Resize<mode="linear">(a, , k)',
        {"k": np.array([1, 1, 2, 3], np.float32)},
        8,
        ["Lerp", "Lerp", "Requantize"],
    ),
    "affine": ("s = Mul(a, k) m = Add(s, t)", weights(k=(8, 1, 1), t=(1, 8, 1, 1)), 8, ["Affine", "Affine"]),
    "affine of positions": ("m = Mul(a, k)", weights(k=(8, 1)), 8, ["Affine"]),
    "gate": (
        "p = GlobalAveragePool(a) c = Conv(p, v) s = Sigmoid(c) m = Mul(a, s)",
        weights(v=(8, 8, 1, 1)),
        8,
        ["ReduceMean", "ConvNhwcTable", "Mul"],
    ),
    "centred": ("p = ReduceMean<keepdims=1>(a, i) m = Sub(a, p)", {"i": np.array([2, 3])}, 8, ["ReduceMean", "Add"]),
    "channel maximum": (
        "p = ReduceMax<keepdims=1>(a, i) m = Sub(a, p)",
        {"i": np.array([1])},
        8,
        ["ReduceMax", "Requantize", "Add"],
    ),
    "constant image": ("m = Add(a, k)", weights(k=(1, 8, 8, 8)), 8, ["Affine"]),
    "largest": ("s = Tanh(a) m = Max(a, s)", {}, 8, ["Table", "Requantize", "Max"]),
    "there and back": ("t = Transpose<perm=[0,2,3,1]>(a) m = Transpose<perm=[0,3,1,2]>(t)", {}, 8, []),
    "rows for columns": ("m = Transpose<perm=[0,1,3,2]>(a)", {}, 8, ["Transpose"]),
    "positions in a row": (
        "r = Reshape(a, i) s = Relu(r) m = Reshape(s, j)",
        {"i": np.array([0, 0, -1]), "j": np.array([1, 8, 4, 16])},
        8,
        ["Reshape", "Requantize", "Reshape"],
    ),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between_products_is_turned_channels_last(name: str) -> None:
    body, constants, channels, expected = BETWEEN[name]
    given = weights(w=(8, 3, 3, 3), w2=(6, channels, 1, 1)) | constants
    integer = g.lower(g.qdq(g.graph(f"{FIRST} {body} y = Conv(m, w2) }}", given), X))
    found, step = fuse(integer, X)
    first, *inner, last, border = ops(found)
    assert first.startswith("ConvFromNchw") and inner == expected
    assert (last, border) == ("ConvNhwcAccumulate", "Transpose"), "the border reads [N, C, H, W]"
    assert [n.what for n in step.log.skipped] == ["DequantizeLinear has no channels-last form"]


LINES: dict[str, tuple[str, dict[str, Array], int, list[str]]] = {
    "nothing": ("m = Relu(a)", {}, 8, []),
    "max pool": ("m = MaxPool<kernel_shape=[3], strides=[2], pads=[1,0]>(a)", {}, 8, ["MaxPoolNhwc", "Requantize"]),
    "concat, slice": (
        "t = Concat<axis=1>(a, a) m = Slice(t, from, to, axes)",
        {"from": np.array([2]), "to": np.array([7]), "axes": np.array([-1])},
        16,
        ["Concat", "Slice", "Requantize"],
    ),
    "pad": ("m = Pad(a, by)", {"by": np.array([0, 1, 2, 0, 0, 3])}, 9, ["Pad"]),
    "affine": ("m = Mul(a, k)", weights(k=(8, 1)), 8, ["Affine"]),
    "gate": (
        "t = ReduceMean<keepdims=1>(a, i) m = Mul(a, t)",
        {"i": np.array([2])},
        8,
        ["ReduceMean", "Mul"],
    ),
    "as an image": (
        "u = Unsqueeze(a, i) t = MaxPool<kernel_shape=[1,2]>(u) m = Squeeze(t, i)",
        {"i": np.array([2])},
        8,
        ["Identity", "MaxPoolNhwc", "Requantize", "Identity"],
    ),
    "as a tall image": (
        "u = Unsqueeze(a, i) t = MaxPool<kernel_shape=[2,1]>(u) m = Squeeze(t, i)",
        {"i": np.array([-1])},
        8,
        ["Squeeze", "Unsqueeze", "MaxPoolNhwc", "Requantize", "Squeeze", "Unsqueeze"],
    ),
    "resize": (
        'm = Resize<mode="nearest", coordinate_transformation_mode="asymmetric">(a, , k)',
        {"k": np.array([1, 1, 2], np.float32)},
        8,
        ["Resize"],
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_one_dimension_is_an_image_of_height_one(name: str) -> None:
    body, constants, channels, expected = LINES[name]
    feeds = {"x": g.normal(1, 6, 12, seed=3)}
    given = weights(w=(8, 3, 3), w2=(6, channels, 1), w3=(6, 2)) | constants
    text = f"""(float[1,6,12] x) => (float[1,2] y) {{
      a = Conv<group=2, pads=[2,1], strides=[1], dilations=[2]>(x, w) {body} c = Conv(m, w2)
      p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, w3) }}"""
    found, step = fuse(g.lower(g.qdq(g.graph(text, given), feeds)), feeds)
    assert ops(found)[:3] == ["Transpose", "Unsqueeze", "ConvNhwc"]
    assert ops(found)[3:] == [*expected, "ConvNhwc", "ReduceMean", "Flatten", "GemmPackedAccumulate"]
    assert step.log.skipped == []


STAYS: dict[str, tuple[str, dict[str, Array], str]] = {
    "depth to space": ("m = DepthToSpace<blocksize=2>(a)", weights(w2=(6, 2, 1, 1)), "no channels-last form"),
    "channel shuffle": (
        "r = Reshape(a, i) t = Transpose<perm=[0,2,1,3,4]>(r) m = Reshape(t, j)",
        weights(w2=(6, 8, 1, 1)) | {"i": np.array([1, 2, 4, 8, 8]), "j": np.array([1, 8, 8, 8])},
        "it mixes channels and positions",
    ),
    "slice along axes that are not constant": (
        "s = Shape<end=1>(a) m = Slice(a, k, s, s)",
        weights(w2=(6, 1, 1, 1)) | {"k": np.zeros(1, int)},
        "its axes are not constant",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_needs_the_plain_layout_keeps_it_and_says_so(name: str) -> None:
    body, constants, reason = STAYS[name]
    given = weights(w=(8, 3, 3, 3)) | constants
    found, step = fuse(g.lower(g.qdq(g.graph(f"{FIRST} {body} y = Conv(m, w2) }}", given), X)), X)
    assert any(reason in n.what for n in step.log.skipped), step.log.skipped
    assert ops(found).count("Transpose") >= 2


TAILS: dict[str, tuple[str, list[str]]] = {
    "flatten": ("p = GlobalAveragePool(a) f = Flatten(p)", ["ReduceMean", "Flatten"]),
    "mean": ("f = ReduceMean<keepdims=0>(a, i)", ["ReduceMean"]),
    "maximum": ("f = ReduceMax<keepdims=0>(a, i)", ["ReduceMax", "Requantize"]),
    "squeeze": ("p = GlobalAveragePool(a) f = Squeeze(p, i)", ["ReduceMean", "Squeeze"]),
    "squeeze all": (
        "p = GlobalAveragePool(a) q = Squeeze(p) f = Unsqueeze(q, z)",
        ["ReduceMean", "Squeeze", "Unsqueeze"],
    ),
    "reshape": ("p = GlobalAveragePool(a) f = Reshape(p, r)", ["ReduceMean", "Reshape"]),
    "reshape to the batch": (
        "p = GlobalAveragePool(a) s = Shape<start=-4, end=-3>(a) t = Concat<axis=0>(s, k) f = Reshape(p, t)",
        ["ReduceMean", "Shape", "Gather", "Concat", "Reshape"],
    ),
    "positions last": ("t = Transpose<perm=[0,2,3,1]>(a) p = MaxPool<kernel_shape=[8,1]>(t) f = Reshape(p, r)", []),
}


@pytest.mark.parametrize("name", TAILS)
def test_the_way_out_needs_no_transpose(name: str) -> None:
    body, expected = TAILS[name]
    given = weights(w=(8, 3, 3, 3), w2=(8, 2)) | {"i": np.array([2, 3]), "r": np.array([0, -1]), "k": np.array([-1])}
    given |= {"z": np.array([0])} | ({"w2": g.normal(64, 2)} if name == "positions last" else {})
    text = f"(float[1,3,8,8] x) => (float[1,2] y) {{ a = Conv<pads=[1,1,1,1]>(x, w) {body} y = Gemm(f, w2) }}"
    found, _ = fuse(g.lower(g.qdq(g.graph(text, given), X)), X)
    assert "Transpose" not in ops(found)
    assert not expected or ops(found)[1:-1] == expected


def test_a_named_batch_does_not_hinder() -> None:
    given = weights(w=(8, 3, 3, 3), v=(8, 8, 1, 1), w2=(6, 8, 1, 1))
    text = "(float[N,3,8,8] x) => (float[N,6,A,B] y) { a = Conv(x, w) b = Conv(a, v) m = Add(b, a) y = Conv(m, w2) }"
    integer = g.lower(g.qdq(g.graph(text, given), X))
    assert ops(fuse(integer, {"x": g.normal(3, 3, 8, 8)})[0])[:2] == ["ConvFromNchw", "ConvNhwcAdd"]


def test_sizes_that_are_not_known_are_read_from_the_twin() -> None:
    """A mean over H x W of any size: the count comes from Shape, the sum runs over the twin's axes."""
    text = (
        "(float[1,3,H,W] x) => (float[1,2] y) { a = Conv(x, w) p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, v) }"
    )
    integer = g.lower(g.qdq(g.graph(text, weights(w=(8, 3, 3, 3), v=(8, 2))), X))
    found, _ = fuse(integer, X)
    assert "ReduceSum" in ops(found) and "Transpose" not in ops(found)


WEIGHTS: dict[str, tuple[str, tuple[int, ...], str, tuple[int, ...]]] = {
    "few channels": ("", (8, 3, 3, 3), "ConvFromNchw", (1, 1, 7, 16, 4)),
    "grouped": ("group=2", (34, 4, 3, 1), "ConvNhwc", (2, 2, 3, 16, 4)),
    "depthwise": ("group=3", (3, 1, 3, 3), "DepthwiseNhwc", (9, 3)),
    "two filters a channel": ("group=3", (6, 1, 2, 2), "ConvFromNchw", (3, 1, 1, 16, 4)),
    "many channels": ("dilations=[2,1]", (5, 7, 1, 2), "ConvNhwc", (1, 1, 4, 16, 4)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_packed(name: str) -> None:
    options, shape, op, packed = WEIGHTS[name]
    channels = shape[1] * (int(options[6:]) if options.startswith("group") else 1)
    feeds = {"x": g.normal(2, channels, 6, 6)}
    text = f"(float[2,{channels},6,6] x) => (float[2,A,B,C] y) {{ a = Conv<{options or 'group=1'}>(x, w) y = Relu(a) }}"
    found, _ = fuse(g.lower(g.qdq(g.graph(text, weights(w=shape)), feeds)), feeds)
    node = next(n for n in found.graph if n.op_type.startswith(op))
    w = node.inputs[1]
    assert w is not None and w.shape == packed and node.attributes["w_shape"].as_ints() == shape
    assert {v.name for v in found.graph.initializers.values() if v.dtype == ir.DataType.INT8} == {w.name}


def test_equal_weights_are_packed_once() -> None:
    given = weights(w=(8, 3, 3, 3), v=(8, 8, 1, 1), w2=(6, 8, 1, 1))
    integer = g.lower(g.qdq(g.graph(f"{FIRST} b = Conv(a, v) m = Conv(b, v) y = Conv(m, w2) }}", given), X))
    first, second = [n for n in integer.graph if n.op_type == "Conv"][1:3]
    second.replace_input_with(1, first.inputs[1])
    found, _ = fuse(integer, X)
    products = [n for n in found.graph if n.op_type == "ConvNhwc"]
    assert len(products) == 2 and products[0].inputs[1] is products[1].inputs[1]


def test_an_average_pool_gets_one_bias_a_channel() -> None:
    text = "(float[1,3,8,8] x) => (float[1,3,4,4] y) { y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x) }"
    found, _ = fuse(g.lower(g.qdq(g.graph(text), X)), X)
    node = next(n for n in found.graph if n.op_type == "DepthwiseNhwcInt1")  # its weights are ones
    assert [v.shape for v in node.inputs[2:] if v is not None] == [(3,), (1,), (1,)]


NOT_PACKED: dict[str, tuple[Any, str]] = {
    "a weight zero point": (
        lambda n: n.attributes.update(w_zero_point=ir.AttrInt64("w_zero_point", 1)),
        "zero point 0",
    ),
    "weights from outside": (lambda n: n.graph.inputs.append(n.inputs[1]), "its weights are not constant"),
    "a bias from outside": (lambda n: n.graph.inputs.append(n.inputs[2]), "its bias, b or c is not one constant"),
}


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
@pytest.mark.parametrize("name", NOT_PACKED)
def test_what_cannot_be_packed_stays_and_says_so(name: str, op: str) -> None:
    change, reason = NOT_PACKED[name]
    dims = "3,8,8" if op == "Conv" else "3"
    text = f"(float[1,{dims}] x) => (float[1,5] y) {{ a = {op}(x, w) y = Relu(a) }}"
    feeds = {"x": g.normal(*(int(d) for d in f"1,{dims}".split(",")))}
    constants = {"w": g.normal(5, 3, 8, 8) if op == "Conv" else g.normal(3, 5)}
    integer = g.lower(g.qdq(g.graph(text.replace("1,5", "1,5,1,1") if op == "Conv" else text, constants), feeds))
    change(next(n for n in integer.graph if n.op_type == op))
    step = FuseKernels()
    step(integer)
    assert ops(integer) == [op] and [reason in n.what for n in step.log.skipped] == [True]


def test_three_dimensions_stay() -> None:
    feeds = {"x": g.normal(1, 2, 4, 4, 4)}
    text = "(float[1,2,4,4,4] x) => (float[1,3,3,3,3] y) { a = Conv(x, w) y = Relu(a) }"
    found, step = fuse(g.lower(g.qdq(g.graph(text, weights(w=(3, 2, 2, 2, 2))), feeds)), feeds)
    assert ops(found) == ["Conv"] and [n.what for n in step.log.skipped] == ["3-D convolution"]


def test_values_tell_what_they_stand_for_and_nodes_where_they_came_from() -> None:
    found, step = fuse(residual(), X)
    nodes = {n.op_type: n for n in found.graph}
    value = nodes["ConvNhwcAdd"].outputs[0]
    assert (value.name, value.dtype, value.shape) == ("m.nhwc", ir.DataType.UINT8, (1, 8, 8, 8))
    assert {k: v for k, v in value.metadata_props.items() if k != "mulshift.qparams"} == {
        "mulshift.value": "m",
        "mulshift.layout": "nhwc",
    }
    assert get_qparams(value) is not None
    assert origin(nodes["ConvNhwcAdd"]) == ("Conv_1", "Add_2")
    props = nodes["ConvNhwcAdd"].metadata_props
    assert {k for k in props if k != "mulshift.origin"} == {
        "mulshift.accumulator_bound",
        "mulshift.width",
        "mulshift.add.accumulator_bound",
        "mulshift.add.width",
    }
    assert "ConvNhwc takes Add into its epilogue" in [n.what for n in step.log.changed]
    accumulated = get_qparams(nodes["ConvNhwcAccumulate"].outputs[0])
    assert accumulated is not None and accumulated.spec.axis == 3, "channels are last"


def test_a_sixteen_bit_residual_and_its_copy_come_out_of_one_operator() -> None:
    """By the passes of the default recipe; the pipeline checks that fuse-kernels is EXACT."""
    text = """(float[1,3,8,8] x) => (float[1,2] y) {
      a = Conv<pads=[1,1,1,1]>(x, w) r = Relu(a)
      b = Conv(r, v) s = Add(b, r) t = Relu(s) c = Conv(t, u) m = Add(t, c)
      p = GlobalAveragePool(m) f = Flatten(p) y = Gemm(f, w2) }"""
    given = weights(w=(8, 3, 3, 3), v=(8, 8, 1, 1), u=(8, 8, 1, 1), w2=(8, 2))
    names = ["canonicalize", "calibrate", "insert-fake-quant", "to-integer", "fuse-kernels"]
    recipe = {"name": "r", "passes": [{"pass": name} for name in names]}
    result = Pipeline(recipe).run(g.graph(text, given), [X])
    assert ops(result.model) == [
        "ConvFromNchwRequantize",
        "ConvNhwcAddRequantize",
        "ConvNhwcAdd",
        "ReduceMean",
        "Flatten",
        "GemmPackedAccumulate",
    ]
    y, q = next(n for n in result.model.graph if n.op_type == "ConvNhwcAddRequantize").outputs
    assert (y.name, y.dtype) == ("t.nhwc", ir.DataType.INT16) and (q.name, q.dtype) == ("t.dq.nhwc", ir.DataType.UINT8)


def test_other_levels_are_left_alone() -> None:
    model = g.graph(f"{FIRST} y = Relu(a) }}", weights(w=(6, 3, 3, 3)))
    assert PASSES["fuse-kernels"] is FuseKernels
    assert not FuseKernels()(model).modified


def test_same_graph_same_bytes() -> None:
    made = [ir.to_proto(fuse(residual(), X)[0]).SerializeToString() for _ in range(2)]
    assert made[0] == made[1]


def test_a_name_that_is_taken_gives_way() -> None:
    integer = residual()
    first = next(n for n in integer.graph if n.op_type == "Conv")
    first.replace_input_with(1, add_initializer(integer.graph, "m.nhwc", first.inputs[1].const_value.numpy()))  # type: ignore[union-attr]
    first.name = "m.nhwc"
    values = [v for n in fuse(integer, X)[0].graph for v in n.outputs if stands_for(v) == "m"]
    assert [v.name for v in values] == ["m.nhwc_1"]


BEFORE = """mulshift text 1
model {ir_version=10}
graph "g"(%x: u8[1,5,2,3], %r: s16[1,1,2,3]) -> (%q) {
  opset "" = 21
  opset "mulshift" = 1
  %w = s8[1,5,1,1] [1, -2, 3, -4, 50]
  %bias = s32[1,1,1] [7]
  %b = s32[1] [1]
  %c = s32[1] [2]
  %t: s16[1,1,2,3] = mulshift::Conv(%x, %w, %bias, %b, %c) {dilations=[1, 1], dtype=5, group=1, pads=[0, 0, 0, 0], \
qmax=32767, qmin=-32768, strides=[1, 1], w_zero_point=0, x_zero_point=3, zero_point=0} // conv
  %y: s16[1,1,2,3] = mulshift::Add(%r, %t) {dtype=5, qmax=32767, qmin=0, shift=4, x_multiplier=11, x_zero_point=0, \
y_multiplier=22, y_zero_point=0, zero_point=0} // add
  %q: u8[1,1,2,3] = mulshift::Requantize(%y, %b, %c) {dtype=2, qmax=255, qmin=0, x_zero_point=0, zero_point=9} // narrow
}
"""
AFTER = """mulshift text 1
model {ir_version=10}
graph "g"(%x: u8[1,5,2,3], %r: s16[1,1,2,3]) -> (%q) {
  opset "" = 21
  opset "mulshift" = 1
  %bias = s32[1,1,1] [7]
  %b = s32[1] [1]
  %c = s32[1] [2]
  %w.k4n16 = s8[1,1,2,16,4] <sha256:4305ad38f162>
  %x.nhwc: u8[1,2,3,5] = Transpose(%x) {perm=[0, 2, 3, 1]} // conv/Transpose
  %r.nhwc: s16[1,2,3,1] = Transpose(%r) {perm=[0, 2, 3, 1]} // add/Transpose
  %y.nhwc: s16[1,2,3,1], %q.nhwc: u8[1,2,3,1] = mulshift::ConvNhwcAddRequantize(%x.nhwc, %w.k4n16, %bias, %b, %c, \
%r.nhwc, %b, %c) {add_dtype=5, add_qmax=32767, add_qmin=0, add_shift=4, add_x_multiplier=22, add_y_multiplier=11, \
add_y_zero_point=0, add_zero_point=0, dilations=[1, 1], dtype=5, group=1, layout="k4n16", pads=[0, 0, 0, 0], \
q_dtype=2, q_qmax=255, q_qmin=0, q_x_zero_point=0, q_zero_point=9, qmax=32767, qmin=-32768, strides=[1, 1], \
w_shape=[1, 5, 1, 1], x_zero_point=3, zero_point=0} // conv
  %q: u8[1,1,2,3] = Transpose(%q.nhwc) {perm=[0, 3, 1, 2]} // narrow/Transpose
}
"""


def test_the_printed_graph() -> None:
    integer = parse(BEFORE)
    set_level(integer, Level.INTEGER)
    FuseKernels()(integer)
    assert show(integer, elide=True, metadata=False).split("function")[0] == AFTER
