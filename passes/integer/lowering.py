"""The state of one lowering: which float value has which integer tensor, and how new integer nodes are written.

`Lowering.quantize(v, q)` is the heart: it returns the integer tensor of a float value at a wanted quantization, by (in
this order) requantizing one that exists, a table, a mover, the rule of the operator that makes it, or QuantizeLinear
where none of these applies: then the operator stays a float island and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import (
    DOMAIN,
    Array,
    QParams,
    add_initializer,
    constant,
    inherit_origin,
    set_qparams,
)
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.ir.levels import BOUND, WIDTH
from mulshift.passes.integer.clamp import strip_clamps
from mulshift.passes.integer.constants import quantized_constant
from mulshift.passes.integer.forms import FREE, Mover, NoFormError, Output, Quantized, Rule, asked_to_stay
from mulshift.passes.integer.quantization import storage, to_signed, to_unsigned
from mulshift.passes.integer.scales import Width, identity_dyadic, requantization
from mulshift.passes.integer.tables import table

ASSUMES = "mulshift.assumes"


@dataclass
class Lowering:
    """One model on its way from QDQ to INTEGER."""

    model: ir.Model
    rules: Mapping[str, Rule]
    movers: Mapping[str, Mover]
    free: float = FREE
    known: dict[ir.Value, Quantized] = field(default_factory=dict)
    """Float value -> its integer tensor."""
    integers: dict[ir.Value, Quantized] = field(default_factory=dict)
    """Output of a QuantizeLinear of the QDQ graph -> the tensor that takes its place."""
    reasons: dict[ir.Node, str] = field(default_factory=dict)
    replaced: dict[ir.Value, ir.Value] = field(default_factory=dict)
    """Integer output (indices) of a float node -> the same from its integer form."""
    wanted: dict[ir.Value, str] = field(default_factory=dict)
    """Integer value -> the name of the float value that it stands for; new initializer -> its name."""
    node_names: dict[ir.Node, str] = field(default_factory=dict)
    accumulators: dict[ir.Node, Quantized] = field(default_factory=dict)
    """Product -> its s32 accumulator, where the graph returns it."""
    rows: dict[ir.Value, tuple[Quantized, ir.Value]] = field(default_factory=dict)
    """Output of a RowQuantize -> its integers and the power of two of each row."""
    anchor: ir.Node | None = None
    source: tuple[ir.Node, ...] = ()
    _made: dict[tuple[Any, ...], Quantized] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self._names = {str(v.name) for v in graph.inputs} | set(graph.initializers)
        for node in graph.all_nodes():
            self._names |= {str(v.name) for v in node.outputs} | {str(node.name)}

    @property
    def graph(self) -> ir.Graph:
        """The main graph."""
        return self.model.graph

    def lookup(self, value: ir.Value | None) -> Quantized | None:
        """The integer tensor of a float value if it has one; constants behind a per-tensor pair included."""
        if value is None:
            return None
        if value in self.known:
            return self.known[value]
        node = value.producer()
        if node is None or node.op_type != "DequantizeLinear":
            return None
        weights = quantized_constant(value)
        if weights is None or not weights[1].per_tensor:
            return None
        with self.writing(node):
            held = self._constant(weights[0], weights[1], str(value.name))
        self.known[value] = held
        return held

    def require(self, value: ir.Value | None) -> Quantized:
        """`lookup`, for an input without which there is no integer form.

        Raises:
            NoFormError: the value is float here.
        """
        held = self.lookup(value)
        if held is None:
            raise NoFormError(f"input '{value.name if value is not None else ''}' is not quantized")
        if not held.q.per_tensor:
            raise NoFormError("an input has one scale a channel")
        return held

    def quantize(self, value: ir.Value, q: QParams, low: int | None = None, high: int | None = None) -> Quantized:
        """The integer tensor of `value` at quantization `q`, clamped to [low, high]; written if it does not exist."""
        low = q.spec.qmin if low is None else low
        high = q.spec.qmax if high is None else high
        key = (value, float(q.scale), int(q.zero_point), q.spec, low, high)
        if key not in self._made:
            self._made[key] = self._quantize(Output(value, q, low, high, self.free))
        return self._made[key]

    def _quantize(self, out: Output) -> Quantized:
        base, fused = strip_clamps(self, out)
        held = self.lookup(base.value)
        if held is not None and held.q.per_tensor:
            with self.writing(*fused):
                return self.requantize(held, base, rename=out.value)
        node = base.value.producer()
        if node is None:
            return self.border(base, out.value)
        with self.writing(node, *fused):
            try:
                if reason := asked_to_stay(node):
                    raise NoFormError(reason)
                made = table(self, base)
                if made is None:
                    made = self._written(node, base)
            except NoFormError as e:
                self.reasons.setdefault(node, str(e))
                return self.border(base, out.value)
        return self.hold(made, base.q, out.value)

    def _written(self, node: ir.Node, out: Output) -> ir.Value:
        if node.domain not in ("", "ai.onnx", FLOAT_DOMAIN):
            raise NoFormError(f"no integer form of {node.domain}::{node.op_type}")
        mover = self.mover_of(node)
        if mover is not None:
            data = {i: self.quantize_input(node, i, out) for i in mover.data(node)}
            moved = mover.write(self, node, data)[out.value.index() or 0]
            if moved is None:
                raise NoFormError("this output does not move integers")
            return moved
        rule = self.rules.get(node.op_type)
        if rule is None:
            raise NoFormError(f"no integer form of {node.op_type}")
        return rule(self, node, out)

    def mover_of(self, node: ir.Node) -> Mover | None:
        """The row of a node that moves integers."""
        usable = node.domain in ("", "ai.onnx") and not asked_to_stay(node)
        mover = self.movers.get(node.op_type) if usable else None
        return mover if mover is not None and mover.applies(node) else None

    def quantize_input(self, node: ir.Node, index: int, out: Output) -> Quantized:
        """Input `index` of a mover at the quantization that is asked of its output."""
        value = node.inputs[index]
        assert value is not None
        return self.quantize(value, out.q, out.low, out.high)

    def border(self, out: Output, name: ir.Value) -> Quantized:
        """QuantizeLinear on a float value (graph input, island), or a constant quantized here."""
        array = constant(out.value)
        if array is not None:
            q = np.clip(out.q.quantize(array), out.low, out.high)
            return self._constant(q, out.q, str(out.value.name))
        scale, zero_point = self.qparam_constants(out.q, str(name.name))
        y = self.standard("QuantizeLinear", [out.value, scale, zero_point], {}, out.dtype, out.value.shape)
        full = np.iinfo(out.dtype.numpy())
        if (out.low, out.high) != (full.min, full.max):
            bounds = [self.const(f"{name.name}.{k}", np.asarray(v, out.dtype.numpy())) for k, v in self._ends(out)]
            y = self.standard("Clip", [y, *bounds], {}, out.dtype, out.value.shape)
        return self.hold(y, out.q, name)

    @staticmethod
    def _ends(out: Output) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("low", out.low), ("high", out.high)

    def _constant(self, q: Array, params: QParams, name: str) -> Quantized:
        value = self.const(f"{name}.q", q.astype(storage(params.spec).numpy()))
        set_qparams(value, params)
        return Quantized(value, params)

    def table(self, value: ir.Value | None, integers: Array, q: QParams) -> Quantized:
        """An initializer of a table's integers, the same for all that read it."""
        key = (value, "table")
        if key not in self._made:
            assert value is not None
            self._made[key] = Quantized(self.const(f"{value.name}.q", integers), q)
        return self._made[key]

    def qparam_constants(self, q: QParams, name: str) -> tuple[ir.Value, ir.Value]:
        """Initializers for the scale and zero point of a border node."""
        zero_point = q.zero_point.astype(storage(q.spec).numpy())
        return self.const(f"{name}.scale", q.scale), self.const(f"{name}.zero_point", zero_point)

    def requantize(self, x: Quantized, out: Output, rename: ir.Value | None = None) -> Quantized:
        """`x` at another quantization: nothing where they are equal and the clamp cuts nothing, else Requantize."""
        own = x.q.spec
        if x.q == out.q and out.low <= own.qmin and out.high >= own.qmax:
            return x
        ratio = float(x.q.scale) / float(out.q.scale)
        if ratio == 1.0:
            b, c, width = identity_dyadic()
        else:
            b, c, width = requantization(np.asarray([ratio]), np.asarray([x.q.magnitude]), out.reach, out.free)
        name = str(out.value.name)
        y = self.mulshift(
            "Requantize",
            [x.value, self.const(f"{name}.b", b.reshape(())), self.const(f"{name}.c", c.reshape(()))],
            {"x_zero_point": int(x.q.zero_point)},
            out,
            x.q.magnitude,
            width,
        )
        return self.hold(y, out.q, rename or out.value)

    def as_unsigned(self, x: Quantized) -> Quantized:
        """The same reals as u8, exactly: `q + 128`, `z + 128`. Raises NoFormError for 16 bits."""
        return self._relabelled(x, to_unsigned(x.q))

    def as_signed(self, x: Quantized) -> Quantized:
        """The same reals as s8, exactly: `q - 128`, `z - 128`. Raises NoFormError for 16 bits."""
        return self._relabelled(x, to_signed(x.q))

    def _relabelled(self, x: Quantized, q: QParams) -> Quantized:
        if x.q.spec.bits > 8:
            raise NoFormError(f"{x.q.spec.bits}-bit input; products take 8-bit operands")
        if q == x.q:
            return x
        key = (x.value, "relabel", q.spec)
        if key not in self._made:
            self._made[key] = self.requantize(x, Output(x.value, q, q.spec.qmin, q.spec.qmax, self.free))
        return self._made[key]

    def hold(self, value: ir.Value, q: QParams, name: ir.Value) -> Quantized:
        """Record what an integer tensor stands for."""
        set_qparams(value, q)
        self.wanted.setdefault(value, str(name.name))
        return Quantized(value, q)

    def mulshift(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        attributes: Mapping[str, Any],
        out: Output,
        bound: int,
        width: Width | None,
    ) -> ir.Value:
        """A `mulshift::` node that ends in Requantize, its accumulator bound and width written beside it.

        width: None where each row has a `b / 2^c` of its own.
        """
        value = self.write(op, inputs, {**attributes, **out.attributes()}, DOMAIN, [(out.dtype, out.value.shape)])[0]
        self.prove(value, bound, width)
        return value

    @staticmethod
    def prove(value: ir.Value, bound: int, width: Width | None = None) -> None:
        """Write the accumulator bound and the dyadic width on the node that makes `value`."""
        node = value.producer()
        assert node is not None
        node.metadata_props[BOUND] = str(int(bound))
        if width is not None:
            node.metadata_props[WIDTH] = width

    @staticmethod
    def assume(value: ir.Value, what: str) -> None:
        """Write what the accumulator bound of the node that makes `value` takes for granted of sizes not known here."""
        node = value.producer()
        assert node is not None
        node.metadata_props[ASSUMES] = what

    def standard(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        dtype: ir.DataType,
        shape: ir.Shape | Sequence[int] | None = None,
    ) -> ir.Value:
        """A standard node with one output."""
        return self.write(op, inputs, attributes, "", [(dtype, shape)])[0]

    def write(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        domain: str,
        outputs: Sequence[tuple[ir.DataType, ir.Shape | Sequence[int] | None]],
    ) -> tuple[ir.Value, ...]:
        """A new node before the anchor, named after and inheriting from the float nodes that it replaces."""
        base = str(self.source[0].name or op) if self.source else op
        attrs = {k: v for k, v in attributes.items() if v is not None}
        node = ir.node(op, inputs, attrs, domain=domain, num_outputs=len(outputs), name=self.unique(base))
        self.node_names[node] = base
        for k, (dtype, shape) in enumerate(outputs):
            value = node.outputs[k]
            value.name = self.unique(f"{base}_out")
            value.type = ir.TensorType(dtype)
            value.shape = None if shape is None else ir.Shape(list(shape))
        if self.source:
            inherit_origin([node], self.source)
        if self.anchor is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self.anchor, node)
        return tuple(node.outputs)

    def const(self, name: str, array: Array) -> ir.Value:
        """A new initializer."""
        value = add_initializer(self.graph, self.unique(name), np.asarray(array))
        self.wanted[value] = name
        return value

    def unique(self, base: str) -> str:
        """`base`, or `base_1`, ... : a name not yet used by a value or node."""
        name, k = base, 0
        while name in self._names:
            k += 1
            name = f"{base}_{k}"
        self._names.add(name)
        return name

    @contextmanager
    def writing(self, *nodes: ir.Node) -> Iterator[None]:
        """New nodes take name and origin from these float nodes."""
        before, self.source = self.source, nodes or self.source
        try:
            yield
        finally:
            self.source = before
