"""The interpreter: outputs, overrides, gradients, captures, functions, errors, and how much it keeps alive."""

from __future__ import annotations

import weakref

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from mulshift.ir import OPERATORS, DataError, Interpreter, UnsupportedError, attach


def _parse(text: str) -> ir.Model:
    return ir.from_onnx_text(text)


CHAIN = """<ir_version: 10, opset_import: ["" : 21]>
chain (float[N, 4] x) => (float[N, 4] y) <float[4] w = {1, 2, 3, 4}> {
  a = Mul (x, w)
  b = Add (a, w)
  c = Relu (b)
  d = Add (c, a)
  e = Neg (d)
  y = Abs (e)
}"""


def test_outputs_and_named_values() -> None:
    model = _parse(CHAIN)
    x = np.ones((2, 4), np.float32)
    assert Interpreter(model).run({"x": x})["y"].tolist() == [[3, 6, 9, 12]] * 2
    got = Interpreter(model).run({"x": x}, outputs=["w", "b", "x"])
    assert list(got) == ["w", "b", "x"]
    assert got["b"].tolist() == [[2, 4, 6, 8]] * 2


def test_execution_stops_after_the_last_value_asked_for() -> None:
    seen: list[str] = []
    Interpreter(_parse(CHAIN)).run({"x": np.ones((1, 4), np.float32)}, lambda v, t: seen.append(str(v.name)), ["b"])
    assert seen == ["x", "a", "b"]


def test_an_observer_replaces_values() -> None:
    got = Interpreter(_parse(CHAIN)).run(
        {"x": np.ones((1, 4), np.float32)}, lambda v, t: t * 0 if v.name == "d" else None
    )
    assert got["y"].tolist() == [[0, 0, 0, 0]]


def test_overrides_replace_an_initializer_and_carry_gradients() -> None:
    w = torch.ones(4, requires_grad=True)
    x = torch.full((3, 4), 2.0)
    Interpreter(_parse(CHAIN), {"w": w}).run({"x": x})["y"].sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [15, 15, 15, 15]  # y = (x w + w) + x w, three rows of 2 x + 1


def _peak(model: ir.Model, feeds: dict[str, np.ndarray]) -> int:
    """Most values alive at once, weights aside."""
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def watch(value: ir.Value, tensor: torch.Tensor) -> None:
        nonlocal most
        alive.add(tensor)
        most = max(most, len(alive))

    Interpreter(model).run(feeds, watch)
    return most


def test_a_value_is_freed_after_its_last_use() -> None:
    n = 40
    body = "\n".join(f"  v{i + 1} = Neg (v{i})" for i in range(n))
    text = f'<ir_version: 10, opset_import: ["" : 21]>\nlong (float[2] v0) => (float[2] v{n}) {{\n{body}\n}}'
    feeds = {"v0": np.ones(2, np.float32)}
    # The input belongs to the caller; beside it at most the operand and the result of the running node.
    assert _peak(_parse(text), feeds) <= 3
    # a lives until d: x, a, c, d.
    assert _peak(_parse(CHAIN), {"x": np.ones((1, 4), np.float32)}) <= 4


def test_peak_memory_does_not_grow_with_depth() -> None:
    def bytes_alive(depth: int) -> int:
        body = "\n".join(f"  v{i + 1} = Relu (v{i})" for i in range(depth))
        text = f'<ir_version: 10, opset_import: ["" : 21]>\nd (float[N] v0) => (float[N] v{depth}) {{\n{body}\n}}'
        sizes: dict[int, int] = {}
        alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()

        def watch(value: ir.Value, tensor: torch.Tensor) -> None:
            alive.add(tensor)
            sizes[len(sizes)] = sum(t.nbytes for t in alive)

        Interpreter(_parse(text)).run({"v0": np.ones(1000, np.float32)}, watch)
        return max(sizes.values())

    assert bytes_alive(50) == bytes_alive(5)


IF = """<ir_version: 10, opset_import: ["" : 21]>
branch (float[2] x, bool flag) => (float[2] y) <float[2] w = {10, 20}> {
  a = Add (x, w)
  y = If (flag) <
    then_branch = then () => (float[2] t) { t = Mul (a, w) },
    else_branch = other () => (float[2] e) {
      inner = Neg (a)
      e = If (flag) <
        then_branch = deep () => (float[2] p) { p = Add (inner, x) },
        else_branch = deeper () => (float[2] q) { q = Sub (inner, w) }
      >
    }
  >
}"""


