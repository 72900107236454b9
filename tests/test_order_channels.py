"""order-channels: hidden channels stand in pairs whose products fit 16 bits, the numbers stay where a value says."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g

from mulshift.backends import lower
from mulshift.backends.verify import verify_integer
from mulshift.ir import (
    Array,
    Feeds,
    Level,
    QParams,
    constant,
    describe,
    get_qparams,
    levels,
    parse,
    set_level,
    set_qparams,
    show,
    weight_spec,
)
from mulshift.ir.layout import plain_array, stands_for
from mulshift.ir.operators.packing import pack_conv, pack_gemm
from mulshift.passes import PASSES
from mulshift.passes.kernels.pairing import LIMIT, is_safe, match, pair_up
from mulshift.passes.kernels.relayout import StaysError
from mulshift.passes.order_channels import OrderChannels
from mulshift.passes.pipeline import Pipeline

X = {"x": g.normal(1, 3, 8, 8, seed=9)}


def clashing(rows: int, channels: int, *window: int) -> Array:
    """Weights [rows, channels, *window]: at every tap channels 2i, 2i + 1 are large for output i, others negative."""
    w = np.random.default_rng(1).integers(-20, 1, (rows, channels, *window))
    for i in range(rows):
        w[i, 2 * i : 2 * i + 2] = 127
    return (w / 127).astype(np.float32)


def weights(**shapes: tuple[int, ...]) -> dict[str, Array]:
    """Seeded noise; another seed for each."""
    return {k: g.normal(*s, seed=i) for i, (k, s) in enumerate(shapes.items())}


def integers(
    body: str, constants: dict[str, Array], text: str = "(float[1,3,8,8] x) => (float[1,A,B,C] y)"
) -> ir.Model:
    return g.lower(g.qdq(g.graph(f"{text} {{ {body} }}", constants), X))


def ordered(integer: ir.Model, feeds: Feeds = X) -> tuple[ir.Model, OrderChannels]:
    """The ordered copy, after proving it: legal, the same integers in Python, on ONNX Runtime and by the kernels once
    lowered, the same bits at the outputs, a second run idle.
    """
    model, step = integer.clone(), OrderChannels()
    step(model)
    assert levels.check(model) == []
    before, after = g.python_values(integer, feeds), g.python_values(model, feeds)
    assert before.keys() == after.keys()
    for value in (v for n in model.graph for v in n.outputs):
        name = str(value.name)
        assert np.array_equal(before[name], plain_array(value, after[name])), name
        assert not value.is_graph_output() or np.array_equal(before[name], after[name])
    stock = g.ort_values(model, feeds)
    assert all(np.array_equal(stock[name], array) for name, array in after.items())
    assert verify_integer(lower(integer, "onnxruntime"), integer, [feeds]).kernel_elements > 0
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    again = OrderChannels()
    again(model)
    assert not again.log.changed
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once
    return model, step


def fits(node: ir.Node) -> bool:
    """What the kernel library asks of packed weights: conv.cpp's pair_safe."""
    w = constant(node.inputs[1])
    assert w is not None
    packed = pack_gemm(w) if w.ndim == 2 else pack_conv(w.reshape(*w.shape[:2], w.shape[2], -1), 1)
    pairs = packed.reshape(-1, 2).astype(int)
    return bool((pairs.clip(0).sum(1) <= 128).all() and (pairs.clip(None, 0).sum(1) >= -128).all())


def products(model: ir.Model) -> list[ir.Node]:
    return [n for n in model.graph if n.op_type.startswith(("Conv", "Gemm"))]


