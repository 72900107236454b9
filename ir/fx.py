"""A graph as a trainable torch.fx.GraphModule, and its trained weights back into the graph.

Each node becomes a call of its row in `mulshift.ir.torch_ops` (or of whatever else the interpreter would run it by),
so that the module computes the same bits as the interpreter. Quantizers pass gradients straight through inside their
clamp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from mulshift.ir.errors import DataError, UnsupportedError
from mulshift.ir.evaluate import Evaluator
from mulshift.ir.ort_node import captures
from mulshift.ir.tensors import as_array, as_tensor

if TYPE_CHECKING:
    import torch

_INITIALIZERS = "mulshift.initializers"
"""Key in GraphModule.meta: attribute path -> initializer name."""

_TRAINABLE_TYPES = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_WEIGHT_SLOTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Einsum": (0, 1, 2),
    "Gather": (0,),
    "PRelu": (1,),
    "BatchNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
_CARRIERS = {"QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast"}


def is_weight(value: ir.Value) -> bool:
    """Whether an initializer is a float that training should move.

    It is if it arrives, directly or through quantizers and movers, at a weight, bias or affine parameter of an
    operator, or with more than one element at an Add, Sub, Mul or Div. Scales, zero points, running statistics, clamp
    bounds and scalar constants are not.
    """
    tensor = value.const_value
    return tensor is not None and tensor.dtype in _TRAINABLE_TYPES and _arrives(value, tensor.size)


def _arrives(value: ir.Value, size: int) -> bool:
    for node, slot in value.uses():
        if node.op_type in _CARRIERS and slot == 0 and node.domain == "":
            if _arrives(node.outputs[0], size):
                return True
        elif slot in _WEIGHT_SLOTS.get(node.op_type, ()) or (node.op_type in _ARITHMETIC and size > 1):
            return True
    return False


def to_torch(model: ir.Model, trainable: Callable[[ir.Value], bool] = is_weight) -> torch.fx.GraphModule:
    """The model's graph as a module: inputs by position (those without a default), one output or a tuple of them.

    Parameters and buffers are named after the initializers, as far as torch allows: below another initializer's name
    the points become underscores (`conv.weight.scale` -> `conv.weight_scale`).

    Args:
        model: any level; what must be trained must lie behind differentiable operators.
        trainable: which initializers become parameters; the others become buffers. Add scales to learn them too.

    Raises:
        UnsupportedError: an initializer of a type that torch lacks (strings).
    """
    import torch

    root = torch.nn.Module()
    graph = torch.fx.Graph()
    paths = _paths(list(model.graph.initializers))
    made: dict[ir.Value, Any] = {}
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            made[value] = graph.placeholder(str(value.name))
    for name, value in model.graph.initializers.items():
        _attach(root, paths[name], value, trainable(value))
        made[value] = graph.get_attr(paths[name])
    evaluator = Evaluator(model)
    for node in model.graph:
        _call(graph, made, node, evaluator)
    outputs = [made[v] for v in model.graph.outputs]
    graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
    graph.eliminate_dead_code()
    module = torch.fx.GraphModule(root, graph, str(model.graph.name or "Graph").split(".")[-1])
    module.meta[_INITIALIZERS] = {path: name for name, path in paths.items()}
    return module


def from_torch(module: torch.nn.Module, model: ir.Model) -> ir.Model:
    """A copy of `model` with the parameters of `module = to_torch(model)` (trained, moved, reloaded) as its weights.

    Raises:
        DataError: the module does not come from `to_torch`, or a parameter no longer fits its initializer.
    """
    names: Mapping[str, str] = getattr(module, "meta", {}).get(_INITIALIZERS, {})
    if not names:
        raise DataError("module", "was not made by mulshift.ir.to_torch", "pass the GraphModule that to_torch returned")
    copy = model.clone()
    for path, parameter in module.named_parameters():
        value = copy.graph.initializers.get(names.get(path, ""))
        if value is None or value.const_value is None:
            raise DataError(f"parameter '{path}'", "the model has no such initializer", "pass the model it was made of")
        old = value.const_value
        array = as_array(parameter.cpu())
        if list(array.shape) != [int(d) for d in old.shape.numpy()]:
            raise DataError(f"parameter '{path}'", f"has shape {list(array.shape)}, not {old.shape}")
        value.const_value = ir.tensor(array.astype(old.dtype.numpy(), copy=True), dtype=old.dtype, name=value.name)
    return copy


def _call(graph: torch.fx.Graph, made: dict[ir.Value, Any], node: ir.Node, evaluator: Evaluator) -> None:
    """Add a node's call, and one more for each output if it has several."""
    import operator

    outer = captures(node)
    arguments = [None if v is None else made[v] for v in (*node.inputs, *outer)]
    whole = graph.call_function(_function(node, outer, evaluator), tuple(arguments))
    if len(node.outputs) == 1:
        made[node.outputs[0]] = whole
        return
    for i, value in enumerate(node.outputs):
        made[value] = graph.call_function(operator.getitem, (whole, i))


def _function(node: ir.Node, outer: list[ir.Value], evaluator: Evaluator) -> Callable[..., Any]:
    """`f(*inputs, *captured values)`, named after the operator in the module's code."""
    count = len(node.inputs)

    def call(*values: Any) -> Any:
        captured = dict(zip(outer, values[count:], strict=True))
        outputs = evaluator.evaluate(node, values[:count], captured.__getitem__)
        return outputs[0] if len(node.outputs) == 1 else outputs

    call.__name__ = call.__qualname__ = node.op_type
    return call


def _attach(root: torch.nn.Module, path: str, value: ir.Value, trainable: bool) -> None:
    """Make the initializer a parameter or buffer of a module at `path`, and the modules on the way."""
    import torch

    tensor = value.const_value
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        raise UnsupportedError(f"initializer '{value.name}'", "torch has no tensor for it")
    *folders, leaf = path.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            root.add_module(folder, torch.nn.Module())
        root = getattr(root, folder)
    data = as_tensor(tensor.numpy()).clone()
    if trainable:
        root.register_parameter(leaf, torch.nn.Parameter(data))
    else:
        root.register_buffer(leaf, data)


def _paths(names: list[str]) -> dict[str, str]:
    """A path of attributes for each initializer: its name, unless torch cannot hold that."""
    import torch

    reserved = set(dir(torch.nn.Module)) | set(dir(torch.fx.GraphModule)) | {"graph", "training", "meta", ""}
    leaves = set(names)
    paths: dict[str, str] = {}
    used: set[str] = set()
    for name in sorted(names, key=len):
        parts = name.split(".")
        taken = next((i for i in range(1, len(parts)) if ".".join(parts[:i]) in leaves), len(parts))
        parts = [*parts[: taken - 1], "_".join(parts[taken - 1 :])]
        path = ".".join(f"{part}_" if part in reserved else part for part in parts)
        while path in used:
            path += "_"
        used.add(path)
        paths[name] = path
    return paths