@pytest.mark.parametrize(("flag", "expected"), [(True, [110, 440]), (False, [-21, -42])])
def test_subgraphs_read_values_from_every_outer_scope(flag: bool, expected: list[float]) -> None:
    feeds = {"x": np.array([1, 2], np.float32), "flag": np.array(flag)}
    assert Interpreter(_parse(IF)).run(feeds)["y"].tolist() == expected


LOOP = """<ir_version: 10, opset_import: ["" : 21]>
loop (float[2] x, int64 n) => (float[2] y, float[K, 2] steps) <bool go = {1}> {
  step = Neg (x)
  y, steps = Loop (n, go, x) <
    body = one (int64 i, bool c, float[2] s) => (bool c_out, float[2] s_out, float[2] s_copy) {
      c_out = Identity (c)
      s_out = Sub (s, step)
      s_copy = Identity (s_out)
    }
  >
}"""


def test_a_loop_with_carried_and_captured_values() -> None:
    feeds = {"x": np.array([1, 2], np.float32), "n": np.array(3)}
    got = Interpreter(_parse(LOOP)).run(feeds)
    assert got["y"].tolist() == [4, 8]
    assert got["steps"].tolist() == [[2, 4], [3, 6], [4, 8]]


FUNCTION = """<ir_version: 10, opset_import: ["" : 21, "my" : 1]>
calls (float[3] x) => (float[3] y) { h = my.Outer <slope = 0.5> (x)  y = my.Outer (h) }
<domain: "my", opset_import: ["" : 21, "my" : 1]>
Outer <slope: float = 0.25> (x) => (y) { n = Neg (x)  y = my.Inner <slope: float = @slope> (n) }
<domain: "my", opset_import: ["" : 21]>
Inner <slope> (x) => (y) { y = LeakyRelu <alpha: float = @slope> (x) }"""


def test_model_functions_run_by_their_bodies_with_attributes_and_defaults() -> None:
    x = torch.tensor([1.0, -2.0, 4.0], requires_grad=True)
    y = Interpreter(_parse(FUNCTION)).run({"x": x})["y"]
    assert y.tolist() == [0.5, -0.5, 2.0]  # leaky(-leaky(-x, 0.5), 0.25)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.5, 0.25, 0.5]


def test_integer_operators_run_by_their_reference_not_their_body(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _parse("""<ir_version: 10, opset_import: ["" : 21, "mulshift" : 1]>
      t (uint8[3] x) => (uint8[3] y) <uint8[2] table = {7, 9}> { y = mulshift.Table (x, table) }""")
    attach(model)
    model.functions.clear()
    assert Interpreter(model).run({"x": np.array([0, 1, 1], np.uint8)})["y"].tolist() == [7, 9, 9]
    assert "Table" in OPERATORS


def test_sequences_and_strings_pass_through() -> None:
    model = _parse(
        """<ir_version: 10, opset_import: ["" : 21]>
      s (float[4] x) => (float[2] y, string[4] z) <int64 one = {1}> {
        parts = SplitToSequence <axis = 0> (x, two)
        y = SequenceAt (parts, one)
        words = Cast <to = 8> (x)
        z = Identity (words)
      }""".replace("<int64 one = {1}>", "<int64 one = {1}, int64 two = {2}>")
    )
    got = Interpreter(model).run({"x": np.arange(4, dtype=np.float32)})
    assert got["y"].tolist() == [2, 3]
    assert got["z"].tolist() == ["0", "1", "2", "3"]


def test_four_bit_initializers() -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
    q = onnx.helper.make_tensor("q", onnx.TensorProto.INT4, [2], [-8, 7])
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
            onnx.helper.make_node("Add", ["x", "w"], ["y"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [2])],
        [onnx.helper.make_tensor_value_info("y", 1, [2])],
        [q, onnx.helper.make_tensor("s", 1, [], [0.5])],
    )
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]))
    assert x.name in {v.name for v in model.graph.inputs}
    assert Interpreter(model).run({"x": np.zeros(2, np.float32)})["y"].tolist() == [-4.0, 3.5]


