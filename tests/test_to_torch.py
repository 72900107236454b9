"""A graph as a torch module: same bits as the interpreter, trained in an ordinary loop, and back."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from mulshift.ir import (
    DataError,
    Interpreter,
    UnsupportedError,
    difference,
    from_torch,
    is_weight,
    parse,
    show,
    to_torch,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


NET = """mulshift text 1
model {ir_version=10}
graph "net"(%x: f32[N,1,6,6]) -> (%y) {
  opset "" = 21
  %x.s = f32[] [0.02]
  %x.z = u8[] [128]
  %h.s = f32[] [0.02]
  %h.z = u8[] [0]
  %conv.weight: f32[4,1,3,3] = none
  %conv.weight.scale = f32[4] [0.02, 0.02, 0.02, 0.02]
  %conv.weight.zero_point = s8[4] [0, 0, 0, 0]
  %conv.bias = f32[4] [0.0, 0.0, 0.0, 0.0]
  %head.weight: f32[3,16] = none
  %head.bias = f32[3] [0.0, 0.0, 0.0]
  %xq = QuantizeLinear(%x, %x.s, %x.z)
  %xd = DequantizeLinear(%xq, %x.s, %x.z)
  %wq = QuantizeLinear(%conv.weight, %conv.weight.scale, %conv.weight.zero_point) {axis=0}
  %wd = DequantizeLinear(%wq, %conv.weight.scale, %conv.weight.zero_point) {axis=0}
  %a = Conv(%xd, %wd, %conv.bias) {strides=[2, 2]}
  %r = Relu(%a)
  %hq = QuantizeLinear(%r, %h.s, %h.z)
  %flat = Flatten(%hq)
  %hd = DequantizeLinear(%flat, %h.s, %h.z)
  %y = Gemm(%hd, %head.weight, %head.bias) {transB=1}
}
"""


def _net() -> ir.Model:
    rng = np.random.default_rng(0)
    model = parse(NET)
    for name, shape in (("conv.weight", (4, 1, 3, 3)), ("head.weight", (3, 16))):
        array = (rng.normal(size=shape) * 0.5).astype(np.float32)
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return model


def _data(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 1, 6, 6)
    return x, (x[:, 0, :3].sum((1, 2)) > 0).long() + (x[:, 0, 3:].sum((1, 2)) > 2).long()


def test_forward_equals_the_interpreter_with_and_without_gradients() -> None:
    model, (x, _) = _net(), _data()
    module = to_torch(model)
    expected = Interpreter(model).run({"x": x})["y"]
    assert torch.equal(module(x), expected)
    with torch.no_grad():
        assert torch.equal(module(x), expected)


def test_an_ordinary_training_loop_lowers_the_loss_and_comes_back() -> None:
    model, (x, label) = _net(), _data()
    before = show(model)
    module = to_torch(model)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(x), label)
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    trained = from_torch(module, model)
    assert torch.equal(Interpreter(trained).run({"x": x})["y"], module(x))
    assert show(model) == before, "the given model is not changed"
    words = difference(model, trained)
    assert words is not None
    assert "data is" in words
    assert difference(from_torch(to_torch(trained), trained), trained) is None


def test_parameters_are_weights_and_named_after_initializers() -> None:
    module = to_torch(_net())
    names = {"conv.weight", "conv.bias", "head.weight", "head.bias"}
    assert {n for n, _ in module.named_parameters()} == names
    buffers = {n for n, _ in module.named_buffers()}
    assert buffers == {"conv.weight_scale", "conv.weight_zero_point", "x.s", "x.z", "h.s", "h.z"}


def test_scales_can_be_learned_too() -> None:
    model, (x, label) = _net(), _data()
    module = to_torch(model, lambda v: is_weight(v) or str(v.name).endswith(("scale", ".s")))
    torch.nn.functional.cross_entropy(module(x), label).backward()
    for name in ("conv.weight_scale", "x.s", "h.s"):
        grad = module.get_parameter(name).grad
        assert grad is not None
        assert torch.isfinite(grad).all()
        assert grad.abs().sum() > 0
    with torch.no_grad():
        module.get_parameter("conv.weight_scale").mul_(2)
    scales = from_torch(module, model).graph.initializers["conv.weight.scale"].const_value
    assert scales is not None
    assert scales.numpy().tolist() == [np.float32(0.04)] * 4


def test_state_dict_saves_and_loads_with_weights_only(tmp_path: Path) -> None:
    model, (x, _) = _net(), _data(4)
    first, second = to_torch(model), to_torch(model)
    with torch.no_grad():
        for p in first.parameters():
            p.add_(0.1)
    torch.save(first.state_dict(), tmp_path / "w.pt")
    second.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), to_torch(model)(x))


def test_a_deep_copy_trains_alone_and_still_comes_back() -> None:
    model, (x, _) = _net(), _data(4)
    module = to_torch(model)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.get_parameter("head.bias").add_(1)
    assert torch.equal(module(x) + 1, other(x))
    assert torch.equal(Interpreter(from_torch(other, model)).run({"x": x})["y"], other(x))


def test_several_inputs_and_outputs_subgraphs_and_odd_names() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
      many (float[4] x, bool flag) => (float[2] p, float[2] q, float[4] z, float[4] k)
      <float[4] k = {1, 2, 3, 4}, float[4] forward = {5, 6, 7, 8}> {
        s = Add (x, k)
        p, q = Split <num_outputs = 2> (s)
        z = If (flag) <
          then_branch = t () => (float[4] a) { a = Mul (s, forward) },
          else_branch = e () => (float[4] b) { b = Neg (forward) }
        >
      }""")
    model.graph.initializers["k"].name = "/odd/name:0"
    module = to_torch(model)
    x = torch.arange(4.0)
    for flag in (True, False):
        with torch.no_grad():
            got = module(x, torch.tensor(flag))
        expected = Interpreter(model).run({"x": x, "flag": np.array(flag)})
        assert all(torch.equal(g, e) for g, e in zip(got, expected.values(), strict=True))
    with pytest.raises(UnsupportedError, match="no gradient"):
        module(x, torch.tensor(True))
    assert difference(from_torch(module, model), model) is None


