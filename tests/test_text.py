"""The text form: golden, lossless on random graphs and on real exports, and differences in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mulshift.ir import ModelError, UnsupportedError, attach, difference, equal, load, parse, show

GOLDEN = """mulshift text 1
model {ir_version=10, producer_name="me"}
. mulshift.level = "FLOAT"
graph "net"(%x: f32[N,1,4,4]) -> (%y, %/odd/name:0) {
  opset "" = 21
  . %x mulshift.range = "[-1.0, 1.0]"
  %w = f32[3,1,3,3] <sha256:483765d01424>
  %bias = f32[3] [0.1, -0.0, 1e-05]
  %axes = s64[1] [-1]
  %"a b": f32[N,3,4,?] = Conv(%x, %w, %bias) {group=1, pads=[1, 1, 1, 1]} // features.0
    . doc: "first \\"layer\\""
    . mulshift.origin = "[\\"features.0\\"]"
    . %"a b" mulshift.range = "[0.0, 2.0]"
  %y: f32[*], _ = my::Act:v2(%"a b", _, %axes) {alpha=0.1, empty=ints[], mode="sum", on=[0.5, inf]}
  %/odd/name:0 = If(%flag) {
    else_branch=graph "e"() -> (%e) {
      %e = Neg(%y)
    }
    then_branch=graph "t"() -> (%t) {
      %t = Constant() {value=tensor "k" u8[2] [0, 255]}
    }
  } // /if
}
"""


def _golden_model() -> ir.Model:
    w = np.arange(27, dtype=np.float32).reshape(3, 1, 3, 3)
    text = GOLDEN.replace("(%x: f32[N,1,4,4])", "(%x: f32[N,1,4,4], %flag: bool[])").replace(
        "f32[3,1,3,3] <sha256:483765d01424>", "f32[1] [0.0]"
    )
    model = parse(text)
    model.graph.initializers["w"].const_value = ir.tensor(w, name="w")
    model.graph.initializers["w"].shape = ir.Shape(w.shape)
    return model


def test_golden() -> None:
    got = show(_golden_model(), elide=True)
    assert got == GOLDEN.replace("(%x: f32[N,1,4,4])", "(%x: f32[N,1,4,4], %flag: bool[])")


def test_metadata_can_be_left_out() -> None:
    lines = show(_golden_model(), elide=True, metadata=False).splitlines()
    assert lines == [
        line for line in show(_golden_model(), elide=True).splitlines() if not line.lstrip().startswith(". ")
    ]


def round_trip(model: ir.Model) -> ir.Model:
    """The model read back, after checking that nothing was lost, also through a protobuf."""
    text = show(model)
    back = parse(text)
    assert difference(model, back) is None
    assert show(back) == text
    through = ir.from_proto(ir.to_proto(back))
    assert difference(ir.from_proto(ir.to_proto(model)), through) is None
    return back


def test_the_golden_model_comes_back() -> None:
    back = round_trip(_golden_model())
    assert back.graph[0].outputs[0].shape == ir.Shape(["N", 3, 4, None])
    assert back.graph[0].name == "features.0"
    assert np.signbit(back.graph.initializers["bias"].const_value.numpy()[1])  # type: ignore[union-attr]


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
metadata = st.dictionaries(names, st.text(max_size=8), max_size=2)
dimensions = st.one_of(st.integers(0, 9), st.none(), names)
FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn)
INTEGERS = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint64, ml_dtypes.int4, ml_dtypes.uint4)
dtypes = st.sampled_from([*FLOATS, *INTEGERS, np.bool_])
specials = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3.4028235e38, 0.1]


@st.composite
def tensors(draw: st.DrawFn) -> ir.TensorProtocol:
    dtype = draw(dtypes)
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    with np.errstate(all="ignore"):
        if dtype in FLOATS:
            array = np.where(rng.random(shape) < 0.3, rng.choice(specials, shape), rng.normal(size=shape)).astype(dtype)
        else:
            array = rng.integers(-(2**62), 2**62, shape).astype(np.int64).astype(dtype)
    return ir.tensor(np.asarray(array))


attributes = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32),
    st.text(max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
    st.lists(st.floats(width=32), min_size=1, max_size=3),
    st.lists(st.text(max_size=5), min_size=1, max_size=3),
    tensors(),
)


@st.composite
def graphs(draw: st.DrawFn, outer: tuple[ir.Value, ...] = (), depth: int = 0) -> ir.Graph:
    taken = {v.name for v in outer}
    fresh = draw(st.lists(names.filter(lambda n: n not in taken), min_size=7, max_size=7, unique=True))
    x, w, *made = fresh

    def value(name: str) -> ir.Value:
        v = ir.Value(name=name)
        if draw(st.booleans()):
            v.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(draw(dtypes))))
        if draw(st.booleans()):
            v.shape = ir.Shape(draw(st.lists(dimensions, max_size=3)))
        v.metadata_props.update(draw(metadata))
        v.doc_string = draw(st.one_of(st.none(), st.text(min_size=1, max_size=4)))
        return v

    data = draw(tensors())
    known = [value(x), ir.Value(name=w, type=ir.TensorType(data.dtype), shape=ir.Shape(data.shape), const_value=data)]
    inputs, initializers = ([] if depth else [known[0]]), [known[1]]
    known = known[1:] if depth else known
    nodes = []
    for name in made[: draw(st.integers(1, 4))]:
        found = draw(st.dictionaries(st.sampled_from(["alpha", "pads", "k v"]), attributes, max_size=2))
        attrs = [ir.convenience.convert_attribute(k, v) for k, v in found.items()]
        reach = (*outer, *known)
        if depth < 2 and draw(st.integers(0, 4)) == 0:
            attrs.append(ir.AttrGraph("body", draw(graphs(reach, depth + 1))))
        node = ir.Node(
            draw(st.sampled_from(["", "mulshift", "a.b", "odd domain"])),
            draw(st.sampled_from(["Conv", "F.x", "odd op"])),
            draw(st.lists(st.one_of(st.none(), st.sampled_from(reach)), max_size=3)),
            attrs,
            overload=draw(st.sampled_from(["", "v2"])),
            outputs=[value(name)],
            name=draw(st.text(max_size=5)),
            doc_string=draw(st.one_of(st.none(), st.text(min_size=1, max_size=4))),
            metadata_props=draw(metadata),
        )
        nodes.append(node)
        known.append(node.outputs[0])
    imports = {} if depth else {"": 21, "mulshift": 1, "a.b": 2, "odd domain": 3}
    return ir.Graph(inputs, [known[-1]], nodes=nodes, initializers=initializers, opset_imports=imports, name="g")


@settings(max_examples=60)
@given(graphs(), metadata)
def test_random_graphs_come_back(graph: ir.Graph, props: dict[str, str]) -> None:
    model = ir.Model(graph, ir_version=11, producer_name="p", metadata_props=props)
    text = show(model)
    back = parse(text)
    assert difference(model, back) is None
    assert show(back) == text


def test_functions_with_defaults_references_and_bodies_of_integer_operators() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21, "my" : 1, "mulshift" : 1]>
      calls (uint8[3] x, int32[1] b, int32[1] c) => (uint8[3] y) {
        h = my.F <slope = 0.5> (x)
        y = mulshift.Requantize <x_zero_point = 0, zero_point = 0, qmin = 0, qmax = 255, dtype = 2> (h, b, c)
      }
      <domain: "my", opset_import: ["" : 21]>
      F <k, slope: float = 0.25> (x) => (y) { y = LeakyRelu <alpha: float = @slope> (x) }""")
    attach(model)
    assert len(model.functions) == 2
    round_trip(model)


