"""fold-input: the model takes uint8 pixels, its preprocessing becomes nodes that lower to one integer Affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, UsageError, add_initializer, fresh_name, is_float, rank, set_origin
from mulshift.passes.base import Contract, Pass

LAYOUTS = ("nchw", "nhwc")
_TO_NCHW, _FROM_NCHW = (0, 3, 1, 2), (0, 2, 3, 1)
_IMAGE_RANK = 4
_U8 = ir.DataType.UINT8


@dataclass
class FoldInput(Pass):
    """A float image input [N, C, H, W] becomes a uint8 input of the same name; its readers get

        x = (pixel * scale - mean) / std = a * pixel + b,    a = scale / std,    b = -mean / std

    as `[Transpose ->] Cast -> Mul -> Add`, computed in float64 and stored in the type of the input. A Mul by 1 and an
    Add of 0 are left out. Run fold-bn after it: a first Conv without padding, or with b = 0, takes both into its
    weights.

    Attributes:
        mean, std: one number, or one a channel.
        scale: 1/255 for the usual ImageNet numbers.
        layout: of the uint8 input: "nchw", or "nhwc" for [N, H, W, C].
        input: name of the graph input; None for the only float input of rank 4.

    Raises:
        UsageError: no such input, or one that is not a float image with as many channels as mean and std.
    """

    name: ClassVar[str] = "fold-input"
    contract: ClassVar[Contract] = Contract.CLOSE
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255
    layout: str = "nchw"
    input: str | None = None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UsageError("fold-input", f"layout '{self.layout}' is not known", f"use {' or '.join(LAYOUTS)}")
        if not self.mean or not self.std or not np.isfinite([*self.mean, *self.std, self.scale]).all():
            raise UsageError("fold-input", "mean, std and scale must be numbers")
        if min(self.std) <= 0 or self.scale <= 0:
            raise UsageError("fold-input", "std and scale must be positive")

    def rewrite(self, model: ir.Model) -> None:
        """See the class; an input that is uint8 already is left alone."""
        image = self._find(model.graph)
        if image.dtype == ir.DataType.UINT8:
            return self.skipped(f"input '{image.name}'", "it takes uint8 already")
        self._check(image)
        self._replace(model.graph, image)
        return self.changed(f"input '{image.name}'", f"takes uint8 pixels, {self.layout}")

    def _find(self, graph: ir.Graph) -> ir.Value:
        inputs = {str(v.name): v for v in graph.inputs}
        if self.input is not None:
            if self.input not in inputs:
                raise UsageError("fold-input", f"no input '{self.input}'", f"there is {', '.join(inputs) or 'none'}")
            return inputs[self.input]
        images = [v for v in graph.inputs if rank(v) == _IMAGE_RANK]
        for kind in ([v for v in images if is_float(v)], [v for v in images if v.dtype == _U8]):
            if len(kind) == 1:
                return kind[0]
            if kind:
                names = ", ".join(str(v.name) for v in kind)
                raise UsageError("fold-input", f"several inputs may be the image: {names}", "name one with 'input'")
        raise UsageError(
            "fold-input", "no input is a float tensor of rank 4", f"there is {', '.join(inputs) or 'none'}"
        )

    def _check(self, image: ir.Value) -> None:
        where = f"fold-input, input '{image.name}'"
        if not is_float(image):
            raise UsageError(where, f"holds {image.dtype}, not floats")
        if image.shape is None or len(image.shape) != _IMAGE_RANK:
            found = "unknown" if image.shape is None else str(len(image.shape))
            raise UsageError(where, f"its rank is {found}, an image has 4: N, C, H, W")
        channels = image.shape[1]
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) > 1 and isinstance(channels, int) and len(numbers) != channels:
                remedy = f"give one {name}, or one a channel"
                raise UsageError(where, f"has {channels} channels, but {name} has {len(numbers)} numbers", remedy)
        if len({len(v) for v in (self.mean, self.std)} - {1}) > 1:
            raise UsageError(where, f"mean has {len(self.mean)} numbers, std {len(self.std)}")
        if image.is_graph_output() or image.is_initializer():
            what = "a graph output" if image.is_graph_output() else "a default value"
            raise UsageError(where, f"is {what} too", "separate the two before")

    def _replace(self, graph: ir.Graph, image: ir.Value) -> None:
        name, shape = str(image.name), image.shape
        assert shape is not None
        dims = [shape[i] for i in (_FROM_NCHW if self.layout == "nhwc" else range(_IMAGE_RANK))]
        pixels = ir.Value(name=name, type=ir.TensorType(_U8), shape=ir.Shape(dims), doc_string=image.doc_string)
        graph.inputs[list(graph.inputs).index(image)] = pixels
        nodes = self._nodes(graph, pixels, image)
        if graph.num_nodes():
            graph.insert_before(graph[0], nodes)
        else:
            graph.extend(nodes)
        last = nodes[-1].outputs[0]
        last.metadata_props.update(image.metadata_props)
        image.replace_all_uses_with(last)

    def _nodes(self, graph: ir.Graph, pixels: ir.Value, image: ir.Value) -> list[ir.Node]:
        """The new nodes, in order; every float that they make has the shape of the old input."""
        assert image.dtype is not None
        a, b = self._factors(image.dtype.numpy())
        steps: list[tuple[str, Array | None, dict[str, int | Sequence[int]]]] = []
        steps += [("Transpose", None, {"perm": _TO_NCHW})] if self.layout == "nhwc" else []
        steps += [("Cast", None, {"to": int(image.dtype)})]
        steps += [("Mul", a, {})] if (a != 1).any() else []
        steps += [("Add", b, {})] if b.any() else []
        nodes: list[ir.Node] = []
        value = pixels
        for op, number, attributes in steps:
            base = f"{pixels.name}.{op.lower()}"
            operands = [] if number is None else [add_initializer(graph, f"{base}.constant", number)]
            dtype = _U8 if op == "Transpose" else image.dtype
            out = ir.Value(name=fresh_name(graph, base), type=ir.TensorType(dtype), shape=image.shape)
            nodes.append(ir.node(op, [value, *operands], attributes, outputs=[out], name=out.name))
            set_origin(nodes[-1], [f"input {pixels.name}"])
            value = out
        return nodes

    def _factors(self, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """a and b, [1, channels or 1, 1, 1]."""
        mean, std = (np.asarray(v, np.float64).reshape(1, -1, 1, 1) for v in (self.mean, self.std))
        return (self.scale / std).astype(dtype), (-mean / std).astype(dtype)