FIRST = "a = Conv<pads=[1,1,1,1]>(x, w)"
BETWEEN: dict[str, tuple[str, dict[str, Array]]] = {
    "nothing": ("m = Relu(a)", {}),
    "depthwise": ("b = Conv<group=8>(a, d, e) m = Relu(b)", weights(d=(8, 1, 3, 3), e=(8,))),
    "table": ("m = Sigmoid(a)", {}),
    "max pool": ("m = MaxPool<kernel_shape=[2,2]>(a)", {}),
    "average pool": ("m = AveragePool<kernel_shape=[2,2]>(a)", {}),
    "affine": ("s = Mul(a, k) m = Add(s, t)", weights(k=(8, 1, 1), t=(1, 8, 1, 1))),
    "affine of positions": ("m = Mul(a, k)", weights(k=(8, 1))),
    "affine of all": ("m = Mul(a, k)", {"k": np.float32(2)}),
    "gate": ("p = GlobalAveragePool(a) c = Conv(p, v) s = Sigmoid(c) m = Mul(a, s)", weights(v=(8, 8, 1, 1))),
    "one gate for all": ("c = Conv(a, v) s = Sigmoid(c) m = Mul(a, s)", weights(v=(1, 8, 1, 1))),
    "residual": ("b = Conv(a, v) m = Add(b, a)", weights(v=(8, 8, 1, 1))),
    "largest": ("s = Tanh(a) m = Max(a, s)", {}),
    "clip": ("s = Tanh(a) m = Clip(s, l, h)", {"l": np.float32(-0.3), "h": np.float32(0.4)}),
    "mean": ("m = ReduceMean<keepdims=1>(a, i)", {"i": np.array([-1])}),
    "maximum": ("m = ReduceMax<keepdims=1>(a, i)", {"i": np.array([2, 3])}),
    "slice": (
        "m = Slice(a, from, to, axes)",
        {"from": np.array([1, 2]), "to": np.array([7, 8]), "axes": np.array([2, -1])},
    ),
    "positions in a row": (
        "r = Reshape(a, i) s = Tanh(r) m = Reshape(s, j)",
        {"i": np.array([0, 0, -1]), "j": np.array([1, 8, 4, 16])},
    ),
}


@pytest.mark.parametrize("window", [(1, 1), (3, 3)])
@pytest.mark.parametrize("name", BETWEEN)
def test_channels_between_products_are_ordered(name: str, window: tuple[int, int]) -> None:
    body, constants = BETWEEN[name]
    given = weights(w=(8, 3, 3, 3)) | constants | {"w2": clashing(4, 8, *window)}
    model, step = ordered(integers(f"{FIRST} {body} y = Conv<pads=[2,2,2,2]>(m, w2)", given))
    last = products(model)[-1]
    assert fits(last) and describe(last) in [n.where for n in step.log.changed]
    m = next(v for n in model.graph for v in n.outputs if v.name == "m")
    assert sorted(json.loads(m.metadata_props["mulshift.channels"])) == list(range(8))


TAILS = {
    "mean": ("f = ReduceMean<keepdims=0>(a, i)", {"i": np.array([2, 3])}),
    "flatten": ("p = GlobalAveragePool(a) f = Flatten(p)", {}),
    "squeeze": ("p = GlobalAveragePool(a) f = Squeeze(p, i)", {"i": np.array([2, 3])}),
    "reshape": ("p = GlobalMaxPool(a) f = Reshape(p, i)", {"i": np.array([0, -1])}),
    "hidden layer": ("p = GlobalMaxPool(a) q = Flatten(p) h = Gemm(q, v, z) f = Relu(h)", weights(v=(8, 8), z=(8,))),
}


@pytest.mark.parametrize("name", TAILS)
def test_channels_before_a_gemm_are_ordered(name: str) -> None:
    body, constants = TAILS[name]
    given = weights(w=(8, 3, 3, 3)) | constants | {"w2": clashing(4, 8).T}
    model, _ = ordered(integers(f"{FIRST} {body} y = Gemm(f, w2)", given, "(float[1,3,8,8] x) => (float[1,4] y)"))
    assert fits(products(model)[-1])


def test_one_dimension() -> None:
    feeds = {"x": g.normal(1, 3, 12)}
    text = "(float[1,3,12] x) => (float[1,4,A] y) { a = Conv(x, w) m = Relu(a) y = Conv(m, w2) }"
    given = weights(w=(8, 3, 3)) | {"w2": clashing(4, 8, 3)}
    model, _ = ordered(g.lower(g.qdq(g.graph(text, given), feeds)), feeds)
    assert fits(products(model)[-1])


def test_the_last_of_an_odd_number_stands_alone() -> None:
    w2 = np.full((3, 5, 1, 1), 0.5, np.float32)
    w2[:, 1] = 1  # fits beside nothing
    model, _ = ordered(integers(f"{FIRST} m = Relu(a) y = Conv(m, w2)", weights(w=(5, 3, 3, 3)) | {"w2": w2}))
    m = products(model)[-1].inputs[0]
    assert m is not None and json.loads(m.metadata_props["mulshift.channels"]) == [0, 2, 3, 4, 1]


