"""Modules, programs, .pt2 files and fx graphs: numbers, names, dynamic dimensions, modes, errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import zoo
from importing import run
from torch import Tensor, nn

from mulshift.ir import Level, ModelError, UsageError, get_level, load, origin

BATCH, WIDTH = torch.export.Dim("batch"), torch.export.Dim("width", min=6, max=64)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(3)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.act(self.bn(self.conv(x))) + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(), Block())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.drop(self.body(image).mean((2, 3))))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(net: Net, image: Tensor) -> ir.Model:
    """The net as its exporter sees it in training mode, with one layer frozen."""
    net.train()
    net.body[1].eval()
    return load(net, (image,), ({0: BATCH, 3: WIDTH},))


def test_operators_are_what_the_module_says(model: ir.Model) -> None:
    block = ["Conv", "BatchNormalization", "Relu", "Add", "Relu"]
    assert [node.op_type for node in model.graph] == [*block, *block, "ReduceMean", "Gemm"]
    assert get_level(model) is Level.FLOAT
    assert model.opset_imports[""] >= 21
    assert not model.functions


def test_origins_are_module_paths(model: ir.Model) -> None:
    block = ["conv", "bn", "act", "add_23", "relu_1"]
    found = [origin(node) for node in model.graph]
    assert all(len(o) == 1 for o in found)
    assert [o[0] for o in found][:3] == [f"body.0.{k}" for k in block[:3]]
    assert [o[0] for o in found][5:8] == [f"body.1.{k}" for k in block[:3]]
    assert [o[0].rsplit(".", 1)[0] for o in found][3:5] == ["body.0", "body.0"]  # the block's own `+` and relu
    assert [o[0] for o in found][-2:] == ["mean", "head"]
    assert len(set(found)) == len(found)


def test_inputs_keep_names_and_dimensions(model: ir.Model) -> None:
    assert [(v.name, str(v.shape)) for v in model.graph.inputs] == [("image", "[batch,3,8,width]")]
    assert str(model.graph.outputs[0].shape) == "[batch,2]"


def test_numbers_of_eval_mode_and_modes_restored(net: Net, image: Tensor, model: ir.Model) -> None:
    assert net.training
    assert net.drop.training
    assert not net.body[1].training
    twin = Net().eval()
    twin.load_state_dict(net.state_dict())
    for x in (image, torch.cat([image, image], 3)):
        expected = twin(x).detach().numpy()
        # two float implementations of the same convolutions
        np.testing.assert_allclose(run(model, {"image": x.numpy()})[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_inputs_by_name_and_as_arrays(net: Net, image: Tensor, model: ir.Model) -> None:
    for inputs in ({"image": image}, (image.numpy(),), image):
        other = load(net, inputs)
        assert [n.op_type for n in other.graph] == [n.op_type for n in model.graph]
        assert str(other.graph.inputs[0].shape) == "[2,3,8,8]"


def test_programs_and_files(tmp_path: Path, net: Net, image: Tensor, model: ir.Model) -> None:
    shapes = ({0: BATCH, 3: WIDTH},)
    program = torch.export.export(net.eval(), (image,), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    expected = run(model, {"image": image.numpy()})[0]
    for source in (program, tmp_path / "net.pt2"):
        made = load(source, dynamic_shapes=shapes)
        assert str(made.graph.inputs[0].shape) == "[batch,3,8,width]"
        assert [origin(n) for n in made.graph][-1] == ("head",)
        assert np.array_equal(run(made, {"image": image.numpy()})[0], expected)
    assert str(load(program).graph.inputs[0].shape).startswith("[s")  # torch keeps no names of its own


@pytest.mark.slow
def test_fx_graphs_and_modules_of_programs(net: Net, image: Tensor, model: ir.Model) -> None:
    expected = run(model, {"image": image.numpy()})[0]
    for module in (torch.fx.symbolic_trace(net.eval()), torch.export.export(net.eval(), (image,)).module()):
        assert np.array_equal(run(load(module, (image,)), {"image": image.numpy()})[0], expected)


@pytest.mark.parametrize("name", zoo.ZOO)
@pytest.mark.slow
def test_zoo(name: str) -> None:
    module, inputs, samples = zoo.make(name, samples=2)
    model = load(module, inputs)
    names = [str(v.name) for v in model.graph.inputs]
    for sample in samples:
        expected = module(*sample)
        expected = expected if isinstance(expected, tuple) else (expected,)
        made = run(model, dict(zip(names, (t.numpy() for t in sample), strict=True)))
        for e, m in zip(expected, made, strict=True):
            np.testing.assert_allclose(m, e.detach().numpy(), rtol=1e-4, atol=1e-5)  # two float implementations


class Data(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Eigen(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "module, inputs, message",
    [
        (Data(), (torch.eye(2),), "GuardOnDataDependentSymNode"),
        (Eigen(), (torch.eye(2),), "No ONNX function found for <OpOverload(op='aten.linalg_eig'"),
        (nn.Linear(3, 2), (torch.eye(2),), "a and b must have same reduction dim"),
    ],
)
def test_what_torch_cannot_export(module: nn.Module, inputs: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(module, inputs)
    assert str(caught.value).startswith(f"module {type(module).__name__}: torch cannot export it (")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_needs_inputs(net: Net) -> None:
    with pytest.raises(UsageError, match=r"^module Net: needs example inputs"):
        load(net)


def test_torchscript_modules_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match=r"^TorchScript module"):
        load(script, (torch.zeros(1, 2),))


def test_export_is_silent(net: Net, image: Tensor, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(net, (image,))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_weights_that_are_not_finite_are_named(image: Tensor) -> None:
    bad: Callable[[], Net] = Net
    module = bad()
    module.head.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"^initializer 'head\.weight' of node '.*' \(Gemm, from head\): holds NaN"):
        load(module, (image,))