def test_sequence_and_optional_types() -> None:
    text = """mulshift text 1
model {ir_version=10}
graph "s"(%x: optional(seq(f32[2,N])), %u: _[1,2]) -> (%y) {
  opset "" = 21
  %y: seq(f32[2,N]) = OptionalGetElement(%x) {kind=type seq(f32[*])}
}
"""
    assert show(parse(text)) == text


def test_strings_that_are_not_utf8() -> None:
    tensor = ir.StringTensor([b"\xff\x00", b"a"], name="k", shape=ir.Shape([2]))
    value = ir.Value(name="k", const_value=tensor, type=ir.TensorType(ir.DataType.STRING), shape=ir.Shape([2]))
    model = ir.Model(ir.Graph([], [value], nodes=[], initializers=[value], opset_imports={"": 21}), ir_version=10)
    back = parse(show(model)).graph.initializers["k"].const_value
    assert isinstance(back, ir.StringTensor)
    assert list(back.string_data()) == [b"\xff\x00", b"a"]


def test_a_real_export_comes_back() -> None:
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1),
        torch.nn.BatchNorm2d(8),
        torch.nn.Hardswish(),
        torch.nn.Conv2d(8, 8, 3, groups=8),
    )
    model = load(layers.eval(), (torch.zeros(1, 3, 16, 16),))
    back = round_trip(model)
    assert any(k.startswith("mulshift.") for n in back.graph for k in n.metadata_props)