def test_two_products_that_read_the_same_channels_both_fit() -> None:
    u = clashing(4, 8, 1, 1)[:, [0, 2, 1, 3, 4, 6, 5, 7]]
    body = f"{FIRST} m = Relu(a) b = Conv(m, w2) c = Conv(m, u) y = Add(b, c)"
    model, step = ordered(integers(body, weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1), "u": u}))
    assert all(fits(n) for n in products(model)[1:]) and len(step.log.changed) == 2


@pytest.mark.parametrize(("outputs", "winner"), [(8, "b"), (2, "c")])
def test_of_two_products_that_need_different_orders_the_larger_one_has_its(outputs: int, winner: str) -> None:
    """c needs 0 beside 1 and 2 beside 3, as they stand; b has 0 and 1 apart."""
    w2 = np.where(np.arange(4)[:, None, None] < 2, 1, np.full((outputs, 4, 1, 1), 0.005)).astype(np.float32)
    u = np.full((4, 4, 1, 1), 0.005, np.float32)
    for row, pair in enumerate([(0, 2), (0, 3), (1, 2), (1, 3)]):
        u[row, list(pair)] = 1
    body = f"{FIRST} m = Relu(a) b = Conv(m, w2) s = Tanh(b) c = Conv(m, u) z = Tanh(c) y = Conv(s, v)"
    text = "(float[1,3,8,8] x) => (float[1,A,B,C] y, float[1,D,E,F] z)"
    given = weights(w=(4, 3, 3, 3), v=(2, outputs, 1, 1)) | {"w2": w2, "u": u}
    model, step = ordered(integers(body, given, text))
    by_name = {n.outputs[0].name: n for n in products(model)}
    assert [name for name in "bc" if fits(by_name[name])] == [winner]
    reasons = {n.where: n.what for n in step.log.skipped}
    assert reasons[describe(by_name["b" if winner == "c" else "c"])] == "its channel 0 fits beside no other of 4"


def test_who_asks_for_sizes_does_not_see_the_order() -> None:
    text = "(float[1,3,8,8] x) => (float[1,A,B,C] y, int64[4] z)"
    given = weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1)}
    model, _ = ordered(integers(f"{FIRST} m = Sigmoid(a) z = Shape(a) y = Conv(m, w2)", given, text))
    assert fits(products(model)[-1])


def _append_output(model: ir.Model) -> None:
    model.graph.outputs.append(next(v for n in model.graph for v in n.outputs if v.name == "m"))


def _add_reader(model: ir.Model) -> None:
    m = next(v for n in model.graph for v in n.outputs if v.name == "m")
    node = ir.node("ArgMax", [m], {"axis": 1}, name="most")
    node.outputs[0].name, node.outputs[0].type = "most", ir.TensorType(ir.DataType.INT64)
    node.outputs[0].shape = ir.Shape([1, 1, 8, 8])
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])


def _weight_zero_point(model: ir.Model) -> None:
    for node in products(model)[-1:]:
        node.attributes["w_zero_point"] = ir.AttrInt64("w_zero_point", 1)


def _nothing(model: ir.Model) -> None:
    pass


