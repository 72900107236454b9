"""Any chain of elementwise functions of one integer tensor as one table, computed from the real functions.

Starting at a value, the region of elementwise nodes in front of it is followed back to its leaves. If these are scalar
constants and one integer tensor, the region is evaluated in float64 on every integer of that tensor: 256 entries for
8 bits, 65,536 for 16. `x * sigmoid(x)`, a decomposed GELU or HardSwish, `Pow`, `2x + 1`: all one table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import DOMAIN, Array, MulshiftError, QParams
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.passes.integer.constants import real_constant
from mulshift.passes.integer.forms import NoFormError, Output, asked_to_stay
from mulshift.passes.integer.quantization import storage

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

UNARY = frozenset(
    "Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity"
    " IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign"
    " Sqrt Swish Tan Tanh ThresholdedRelu".split()
)
NARY = frozenset(
    "Add And Clip Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow PRelu Sub Sum Where"
    " Xor".split()
)
_LARGEST_REGION = 64


def table(low: Lowering, out: Output) -> ir.Value | None:
    """The output of a Table node for `out.value`, or None if it is no function of one tensor alone.

    Raises:
        NoFormError: it is, but a function in it cannot be evaluated.
    """
    region = _region(low, out.value)
    if region is None:
        return None
    root, nodes = region
    entries = _entries(low, root, nodes, out)
    x = low.known[root]
    if entries.dtype == integers(x.q).dtype and np.array_equal(entries, integers(x.q)):
        return low.standard("Identity", [x.value], {}, out.dtype, out.value.shape)  # the scale alone changes
    name = f"{out.value.name}.table"
    inputs = [x.value, low.const(name, entries)]
    return low.write("Table", inputs, {}, DOMAIN, [(out.dtype, out.value.shape)])[0]


def _region(low: Lowering, value: ir.Value) -> tuple[ir.Value, list[ir.Node]] | None:
    """(root, nodes in order of evaluation): the root has an integer tensor with one scale."""
    roots: dict[ir.Value, None] = {}
    nodes: dict[ir.Node, None] = {}
    pending = [value]
    while pending:
        found = pending.pop()
        array = real_constant(found)
        if array is not None:
            if array.size != 1:
                return None
        elif low.lookup(found) is not None:
            roots[found] = None
        else:
            node = found.producer()
            if node is None or not _elementwise(low, node) or len(nodes) >= _LARGEST_REGION:
                return None
            nodes[node] = None
            pending.extend(v for v in node.inputs if v is not None)
    if len(roots) != 1:
        return None
    root = next(iter(roots))
    return (root, _ordered(list(nodes), root)) if low.known[root].q.per_tensor else None


def _ordered(nodes: Sequence[ir.Node], root: ir.Value) -> list[ir.Node]:
    done: list[ir.Node] = []
    ready = {root}
    waiting = list(nodes)
    inside = {v for n in nodes for v in n.outputs}
    while waiting:
        for node in waiting:
            if all(v is None or v not in inside or v in ready for v in node.inputs):
                break
        waiting.remove(node)
        done.append(node)
        ready.update(node.outputs)
    return done


def _elementwise(low: Lowering, node: ir.Node) -> bool:
    if len(node.outputs) != 1 or asked_to_stay(node):
        return False
    if node.domain in ("", "ai.onnx"):
        return node.op_type in UNARY or node.op_type in NARY
    if node.domain != FLOAT_DOMAIN:
        return False
    function = low.model.functions.get(node.op_identifier())
    return node.op_type in UNARY or (function is not None and all(_elementwise(low, n) for n in function))


def integers(q: QParams) -> Array:
    """Every integer of a type, ordered by its bits: 0, 1, ..., then the negative ones."""
    dtype = storage(q.spec).numpy()
    return np.arange(2 ** (8 * dtype.itemsize)).astype(dtype.str.replace("i", "u")).view(dtype)


def _entries(low: Lowering, root: ir.Value, nodes: Sequence[ir.Node], out: Output) -> Array:
    q = low.known[root].q
    x = (integers(q).astype(np.float64) - int(q.zero_point)) * float(q.scale)
    env: dict[ir.Value, Any] = {root: x}
    with np.errstate(all="ignore"):
        y = _evaluate(low, nodes, env)[out.value]
        y = np.nan_to_num(np.broadcast_to(np.asarray(y, np.float64), x.shape), nan=0.0, posinf=np.inf, neginf=-np.inf)
        steps = np.rint(y / float(out.q.scale)) + int(out.q.zero_point)
    return np.asarray(np.clip(steps, out.low, out.high), out.dtype.numpy())


def _evaluate(low: Lowering, nodes: Sequence[ir.Node], env: dict[ir.Value, Any]) -> Mapping[ir.Value, Any]:
    for node in nodes:
        values = [None if v is None else env[v] if v in env else _constant(v) for v in node.inputs]
        env[node.outputs[0]] = _run(low, node, values)
    return env


def _constant(value: ir.Value) -> Any:
    array = real_constant(value)
    if array is None:
        raise NoFormError(f"'{value.name}' is not constant")
    dtype = value.dtype
    boolean = dtype == ir.DataType.BOOL
    return array.reshape(()).astype(np.bool_) if boolean else array.reshape(())


def _run(low: Lowering, node: ir.Node, values: Sequence[Any]) -> Any:
    """One node in float64, by the torch table or the function's body; by ONNX Runtime, in float32 if it must."""
    import torch

    from mulshift.ir.ort_node import run_node
    from mulshift.ir.torch_ops import TORCH_OPS

    if node.op_type == "Cast":
        return _cast(node, values[0])
    tensors = [None if v is None else torch.from_numpy(np.asarray(v).copy()) for v in values]
    run = TORCH_OPS.get((node.domain, node.op_type))
    if run is not None:
        made = run(node, tensors)
        if made is not NotImplemented:
            return (made[0] if isinstance(made, tuple) else made).numpy()
    function = low.model.functions.get(node.op_identifier())
    if function is not None:
        inner = dict(zip(function.inputs, values, strict=False))
        return _evaluate(low, list(function), inner)[function.outputs[0]]
    for dtype in (torch.float64, torch.float32):
        cast = [t if t is None or not t.is_floating_point() else t.to(dtype) for t in tensors]
        try:
            return run_node({}, node, cast, _nothing, low.model)[0].numpy().astype(np.float64)
        except MulshiftError as e:
            failed = e
    raise NoFormError(f"{node.op_type} cannot be evaluated ({failed.cause})")


def _nothing(value: ir.Value) -> Any:
    raise NoFormError(f"'{value.name}' is not constant")


def _cast(node: ir.Node, x: Any) -> Any:
    to = ir.DataType(node.attributes["to"].value)
    if to.is_floating_point():
        return np.asarray(x, np.float64)
    if to == ir.DataType.BOOL:
        return np.asarray(x).astype(np.bool_)
    return np.trunc(np.asarray(x, np.float64))
