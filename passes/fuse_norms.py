"""LayerNormalization, RMSNormalization and Softmax that an exporter took apart: rewrite rules of onnxscript."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRule
from onnxscript.rewriter.pattern import OrValue

from mulshift.ir import Array, attribute, constant, ints, rank, scalar, static_shape
from mulshift.ir.float_functions import DOMAIN, domain_of


def _square(op: Any, v: Any, two: Any) -> Any:
    return OrValue([op.Mul(v, v), op.Pow(v, two)])


def _deviation(op: Any, squares: Any, epsilon: Any, names: str) -> Any:
    """`sqrt(mean(squares) + epsilon)`."""
    mean = op.ReduceMean(squares, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=[names])
    return op.Sqrt(op.Add(mean, epsilon))


def _centred(op: Any, x: Any) -> Any:
    mean = op.ReduceMean(x, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["mean"])
    return op.Sub(x, mean)


def _layer_norm_div(op: Any, x: Any, epsilon: Any, two: Any) -> Any:
    d = _centred(op, x)
    return op.Div(d, _deviation(op, _square(op, d, two), epsilon, "variance"))


def _layer_norm_mul(op: Any, x: Any, epsilon: Any, two: Any) -> Any:
    d = _centred(op, x)
    return op.Mul(d, op.Reciprocal(_deviation(op, _square(op, d, two), epsilon, "variance")))


def _rms_norm_div(op: Any, x: Any, epsilon: Any, two: Any) -> Any:
    return op.Div(x, _deviation(op, _square(op, x, two), epsilon, "mean"))


def _rms_norm_mul(op: Any, x: Any, epsilon: Any, two: Any) -> Any:
    return op.Mul(x, op.Reciprocal(_deviation(op, _square(op, x, two), epsilon, "mean")))


def _l2_norm(op: Any, x: Any) -> Any:
    length = op.ReduceL2(x, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["length"])
    return op.Div(x, length)


def _l2_norm_clipped(op: Any, x: Any, least: Any) -> Any:
    """torch.nn.functional.normalize; `least` matters for vectors shorter than it alone."""
    length = op.ReduceL2(x, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["length"])
    spread = op.Expand(op.Clip(length, least), _allow_other_inputs=True)
    return op.Div(x, OrValue([op.Clip(length, least), spread]))


def _l2_norm_operator(op: Any, x: Any) -> Any:
    return op.LpNormalization(x, _allow_other_attributes=True, _outputs=["length"])


def _normalized_axis(x: ir.Value, reductions: list[ir.Value]) -> int | str:
    """The first of the trailing axes that all reductions run over, or what is wrong with them."""
    n = rank(x)
    if n is None:
        return "the rank of its input is unknown"
    found = set()
    for value in reductions:
        axes = reduced_axes(value.producer(), n)
        if axes is None or not attribute(value.producer(), "keepdims", 1):  # type: ignore[arg-type]
            return "a mean has unknown axes or drops them"
        found.add(tuple(axes))
    if len(found) != 1:
        return "its means run over different axes"
    axes = sorted(found.pop())
    return (
        axes[0] if axes == list(range(axes[0], n)) else f"it normalizes over axes {axes}, which are not the last ones"
    )


def reduced_axes(node: ir.Node | None, n: int) -> list[int] | None:
    """Axes of a reduction of a tensor of rank n, from 0 up; None if they are computed."""
    if node is None:
        return None
    axes: Any = ints(node, "axes")
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant(node.inputs[1])
        if array is None:
            return None
        axes = array.reshape(-1).tolist()
    if not axes:
        return None if attribute(node, "noop_with_empty_axes", 0) else list(range(n))
    return sorted(a % n for a in axes)


def _check_norm(last_axis_only: bool) -> Callable[..., MatchResult]:
    def check(context: Any, x: ir.Value, epsilon: ir.Value, two: ir.Value | None, **found: Any) -> MatchResult:
        result = MatchResult()
        reductions = [found[k] for k in ("mean", "variance") if isinstance(found.get(k), ir.Value)]
        axis = _normalized_axis(x, reductions)
        if isinstance(axis, str):
            return result.fail(axis)
        if last_axis_only and axis != (rank(x) or 0) - 1:
            return result.fail("RMSNormalization is known over the last axis alone")
        small = scalar(epsilon)
        if small is None or small < 0:
            return result.fail("what is added to the variance is not a constant")
        if isinstance(two, ir.Value) and scalar(two) != 2:
            return result.fail("the power is not 2")
        if _sizes(x, axis) is None:
            return result.fail("the size of the normalized axes is unknown")
        return result

    return check


def _sizes(x: ir.Value, axis: int) -> tuple[int, ...] | None:
    dims = [] if x.shape is None else list(x.shape)[axis:]
    return tuple(d for d in dims if isinstance(d, int)) if all(isinstance(d, int) for d in dims) else None


def _ones(op: Any, x: ir.Value, axis: int, name: str) -> ir.Value:
    assert x.dtype is not None
    sizes = _sizes(x, axis)
    assert sizes is not None
    return op.initializer(ir.tensor(np.ones(sizes, x.dtype.numpy())), name)  # type: ignore[no-any-return]


def _write_layer_norm(op: Any, x: ir.Value, epsilon: ir.Value, mean: ir.Value, variance: ir.Value, **_: Any) -> Any:
    axis = _normalized_axis(x, [mean, variance])
    assert isinstance(axis, int)
    scale = _ones(op, x, axis, f"{x.name}.norm.scale")
    return op.LayerNormalization(x, scale, axis=axis - (rank(x) or 0), epsilon=float(scalar(epsilon) or 0.0))


def _write_rms_norm(model: ir.Model) -> Callable[..., Any]:
    def write(op: Any, x: ir.Value, epsilon: ir.Value, **_: Any) -> Any:
        domain = domain_of(model, "RMSNormalization")
        scale = _ones(op, x, (rank(x) or 1) - 1, f"{x.name}.norm.scale")
        more: dict[str, Any] = {"_domain": domain, "_version": 1} if domain else {"axis": -1}
        return op.RMSNormalization(x, scale, epsilon=float(scalar(epsilon) or 0.0), **more)

    return write


_TINY_LENGTH = 1e-6


def _check_l2_norm(context: Any, x: ir.Value, length: ir.Value, least: ir.Value | None = None, **_: Any) -> MatchResult:
    result = MatchResult()
    n, node = rank(x), length.producer()
    if n is None or node is None or _sizes(x, n - 1) is None:
        return result.fail("the size of the normalized axis is unknown")
    if node.op_type == "LpNormalization":
        fits = attribute(node, "p", 2) == 2 and attribute(node, "axis", -1) in (-1, n - 1)
        return result if fits else result.fail("it is no L2 norm over the last axis")
    if reduced_axes(node, n) != [n - 1] or not attribute(node, "keepdims", 1):
        return result.fail("it is no norm over the last axis")
    smallest = 0.0 if least is None else scalar(least)
    if smallest is None or smallest > _TINY_LENGTH:
        return result.fail("the least length is not a small constant")
    return result


def _write_l2_norm(model: ir.Model) -> Callable[..., Any]:
    """`x / |x| = RMSNormalization(x) / sqrt(n)`."""

    def write(op: Any, x: ir.Value, **_: Any) -> Any:
        domain = domain_of(model, "RMSNormalization")
        sizes = _sizes(x, (rank(x) or 1) - 1)
        assert sizes is not None and x.dtype is not None
        factor = np.full(sizes, sizes[0] ** -0.5, x.dtype.numpy())
        scale = op.initializer(ir.tensor(factor), f"{x.name}.norm.scale")
        more: dict[str, Any] = {"_domain": domain, "_version": 1} if domain else {"axis": -1}
        return op.RMSNormalization(x, scale, epsilon=0.0, **more)

    return write


def _scale_layer_norm(op: Any, x: Any, scale: Any, factor: Any) -> Any:
    return op.Mul(op.LayerNormalization(x, scale, _allow_other_attributes=True, _outputs=["norm"]), factor)


def _scale_rms_norm(op: Any, x: Any, scale: Any, factor: Any) -> Any:
    return op.Mul(op.RMSNormalization(x, scale, _allow_other_attributes=True, _outputs=["norm"]), factor)


def _scale_rms_function(op: Any, x: Any, scale: Any, factor: Any) -> Any:
    norm = op.RMSNormalization(x, scale, _domain=DOMAIN, _allow_other_attributes=True, _outputs=["norm"])
    return op.Mul(norm, factor)


def _check_affine(context: Any, norm: ir.Value, **found: Any) -> MatchResult:
    """A constant over the normalized axes alone goes into the scale or the bias."""
    result = MatchResult()
    node = norm.producer()
    operand = found.get("factor", found.get("shift"))
    scale = None if node is None else static_shape(node.inputs[1])
    array = constant(operand)
    if array is None or scale is None or constant(node.inputs[1]) is None:  # type: ignore[union-attr]
        return result.fail("what follows the normalization is not constant")
    if _over_normalized(array, scale) is None:
        return result.fail("what follows the normalization varies over other axes than the normalized ones")
    return result


def _over_normalized(array: Array, sizes: tuple[int, ...]) -> Array | None:
    """The array in the shape of the normalized axes, None if it varies over others."""
    while array.ndim > len(sizes) and array.shape[0] == 1:
        array = array[0]
    fits = array.ndim <= len(sizes) and all(a in (1, s) for a, s in zip(array.shape[::-1], sizes[::-1], strict=False))
    return np.broadcast_to(array, sizes) if fits else None


def _rewrite_norm(op: Any, node: ir.Node, inputs: list[ir.Value]) -> Any:
    more: dict[str, Any] = {"_domain": node.domain, "_version": 1} if node.domain else {}
    return getattr(op, node.op_type)(*inputs, **dict(node.attributes), **more)


def _write_scaled(op: Any, norm: ir.Value, x: ir.Value, scale: ir.Value, factor: ir.Value, **_: Any) -> Any:
    node = norm.producer()
    old, array = constant(scale), constant(factor)
    assert node is not None and old is not None and array is not None
    wide = _over_normalized(array, old.shape)
    assert wide is not None
    product = (old.astype(np.float64) * wide).astype(old.dtype)
    return _rewrite_norm(op, node, [x, op.initializer(ir.tensor(product), f"{factor.name}.norm")])


def _shifted(op: Any, x: Any, scale: Any, shift: Any) -> Any:
    return op.Add(op.LayerNormalization(x, scale, _allow_other_attributes=True, _outputs=["norm"]), shift)


def _write_shifted(op: Any, norm: ir.Value, x: ir.Value, scale: ir.Value, shift: ir.Value, **_: Any) -> Any:
    node = norm.producer()
    old, array = constant(scale), constant(shift)
    assert node is not None and old is not None and array is not None
    wide = _over_normalized(array, old.shape)
    assert wide is not None
    bias = op.initializer(ir.tensor(np.ascontiguousarray(wide.astype(old.dtype))), f"{shift.name}.norm")
    return _rewrite_norm(op, node, [x, scale, bias])


def _softmax_stable(op: Any, x: Any) -> Any:
    top = op.ReduceMax(x, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["top"])
    return _share(op, op.Exp(op.Sub(x, top)))


def _softmax_plain(op: Any, x: Any) -> Any:
    return _share(op, op.Exp(x))


def _share(op: Any, e: Any) -> Any:
    return op.Div(e, op.ReduceSum(e, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["total"]))


def _check_softmax(context: Any, x: ir.Value, total: ir.Value, top: ir.Value | None = None, **_: Any) -> MatchResult:
    result = MatchResult()
    n = rank(x)
    if n is None:
        return result.fail("the rank of its input is unknown")
    for value in (v for v in (total, top) if v is not None):
        axes = reduced_axes(value.producer(), n)
        if axes is None or len(axes) != 1 or axes != reduced_axes(total.producer(), n):
            return result.fail("its sum and maximum do not run over one axis")
        if not attribute(value.producer(), "keepdims", 1):  # type: ignore[arg-type]
            return result.fail("its sum or maximum drops the axis")
    return result


def _write_softmax(op: Any, x: ir.Value, total: ir.Value, **_: Any) -> Any:
    n = rank(x) or 1
    axes = reduced_axes(total.producer(), n)
    assert axes is not None
    return op.Softmax(x, axis=axes[0] - n)


def rules(model: ir.Model) -> Iterator[RewriteRule]:
    """The rules in the order in which they are tried; several orders of operands for one name."""
    norm, rms = _check_norm(last_axis_only=False), _check_norm(last_axis_only=True)
    write_rms = _write_rms_norm(model)
    rows: list[tuple[str, Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = [
        ("LayerNormalization", _layer_norm_div, _write_layer_norm, norm),
        ("LayerNormalization", _layer_norm_mul, _write_layer_norm, norm),
        ("RMSNormalization", _rms_norm_div, write_rms, rms),
        ("RMSNormalization", _rms_norm_mul, write_rms, rms),
        ("L2 norm as RMSNormalization", _l2_norm, _write_l2_norm(model), _check_l2_norm),
        ("L2 norm as RMSNormalization", _l2_norm_clipped, _write_l2_norm(model), _check_l2_norm),
        ("L2 norm as RMSNormalization", _l2_norm_operator, _write_l2_norm(model), _check_l2_norm),
        ("scale of a normalization", _scale_layer_norm, _write_scaled, _check_affine),
        ("scale of a normalization", _scale_rms_norm, _write_scaled, _check_affine),
        ("scale of a normalization", _scale_rms_function, _write_scaled, _check_affine),
        ("bias of a normalization", _shifted, _write_shifted, _check_affine),
        ("Softmax", _softmax_stable, _write_softmax, _check_softmax),
        ("Softmax", _softmax_plain, _write_softmax, _check_softmax),
    ]
    for name, pattern, write, check in rows:
        yield from RewriteRule(pattern, write, check, name=name).commute()