LARGE = np.ones((4, 8, 1, 1), np.float32)
NEAR: dict[str, tuple[str, dict[str, Array], Callable[[ir.Model], None], str]] = {
    "fits already": (
        "m = Relu(a)",
        {"w2": np.where(np.arange(8)[:, None, None] % 2, LARGE, 0.005 * LARGE)},
        _nothing,
        "",
    ),
    "graph output": ("m = Relu(a)", {}, _append_output, "'m' is an output of the graph"),
    "graph input": ("m = MaxPool<kernel_shape=[1,1]>(x)", {"w2": clashing(2, 3, 1, 1)}, _nothing, "QuantizeLinear"),
    "read by what needs the order": ("m = Relu(a)", {}, _add_reader, "node 'most' (ArgMax): it needs the order"),
    "concat": ("s = Sigmoid(a) m = Concat<axis=1>(a, s)", {"w2": clashing(4, 16, 1, 1)}, _nothing, "(Concat, from"),
    "grouped": ("m = Conv<group=4>(a, d)", weights(d=(8, 2, 1, 1)), _nothing, "it has 4 groups"),
    "two filters a channel": (
        "m = Conv<group=8>(a, d)",
        weights(d=(16, 1, 1, 1)) | {"w2": clashing(4, 16, 1, 1)},
        _nothing,
        "it has 8 groups",
    ),
    "slice of channels": (
        "m = Slice(a, from, to, axes)",
        {"from": np.array([0]), "to": np.array([6]), "axes": np.array([1]), "w2": clashing(3, 6, 1, 1)},
        _nothing,
        "it takes some channels",
    ),
    "maximum of channels": (
        "p = ReduceMax<keepdims=1>(a, i) m = Sub(a, p)",
        {"i": np.array([1])},
        _nothing,
        "it reduces channels",
    ),
    "shuffle": (
        "r = Reshape(a, i) t = Transpose<perm=[0,2,1,3,4]>(r) m = Reshape(t, j)",
        {"i": np.array([1, 2, 4, 8, 8]), "j": np.array([1, 8, 8, 8])},
        _nothing,
        "it mixes channels and positions",
    ),
    "no pair": ("m = Relu(a)", {"w2": LARGE}, _nothing, "its channel 0 fits beside no other of 8"),
    "no matching": (
        "m = Relu(a)",
        {"w2": np.where(np.arange(8)[:, None, None] < 3, 0.005 * LARGE, LARGE)},
        _nothing,
        "3 of 4 pairs of channels can be made to fit",
    ),
    "odd under a window": (
        "m = Relu(a)",
        {"w": g.normal(9, 3, 3, 3), "w2": clashing(4, 9, 3, 3)},
        _nothing,
        "pairs of 9 channels straddle the taps",
    ),
    "weights with a zero point": ("m = Relu(a)", {}, _weight_zero_point, ""),
}


@pytest.mark.parametrize("name", NEAR)
def test_near_misses_are_left_alone_and_say_why(name: str) -> None:
    body, constants, change, reason = NEAR[name]
    given = weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1)} | constants
    integer = integers(f"{FIRST} {body} y = Conv(m, w2)", given)
    change(integer)
    before = ir.to_proto(integer).SerializeToString(deterministic=True)
    step = OrderChannels()
    assert not step(integer).modified
    assert ir.to_proto(integer).SerializeToString(deterministic=True) == before
    last = describe(products(integer)[-1])
    said = [n.what for n in step.log.skipped if n.where == last]
    assert (not said) if not reason else reason in said[0], said


def test_what_a_subgraph_reads_keeps_its_order() -> None:
    integer = integers(f"{FIRST} m = Relu(a) y = Conv(m, w2)", weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1)})
    m = next(v for n in integer.graph for v in n.outputs if v.name == "m")
    inner = ir.node("Identity", [m], name="inner")
    branch = ir.Graph([], inner.outputs, nodes=[inner], name="branch")
    integer.graph.append(ir.node("If", [m], {"then_branch": branch}, name="if"))
    step = OrderChannels()
    assert not step(integer).modified


def test_constants_that_others_read_are_copied() -> None:
    """b and c are one initializer of two layers; the second layer is not ordered."""
    body = f"{FIRST} m = Relu(a) b = Conv(m, w2) s = Relu(b) y = Conv(s, v)"
    given = weights(w=(8, 3, 3, 3), v=(8, 8, 1, 1)) | {"w2": np.concatenate([clashing(4, 8, 1, 1)] * 2)}
    integer = integers(body, given)
    first, second, _ = products(integer)
    for i in (2, 3, 4):
        second.replace_input_with(i, first.inputs[i])
    model, _ = ordered(integer)
    first, second, _ = products(model)
    for i in (2, 3, 4):
        mine, theirs = constant(first.inputs[i]), constant(second.inputs[i])
        assert mine is not None and theirs is not None
        assert first.inputs[i] is not second.inputs[i] and sorted(mine.ravel()) == sorted(theirs.ravel())