EDITS: list[tuple[Callable[[ir.Model], Any], str]] = [
    (
        lambda m: m.graph[0].attributes.__setitem__("group", ir.AttrInt64("group", 2)),
        "attribute 'group' is '1', not '2'",
    ),
    (lambda m: setattr(m.graph[0], "op_type", "Relu"), "node 'features.0' (Conv): operator is 'Conv', not 'Relu'"),
    (lambda m: setattr(m.graph[0].outputs[0], "dtype", ir.DataType.INT8), "value 'a b': type is 'f32[N,3,4,?]'"),
    (lambda m: m.graph[0].metadata_props.clear(), "metadata keys is ['mulshift.origin'], not []"),
    (lambda m: m.graph[0].outputs[0].metadata_props.update({"mulshift.range": "0"}), "metadata 'mulshift.range'"),
    (lambda m: m.graph.remove(m.graph[2]) if m.graph.outputs.pop() else None, "outputs is ['y', '/odd/name:0']"),
    (lambda m: m.graph[1].replace_input_with(1, m.graph.inputs[0]), "inputs is ['a b', None, 'axes']"),
    (lambda m: setattr(m, "producer_name", "you"), "model: producer_name is 'me', not 'you'"),
    (
        lambda m: m.graph.initializers["bias"].__setattr__("const_value", ir.tensor(np.zeros(3, np.float32))),
        "value 'bias': data is 'f32[3] [0.1, -0.0, 1e-05]', not 'f32[3] [0.0, 0.0, 0.0]'",
    ),
    (lambda m: _bump(m.graph.initializers["w"]), "value 'w': data is 'f32[3,1,3,3] <sha256:483765d01424>'"),
    (lambda m: setattr(m.graph[2].attributes["then_branch"].as_graph()[0], "name", "n"), "name is '', not 'n'"),
]


def _bump(value: ir.Value) -> None:
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[0, 0, 0, 0] = np.nextafter(np.float32(0), np.float32(1))
    value.const_value = ir.tensor(array)


@pytest.mark.parametrize(("edit", "words"), EDITS, ids=lambda v: v[:30] if isinstance(v, str) else "")
def test_difference_names_what_changed(edit: Callable[[ir.Model], Any], words: str) -> None:
    a, b = _golden_model(), _golden_model()
    assert equal(a, b)
    edit(b)
    assert words in str(difference(a, b))
    assert not equal(b, a)


def test_nan_payloads_are_irrelevant() -> None:
    def model(bits: int) -> ir.Model:
        data = ir.tensor(np.full(20, bits, np.uint32).view(np.float32), name="k")
        value = ir.Value(name="k", const_value=data, type=ir.TensorType(data.dtype), shape=ir.Shape([20]))
        return ir.Model(ir.Graph([], [value], nodes=[], initializers=[value], opset_imports={"": 21}), ir_version=10)

    assert equal(model(0x7FC00000), model(0x7FC00001))
    assert not equal(model(0x7FC00000), model(0x7F800000))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("", "line 1 "),
        (GOLDEN, "line 7 of the graph's text: the data of 'w' is left out"),
        ("mulshift text 1\nmodel {ir_version=x}\n", "line 2 of the graph's text: 'x' where an integer"),
        ("mulshift text 1\nmodel {}\ngraph () -> () {\n  %y = Neg(%x)\n}\n", "'x' is used but nothing makes it"),
        ("mulshift text 1\nmodel {}\ngraph () -> () {\n  %y = f32[2] [1.0]\n}\n", "1 elements for shape [2]"),
        ("mulshift text 1\nmodel {}\ngraph () -> () {\n  %y: g7[2] = Neg()\n}\n", "unknown element type 'g7'"),
        ("mulshift text 1\nmodel {}\ngraph () -> () {\n  ;\n}\n", "line 4 of the graph's text: not a token"),
        ("mulshift text 1\nmodel {}\ngraph () -> () {\n", "'the end' where"),
    ],
)
def test_bad_text_names_the_line(broken: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(broken)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sparse_tensors_are_refused() -> None:
    node = ir.Node("", "Constant", [], [ir.Attr("sparse_value", ir.AttributeType.SPARSE_TENSOR, object())])
    model = ir.Model(ir.Graph([], node.outputs, nodes=[node], opset_imports={"": 21}), ir_version=10)
    with pytest.raises(UnsupportedError, match="sparse_value"):
        show(model)


def test_large_unsigned_numbers_are_not_rounded() -> None:
    numbers = np.array([1263248596961149231, 16323401286926789520], np.uint64)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="g")
    graph.register_initializer(ir.Value(name="k", const_value=ir.tensor(numbers, name="k")))
    back = parse(show(ir.Model(graph, ir_version=10)))
    tensor = back.graph.initializers["k"].const_value
    assert tensor is not None
    assert np.array_equal(tensor.numpy(), numbers)