def test_names_that_torch_cannot_hold_stay_apart() -> None:
    model = parse("""mulshift text 1
model {ir_version=10}
graph "n"(%x: f32[2]) -> (%y) {
  opset "" = 21
  %a = f32[2] [1.0, 2.0]
  %a.b = f32[2] [3.0, 4.0]
  %a_b = f32[2] [5.0, 6.0]
  %a.b.c = f32[2] [7.0, 8.0]
  %training = f32[2] [9.0, 10.0]
  %1 = Add(%x, %a)
  %2 = Add(%1, %a.b)
  %3 = Add(%2, %a_b)
  %4 = Add(%3, %a.b.c)
  %y = Add(%4, %training)
}
""")
    module = to_torch(model)
    assert len(list(module.parameters())) == 5
    assert module(torch.zeros(2)).tolist() == [25, 30]
    assert difference(from_torch(module, model), model) is None


def test_a_shared_weight_is_one_parameter() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
      s (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { a = MatMul (x, w)  y = MatMul (a, w) }""")
    assert len(list(to_torch(model).parameters())) == 1


def test_half_precision_weights_keep_their_type() -> None:
    model = parse("""mulshift text 1
model {ir_version=10}
graph "h"(%x: bf16[2]) -> (%y) {
  opset "" = 21
  %w = bf16[2] [1.0, 2.0]
  %y = Mul(%x, %w)
}
""")
    module = to_torch(model)
    with torch.no_grad():
        module.get_parameter("w").add_(0.5)
    back = from_torch(module, model).graph.initializers["w"].const_value
    assert back is not None
    assert back.dtype == ir.DataType.BFLOAT16
    assert back.numpy().astype(np.float32).tolist() == [1.5, 2.5]


def test_what_does_not_fit_is_named() -> None:
    model = _net()
    with pytest.raises(DataError, match="not made by"):
        from_torch(torch.nn.Linear(2, 2), model)
    module = to_torch(model)
    module.get_submodule("head").bias = torch.nn.Parameter(torch.zeros(5))
    with pytest.raises(DataError, match=r"parameter 'head.bias': has shape \[5\], not \[3\]"):
        from_torch(module, model)
    other = _net()
    other.graph.initializers["conv.bias"].name = "renamed"
    with pytest.raises(DataError, match=r"parameter 'conv.bias': the model has no such"):
        from_torch(to_torch(model), other)