def test_scales_of_channels_move_with_them() -> None:
    integer = integers(f"{FIRST} m = Relu(a) y = Conv(m, w2)", weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1)})
    first = products(integer)[0]
    spec = weight_spec(axis=0)
    w = first.inputs[1]
    assert w is not None
    set_qparams(w, QParams(np.arange(1, 9, dtype=np.float32), np.zeros(8, np.int32), spec))
    model, _ = ordered(integer)
    moved, m = products(model)[0].inputs[1], products(model)[0].outputs[0]
    order = json.loads(m.metadata_props["mulshift.channels"])
    q = get_qparams(moved) if moved is not None else None
    assert q is not None and np.array_equal(q.scale, np.arange(1, 9)[order])


def test_a_wrong_order_is_found_out() -> None:
    """Break it on purpose: a value says that its channels stand elsewhere."""
    from mulshift.ir import VerificationError

    integer = integers(f"{FIRST} m = Relu(a) y = Conv(m, w2)", weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1)})
    artifact = lower(integer, "onnxruntime")
    (m,) = (v for n in artifact.model.graph for v in n.outputs if stands_for(v) == "m")
    order = json.loads(m.metadata_props["mulshift.channels"])
    m.metadata_props["mulshift.channels"] = json.dumps(order[::-1])
    with pytest.raises(VerificationError, match=r"in 'm' .* differ"):
        verify_integer(artifact, integer, [X])


def test_only_the_artifact_for_the_kernels_is_ordered() -> None:
    integer = integers(f"{FIRST} m = Relu(a) y = Conv(m, w2)", weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1)})
    for target, count in (("onnxruntime", 1), ("onnxruntime-portable", 0)):
        artifact = lower(integer, target)
        said = [v for n in artifact.model.graph for v in n.outputs if "mulshift.channels" in v.metadata_props]
        assert len(said) == count
        assert np.array_equal(artifact.run(X)["y"], g.python_values(integer, X)["y"])


def test_a_recipe_may_order_before_it_is_lowered() -> None:
    integer = integers(f"{FIRST} m = Relu(a) y = Conv(m, w2)", weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1)})
    model, _ = ordered(integer)
    artifact = lower(model, "onnxruntime")
    for specification in (model, integer, artifact.model):
        assert verify_integer(artifact, specification, [X]).differences == 0


def test_the_pipeline_finds_it_exact() -> None:
    given = weights(w=(8, 3, 3, 3)) | {"w2": clashing(4, 8, 1, 1)}
    names = ["canonicalize", "calibrate", "insert-fake-quant", "to-integer", "order-channels", "fuse-kernels"]
    model = g.graph(f"(float[1,3,8,8] x) => (float[1,A,B,C] y) {{ {FIRST} m = Relu(a) y = Conv(m, w2) }}", given)
    result = Pipeline({"name": "r", "passes": [{"pass": name} for name in names]}).run(model, [X])
    assert [r.name for r in result.records if r.changed][-2:] == ["order-channels", "fuse-kernels"]


def test_other_levels_are_left_alone() -> None:
    model = g.graph(f"(float[1,3,8,8] x) => (float[1,A,B,C] y) {{ {FIRST} y = Relu(a) }}", weights(w=(6, 3, 3, 3)))
    assert PASSES["order-channels"] is OrderChannels
    assert not OrderChannels()(model).modified


def test_the_limit_is_that_of_sixteen_bits() -> None:
    assert 255 * LIMIT <= 32767 < 255 * (LIMIT + 1)
    for pair, safe in (
        ((127, 1), True),
        ((127, 2), False),
        ((-128, 0), True),
        ((-128, -1), False),
        ((-128, 127), True),
    ):
        assert is_safe(np.array([pair], np.int8)) is safe
        assert is_safe(np.array([[*pair, -128]], np.int8)) is safe, "the last one stands alone"


def _largest(fits: Array) -> int:
    """Size of a maximum matching, by trying everything."""
    if not len(fits):
        return 0
    rest = list(range(1, len(fits)))
    best = _largest(fits[np.ix_(rest, rest)])
    for other in rest:
        if fits[0, other]:
            left = [i for i in rest if i != other]
            best = max(best, 1 + _largest(fits[np.ix_(left, left)]))
    return best


