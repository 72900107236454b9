"""Attention and Softmax: scores stay integers from the product of queries and keys to the product with the values."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import onnx_ir as ir

from mulshift.ir import AccumulatorOverflowError, attribute, describe, rank
from mulshift.ir.dyadic import INT32_LIMIT
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.ir.operators.attention import attention_bound, attention_dyadics
from mulshift.ir.operators.softmax import LOG2_E, MOST_KEYS, softmax_dyadics
from mulshift.passes.integer.forms import NoFormError, Output
from mulshift.passes.integer.quantization import storage

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def attention(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """u8 queries, s8 keys and values; see `mulshift.ir.operators.attention`."""
    if node.domain != FLOAT_DOMAIN:
        raise NoFormError("no integer form of this Attention; run fuse before")
    q = low.as_unsigned(low.require(node.inputs[0]))
    k, v = (low.as_signed(low.require(value)) for value in node.inputs[1:3])
    depth, keys = _size(node.inputs[0], 3), _size(node.inputs[1], 1)
    if depth is None:
        raise NoFormError("the size of its heads is not known")
    zero_points = int(q.q.zero_point), int(k.q.zero_point), int(v.q.zero_point)
    most = MOST_KEYS if keys is None else keys
    bound = attention_bound(depth, most, zero_points)
    if bound >= INT32_LIMIT or most > MOST_KEYS:
        raise AccumulatorOverflowError(
            describe(node), f"its int32 sums over {most} keys may reach {bound}, beyond 2^31", "leave it in float"
        )
    scale = float(attribute(node, "scale", 1.0)) * float(q.q.scale) * float(k.q.scale)
    if scale <= 0:
        raise NoFormError(f"its scale {scale:g} is not positive")
    score, share = attention_dyadics(Fraction(scale) * LOG2_E, float(v.q.scale) / float(out.q.scale))
    attributes = {
        **dict(zip(("q_zero_point", "k_zero_point", "v_zero_point"), zero_points, strict=True)),
        "score_multiplier": score.b,
        "score_shift": score.c,
        "multiplier": share.b,
        "shift": share.c,
    }
    inputs = [q.value, k.value, v.value, *(m for m in node.inputs[3:4] if m is not None)]
    made = low.mulshift(node.op_type, inputs, attributes, out, bound, None)
    if keys is None:
        low.assume(made, f"at most {MOST_KEYS} keys")
    return made


def softmax(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """Over one axis, which is moved to the end and back; see `mulshift.ir.operators.softmax`."""
    x, dims, axis = low.require(node.inputs[0]), rank(node.inputs[0]), int(attribute(node, "axis", -1))
    if dims is None and axis != -1:
        raise NoFormError("the rank of its input is not known")
    perm = [] if dims is None or axis in (-1, dims - 1) else list(range(dims))
    if perm:
        perm[axis], perm[-1] = perm[-1], perm[axis]
    score, share = softmax_dyadics(float(x.q.scale), 1 / float(out.q.scale))
    attributes = {
        "score_multiplier": score.b,
        "score_shift": score.c,
        "multiplier": share.b,
        "shift": share.c,
    }
    moved = low.standard("Transpose", [x.value], {"perm": perm}, storage(x.q.spec)) if perm else x.value
    made = low.mulshift("Softmax", [moved], attributes, out, 2 * x.q.magnitude, None)
    return low.standard("Transpose", [made], {"perm": perm}, out.dtype, out.value.shape) if perm else made


def _size(value: ir.Value | None, axis: int) -> int | None:
    shape = None if value is None else value.shape
    size = None if shape is None or len(shape) <= axis else shape[axis]
    return size if isinstance(size, int) else None