QDQ = """<ir_version: 10, opset_import: ["" : 21]>
q (float[6] x) => (float[3, 2] y) <float s = {0.5}, uint8 z = {3}, int64[2] shape = {3, 2}> {
  q = QuantizeLinear (x, s, z)
  r = Reshape (q, shape)
  y = DequantizeLinear (r, s, z)
}"""


def test_quantization_passes_gradients_straight_through_inside_the_clamp() -> None:
    values = [0.25, 0.75, -1.5, -1.6, 126.0, 126.2]  # halves to even; the clamp is at -1.5 and 126
    plain = Interpreter(_parse(QDQ)).run({"x": np.array(values, np.float32)})["y"]
    x = torch.tensor(values, requires_grad=True)
    y = Interpreter(_parse(QDQ)).run({"x": x})["y"]
    assert plain.flatten().tolist() == [0.0, 1.0, -1.5, -1.5, 126.0, 126.0]
    assert torch.equal(plain, y)
    (y * torch.arange(1.0, 7.0).reshape(3, 2)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 2, 3, 0, 5, 0]


def test_a_trainable_scale_gets_the_gradient_of_lsq() -> None:
    s = torch.tensor(0.5, requires_grad=True)
    x = np.array([0.3, 0.8, 200.0, -9.0, 0.0, 1.0], np.float32)
    Interpreter(_parse(QDQ), {"s": s}).run({"x": x})["y"].sum().backward()
    assert s.grad is not None
    # round(x/s) - x/s inside, the clamp's end (252 and -3) outside
    assert s.grad.item() == pytest.approx((1 - 0.6) + (2 - 1.6) + 252 - 3 + 0 + 0, rel=1e-6)  # float32 sums


def test_a_gradient_through_onnxruntime_is_refused() -> None:
    model = _parse("""<ir_version: 10, opset_import: ["" : 21]>
      d (float[2,2] x) => (float y) { y = Det (x) }""")
    model.graph[0].name = "det"
    x = torch.eye(2, requires_grad=True)
    with pytest.raises(UnsupportedError, match=r"node 'det' .*no gradient"):
        Interpreter(model).run({"x": x})
    with torch.no_grad():
        assert Interpreter(model).run({"x": x})["y"].item() == 1


def test_an_unknown_operator_is_named() -> None:
    model = _parse('<ir_version: 10, opset_import: ["" : 21, "x" : 1]> u (float[2] a) => (float[2] b) { b = x.No (a) }')
    with pytest.raises(UnsupportedError, match=r"node 'b' \(No\): ONNX Runtime cannot run it") as caught:
        Interpreter(model).run({"a": np.zeros(2, np.float32)})
    assert "\n" not in str(caught.value)


def test_bad_feeds_are_named() -> None:
    run = Interpreter(_parse(CHAIN)).run
    with pytest.raises(DataError, match="input 'x': no data given"):
        run({})
    with pytest.raises(DataError, match="value 'nothing'"):
        run({"x": np.ones((1, 4), np.float32)}, outputs=["nothing"])
    with pytest.raises(DataError, match=r"node 'a' \(Mul\): cannot run on \(float32\[1, 5\], float32\[4\]\)"):
        run({"x": np.ones((1, 5), np.float32)})


def test_weights_are_shared_not_copied_even_when_read_only() -> None:
    model = _parse(CHAIN)
    array = np.arange(4, dtype=np.float32)
    array.flags.writeable = False
    model.graph.initializers["w"].const_value = ir.tensor(array)
    got = Interpreter(model).run({"x": np.ones((1, 4), np.float32)}, outputs=["w"])["w"]
    assert got.data_ptr() == array.ctypes.data


def test_a_batch_through_an_override_of_a_shape() -> None:
    model = _parse("""<ir_version: 10, opset_import: ["" : 21]>
      r (float[1, 2, 3] x) => (float[1, 6] y) <int64[2] shape = {1, 6}> { y = Reshape (x, shape) }""")
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    got = Interpreter(model, {"shape": torch.tensor([2, 6])}).run({"x": x})["y"]
    assert np.array_equal(got.numpy(), x.reshape(2, 6))