@pytest.mark.parametrize("seed", range(60))
def test_matchings_are_as_large_as_can_be(seed: int) -> None:
    """Small sparse graphs, where a search without blossoms could miss a path; it does in none of these."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((9, 9)) < rng.uniform(0.1, 0.6), 1)
    mate = match(upper | upper.T)
    paired = np.flatnonzero(mate >= 0)
    assert all(mate[mate[i]] == i and (upper | upper.T)[i, mate[i]] for i in paired)
    assert len(paired) == 2 * _largest(upper | upper.T)


def test_many_channels() -> None:
    rows = np.random.default_rng(0).normal(0, 25, (64, 1001)).clip(-127, 127).astype(np.int8)
    order = pair_up([rows[:32], rows[32:]])
    assert not is_safe(rows) and is_safe(rows[:, order]) and sorted(order) == list(range(1001))
    with pytest.raises(StaysError, match="fits beside no other of 1001"):
        pair_up([np.full((1, 1001), 127, np.int8)])


BEFORE = """mulshift text 1
model {ir_version=10}
graph "g"(%x: u8[1,1,1,2]) -> (%y) {
  opset "" = 21
  opset "mulshift" = 1
  %w = s8[4,1,1,1] [1, 2, 3, 4]
  %bias = s32[4,1,1] [10, 20, 30, 40]
  %b = s32[1] [1]
  %c = s32[4,1,1] [2, 3, 4, 5]
  %w2 = s8[1,4,1,1] [100, 90, 20, -7]
  %bias2 = s32[1,1,1] [0]
  %h: u8[1,4,1,2] = mulshift::Conv(%x, %w, %bias, %b, %c) {dilations=[1, 1], dtype=2, group=1, pads=[0, 0, 0, 0], \
qmax=255, qmin=0, strides=[1, 1], w_zero_point=0, x_zero_point=3, zero_point=0} // first
  %y: s32[1,1,1,2] = mulshift::ConvAccumulate(%h, %w2, %bias2) {dilations=[1, 1], group=1, pads=[0, 0, 0, 0], \
strides=[1, 1], w_zero_point=0, x_zero_point=0} // second
}
"""
AFTER = """mulshift text 1
model {ir_version=10}
graph "g"(%x: u8[1,1,1,2]) -> (%y) {
  opset "" = 21
  opset "mulshift" = 1
  %w = s8[4,1,1,1] [1, 3, 2, 4]
  %bias = s32[4,1,1] [10, 30, 20, 40]
  %b = s32[1] [1]
  %c = s32[4,1,1] [2, 4, 3, 5]
  %w2 = s8[1,4,1,1] [100, 20, 90, -7]
  %bias2 = s32[1,1,1] [0]
  %h: u8[1,4,1,2] = mulshift::Conv(%x, %w, %bias, %b, %c) {dilations=[1, 1], dtype=2, group=1, pads=[0, 0, 0, 0], \
qmax=255, qmin=0, strides=[1, 1], w_zero_point=0, x_zero_point=3, zero_point=0} // first
  %y: s32[1,1,1,2] = mulshift::ConvAccumulate(%h, %w2, %bias2) {dilations=[1, 1], group=1, pads=[0, 0, 0, 0], \
strides=[1, 1], w_zero_point=0, x_zero_point=0} // second
}
"""


def test_the_printed_graph() -> None:
    integer = parse(BEFORE)
    set_level(integer, Level.INTEGER)
    OrderChannels()(integer)
    assert show(integer, metadata=False).split("function")[0] == AFTER
    assert next(v for n in integer.graph for v in n.outputs).metadata_props["mulshift.channels"] == "[0,2,1,3]"


def test_products_over_the_last_of_three_axes_keep_their_order() -> None:
    """Channels are axis 1 here; a token axis must not be taken for them."""
    feeds = {"x": g.normal(1, 6, 8, seed=9)}
    text = "(float[1,6,8] x) => (float[1,6,4] y) { a = MatMul(x, w) s = Tanh(a) m = Add(s, k) y = MatMul(m, v) }"
    given = weights(w=(8, 8), k=(8,)) | {"v": np.ascontiguousarray(clashing(4, 8).T)}
    integer = g.lower(g.qdq(g.graph(text, given), feeds))
    model, step = ordered(integer, feeds)
    assert not step.log.changed
    assert not any("mulshift.channels" in v.metadata_props for n in model.graph for v in n.outputs)
