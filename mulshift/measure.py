"""SQNR of every value and multiply-accumulates of every node, measured by running two graphs side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from mulshift.ir import Array, Feeds, Interpreter, Observer, get_qparams, ints
from mulshift.ir.layout import plain_array, stands_for
from mulshift.passes.compare import Sqnr
from mulshift.passes.pipeline import to_numpy
from mulshift.passes.reals import as_reals

if TYPE_CHECKING:
    import torch

SAMPLED = 16384
"""Elements of one value that are compared; a larger value is thinned evenly, so that memory stays small."""
_PRODUCTS = ("Conv", "ConvAccumulate", "ConvTranspose", "Gemm", "GemmAccumulate", "MatMul")


@dataclass
class Measured:
    """Attributes:
    values: value name -> dB against the float graph's value of that name; None where equal.
    outputs: the same for graph outputs, all elements counted, against the model as imported.
    macs: name of a node's first output -> multiply-accumulates in the first sample.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    outputs: dict[str, float | None] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)


def measure(
    imported: ir.Model, reference: ir.Model, model: ir.Model, samples: Iterable[tuple[Feeds, Feeds, Feeds]]
) -> Measured:
    """Run the graphs on the same samples.

    Args:
        imported: the model as it was read; its outputs are the reference for the outputs.
        reference: FLOAT graph whose value names `model` keeps.
        model: QDQ or INTEGER graph.
        samples: feeds of the three graphs.
    """
    import torch

    runs = [Interpreter(m) for m in (imported, reference, model)]
    meters: dict[str, Sqnr] = {}
    outputs: dict[str, Sqnr] = {}
    macs: dict[str, int] = {}
    with torch.no_grad():
        for feeds in samples:
            kept: dict[str, Array] = {}
            ran = runs[2].run(feeds[2], _keeper(kept, macs))
            made = as_reals(model, {name: to_numpy(tensor) for name, tensor in ran.items()})
            runs[1].run(feeds[1], _comparer(kept, meters))
            for name, tensor in runs[0].run(feeds[0]).items():
                if tensor.is_floating_point() and name in made:
                    outputs.setdefault(name, Sqnr()).add(to_numpy(tensor), made[name])
    values = {name: meter.db for name, meter in meters.items()}
    return Measured(values, {name: meter.db for name, meter in outputs.items()}, macs)


def _keeper(kept: dict[str, Array], macs: dict[str, int]) -> Observer:
    shapes: dict[ir.Value, tuple[int, ...]] = {}
    first = not macs

    def observe(value: ir.Value, tensor: torch.Tensor) -> None:
        shapes[value] = tuple(tensor.shape)
        node = value.producer()
        if first and node is not None and value is node.outputs[0] and _is_product(node):
            macs[str(value.name)] = _macs(node, shapes)
        q, name = get_qparams(value), stands_for(value)
        if q is not None and q.per_tensor:
            kept[name] = q.dequantize(thinned(plain_array(value, to_numpy(tensor))))
        elif q is not None and tensor.numel() <= 64 * SAMPLED:
            kept[name] = thinned(plain_array(value, q.dequantize(to_numpy(tensor))))
        elif tensor.is_floating_point():
            kept[name] = thinned(to_numpy(tensor))

    return observe


def _comparer(kept: dict[str, Array], meters: dict[str, Sqnr]) -> Observer:
    def observe(value: ir.Value, tensor: torch.Tensor) -> None:
        other = kept.pop(str(value.name), None)
        if other is None or not tensor.is_floating_point():
            return
        mine = thinned(to_numpy(tensor))
        if mine.size == other.size:
            meters.setdefault(str(value.name), Sqnr()).add(mine, other)

    return observe


def thinned(array: Array) -> Array:
    """At most SAMPLED elements, evenly spaced with a stride that is odd, so that it drifts through the channels."""
    flat = array.reshape(-1)
    if flat.size <= SAMPLED:
        return flat
    return flat[:: -(-flat.size // SAMPLED) | 1][:SAMPLED]


def _is_product(node: ir.Node) -> bool:
    return node.op_type in _PRODUCTS or "w_shape" in node.attributes


def _macs(node: ir.Node, shapes: dict[ir.Value, tuple[int, ...]]) -> int:
    """Outputs x (elements of the weights that reach one output)."""

    def shape(value: ir.Value | None) -> tuple[int, ...]:
        if value is None:
            return ()
        if value in shapes:
            return shapes[value]
        return tuple(value.const_value.shape.numpy()) if value.const_value is not None else ()

    made, weight = shapes[node.outputs[0]], ints(node, "w_shape") or shape(node.inputs[1])
    if not weight:
        return 0
    if node.op_type.startswith(("Conv", "Depthwise")) and node.op_type != "ConvTranspose":
        return prod(made) * prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return prod(shape(node.inputs[0])) * prod(weight[1:])
    return prod(made) * (shape(node.inputs[0]) or (0,))[-1]


__all__ = ["Measured", "measure", "thinned"]
