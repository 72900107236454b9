"""Padding in one place: explicit numbers instead of `auto_pad`, and no Pad node where the window can do it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from mulshift.ir import attribute, constant, inherit_origin, ints, rank, scalar, sole_user
from mulshift.passes.base import Pass
from mulshift.passes.shape_values import Dim, dims_of

_WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool")
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus", "Sqrt")


def explicit_pads(owner: Pass, model: ir.Model) -> None:
    """Replace `auto_pad` of Conv and pools by `pads`.

    SAME: `total = max(0, (ceil(x / s) - 1) * s + (k - 1) * d + 1 - x)`, the larger half at the end (UPPER) or the
    beginning (LOWER). With s = 1 it does not depend on x.
    """
    for node in model.graph:
        mode = attribute(node, "auto_pad", "NOTSET")
        if node.op_type not in _WINDOWED or node.domain != "" or mode == "NOTSET":
            continue
        if node.op_type != "Conv" and mode != "VALID" and any(d != 1 for d in ints(node, "dilations", [1]) or []):
            owner.skipped(node, f"auto_pad {mode} stays: runtimes differ in what it means for a dilated pool")
            continue
        pads = _resolve(node, mode)
        if pads is None:
            owner.skipped(node, f"auto_pad {mode} stays: the padding depends on a size that is not known")
            continue
        del node.attributes["auto_pad"]
        node.attributes.pop("pads", None)
        if any(pads):
            node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        owner.changed(node, f"auto_pad {mode} is pads {pads}")


def _resolve(node: ir.Node, mode: str) -> list[int] | None:
    kernel = _kernel(node)
    if kernel is None:
        return None
    n = len(kernel)
    if mode == "VALID":
        return [0] * (2 * n)
    dims = dims_of(node.inputs[0])
    spatial: Sequence[Dim] = [None] * n if dims is None else dims[2:]
    strides, dilations = ints(node, "strides", [1] * n), ints(node, "dilations", [1] * n)
    begin, end = [], []
    for x, k, s, d in zip(spatial, kernel, strides or [], dilations or [], strict=True):
        reach = (k - 1) * d + 1
        if s != 1 and not isinstance(x, int):
            return None
        total = reach - 1 if not isinstance(x, int) or s == 1 else max(0, (-(-x // s) - 1) * s + reach - x)
        small, large = total // 2, total - total // 2
        begin.append(small if mode == "SAME_UPPER" else large)
        end.append(large if mode == "SAME_UPPER" else small)
    return begin + end


def _kernel(node: ir.Node) -> list[int] | None:
    given = ints(node, "kernel_shape")
    if given is not None or node.op_type != "Conv":
        return given
    dims = dims_of(node.inputs[1])
    return None if dims is None else [d for d in dims[2:] if isinstance(d, int)]


def pad_into_pool(owner: Pass, model: ir.Model) -> None:
    """Fold a constant spatial Pad into the pool that alone reads it.

    MaxPool ignores padding, so a padded value must never win: it is -inf, or 0 where x >= 0.
    AveragePool counts zeros with `count_include_pad`.
    """
    for pad in list(model.graph):
        pool = sole_user(pad.outputs[0]) if pad.op_type == "Pad" and pad.domain == "" else None
        if pool is None or pool.op_type not in ("MaxPool", "AveragePool") or pool.domain != "":
            continue
        reason, pads = _foldable(pad, pool)
        if reason:
            owner.skipped(pad, f"not folded into {pool.op_type} '{pool.name}': {reason}")
            continue
        old = ints(pool, "pads", [0] * len(pads)) or []
        pool.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(old, pads, strict=True)])
        if pool.op_type == "AveragePool":
            pool.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        pool.replace_input_with(0, pad.inputs[0])
        inherit_origin([pool], [pad, pool])
        owner.changed(pad, f"folded into {pool.op_type} '{pool.name}'")
        model.graph.remove(pad, safe=True)


def _foldable(pad: ir.Node, pool: ir.Node) -> tuple[str, list[int]]:
    """("", pads of the spatial axes) or (why not, [])."""
    pads = spatial_pads(pad)
    kernel = ints(pool, "kernel_shape") or []
    old = ints(pool, "pads", [0] * (2 * len(kernel))) or []
    if pads is None or len(pads) != len(old):
        return "it pads other axes, other than constant, or by numbers that are not known", []
    if any(v.uses() or v.is_graph_output() for v in pool.outputs[1:]):
        return "the indices of the maxima are read", []
    if min(pads) < 0:
        return "it crops", []
    if attribute(pool, "ceil_mode", 0) or attribute(pool, "auto_pad", "NOTSET") != "NOTSET":
        return "ceil_mode or auto_pad counts padding in another way", []
    if any(d != 1 for d in ints(pool, "dilations", [1]) or []):
        return "a dilated window may lie in padding alone", []
    if any(a + b >= k for a, b, k in zip(old, pads, kernel * 2, strict=True)):
        return "the padding is as large as the window", []
    number = _pad_value(pad)
    if pool.op_type == "AveragePool":
        zeros = number == 0 and (not any(old) or attribute(pool, "count_include_pad", 0) == 1)
        return ("" if zeros else "it pads with another value than 0, or the pool's own padding is not counted"), pads
    if number == 0 and any(old):
        return "the pool's own padding would see the zeros", []
    lowest = number is not None and number <= np.finfo(np.float32).min
    positive = number == 0 and _never_negative(pad.inputs[0])
    return ("" if lowest or positive else "the padded value may be the maximum"), pads


def _pad_value(pad: ir.Node) -> float | None:
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    return 0.0 if value is None else scalar(value)


def spatial_pads(pad: ir.Node) -> list[int] | None:
    """Begin and end pads of axes 2, 3, ...; None if they are not constant, or if other axes or modes are padded."""
    n = rank(pad.inputs[0])
    pads = constant(pad.inputs[1])
    axes = constant(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else np.arange(n or 0)
    if n is None or n < 3 or pads is None or axes is None or attribute(pad, "mode", "constant") != "constant":
        return None
    full = np.zeros((2, n), np.int64)
    full[:, axes.reshape(-1)] = pads.reshape(2, -1)
    return None if full[:, :2].any() else [int(p) for p in full[:, 2:].reshape(-1)]


def _never_negative(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    if node is None or node.domain != "":
        return False
    if node.op_type == "Clip":
        low = scalar(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and low >= 0
    return node.op_type in _NEVER_NEGATIVE
