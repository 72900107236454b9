"""What the operator families share: the shape of a table entry, element types, windows of convolutions and pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from mulshift.ir.graphs import attribute, ints

if TYPE_CHECKING:
    import torch

TorchOp: TypeAlias = Callable[[ir.Node, Sequence[Any]], Any]
"""`run(node, inputs)`: a tensor, a tuple of them, or NotImplemented where ONNX Runtime must run this form."""


def element_type(value: ir.Value | None) -> ir.DataType | None:
    """The ONNX element type of a value as far as the graph knows it."""
    if value is None:
        return None
    return value.dtype or (value.const_value.dtype if value.const_value is not None else None)


def torch_type(code: ir.DataType | int) -> torch.dtype | None:
    """The torch type that carries an ONNX element type exactly; None where torch has none (strings, float8)."""
    import torch

    return {
        "FLOAT": torch.float32,
        "DOUBLE": torch.float64,
        "FLOAT16": torch.float16,
        "BFLOAT16": torch.bfloat16,
        "BOOL": torch.bool,
        "INT8": torch.int8,
        "UINT8": torch.uint8,
        "INT16": torch.int16,
        "UINT16": torch.uint16,
        "INT32": torch.int32,
        "UINT32": torch.uint32,
        "INT64": torch.int64,
        "UINT64": torch.uint64,
    }.get(ir.DataType(code).name)


def integers(tensor: Any) -> list[int]:
    """A shape, axes or index tensor as Python integers."""
    return [int(i) for i in tensor.reshape(-1).tolist()]


def axes_of(node: ir.Node, v: Sequence[Any], position: int = 1) -> list[int] | None:
    """Axes from input `position` (new opsets) or the attribute (old ones); None if neither is there."""
    if len(v) > position and v[position] is not None:
        return integers(v[position])
    return ints(node, "axes")


def elementwise(name: str) -> TorchOp:
    """A table entry that is one torch function of all inputs."""

    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        import torch

        return getattr(torch, name)(*v)

    return run


@dataclass(frozen=True)
class Window:
    """A sliding window over n spatial axes, paddings resolved.

    Attributes:
        kernel, strides, dilations, begin, end: [n] each; end may be negative: the windows do not reach that far.
        out: [n] numbers of windows.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]
    out: list[int]


def window(node: ir.Node, size: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a Conv or pool over spatial `size`, `auto_pad` and `ceil_mode` resolved as ONNX Runtime does."""
    n = len(kernel)
    strides = ints(node, "strides") or [1] * n
    dilations = ints(node, "dilations") or [1] * n
    pads = ints(node, "pads") or [0] * (2 * n)
    begin, end = pads[:n], pads[n:]
    out = []
    for i in range(n):
        reach = (kernel[i] - 1) * dilations[i] + 1
        auto = attribute(node, "auto_pad", "NOTSET")
        if auto == "VALID":
            begin[i] = end[i] = 0
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-size[i] // strides[i])
            total = max((count - 1) * strides[i] + reach - size[i], 0)
            begin[i] = (total if auto == "SAME_UPPER" else total + 1) // 2
            end[i] = total - begin[i]
        room = size[i] + begin[i] + end[i] - reach
        count = room // strides[i] + 1
        if attribute(node, "ceil_mode", 0):
            count = -(-room // strides[i]) + 1
            if (count - 1) * strides[i] >= size[i] + begin[i]:
                count -= 1  # a window that would start in the padding behind the data
            end[i] = (count - 1) * strides[i] + reach - size[i] - begin[i]
        out.append(count)
    return Window(list(kernel), strides, dilations, begin, end, out)


def pad_spatial(x: Any, begin: Sequence[int], end: Sequence[int], value: float = 0) -> Any:
    """Pads (or, where negative, crops) the last len(begin) axes with a constant."""
    from torch.nn import functional

    flat = [p for pair in zip(reversed(begin), reversed(end), strict=True) for p in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x
