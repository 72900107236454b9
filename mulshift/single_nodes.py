"""The products of a lowered model, each as a model of its own: what a profile times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.backends.kernel_session import session
from mulshift.ir import DOMAIN, Array, Feeds, attribute, constant, origin
from mulshift.passes.allocation.candidates import DENSE, KINDS, Candidate
from mulshift.passes.quant_rules import channel_axis
from mulshift.passes.scales import PAIR_LIMIT
from mulshift.passes.sparsity.found import fits
from mulshift.passes.sparsity.masks import largest

WEIGHTED = ("Conv", "ConvAccumulate", "ConvTranspose", "ConvTransposeAccumulate", "Gemm", "GemmAccumulate")
"""Operators of the INTEGER graph whose second operand may be constant weights."""
_NUMBERS = ("zero_point", "multiplier", "shift", "qmin", "qmax")
"""Ends of the names of attributes that do not decide how long a kernel takes."""


@dataclass(frozen=True)
class SingleNode:
    """One node to time.

    Attributes:
        name: of the node in the INTEGER graph, that of the float product.
        names: all that it stands for, the nodes of the float graph among them.
        key: equal for nodes that take equally long.
        model: serialized, with the node alone.
        feeds: random inputs.
    """

    name: str
    names: tuple[str, ...]
    key: str
    model: bytes
    feeds: Mapping[str, Array]


@dataclass(frozen=True, order=True)
class Form:
    """How a kernel has the weights of a product: `8`, `4:2:4`.

    Attributes:
        bits: 8, 4, 2 or 1.
        kind: row of `mulshift.passes.allocation.candidates.KINDS`.
    """

    bits: int = 8
    kind: str = DENSE

    def __str__(self) -> str:
        return str(self.bits) if self.kind == DENSE else f"{self.bits}:{self.kind}"

    @classmethod
    def of(cls, candidate: Candidate) -> Form:
        """What a candidate's weights are stored as: 3 bits as 4, two of four in 4 at least; groups do not count."""
        bits = candidate.precision.weights
        return cls(4 if bits == 3 else bits if candidate.kind == DENSE else max(bits, 4), candidate.kind)


def with_weights_of(model: ir.Model, forms: Form | Mapping[str, Form]) -> ir.Model:
    """A copy of an INTEGER graph whose weights take no more than so many bits, and have a pattern of zeros.

    The kernels and layouts are chosen by the values of the weights. Accumulators shrink, so their bounds hold.

    Args:
        model: left as it is.
        forms: of all products, or by their node; those that are not named keep theirs, as do those of 8 bits, dense.
            Weights that cannot have the pattern stay dense.
    """
    copy = model.clone()
    for node in copy.graph:
        form = forms if isinstance(forms, Form) else forms.get(str(node.name), Form())
        if form == Form() or not is_weighted(node):
            continue
        value = node.inputs[1]
        assert value is not None and value.const_value is not None
        value.const_value = ir.tensor(_cut(node, value.const_value.numpy().astype(np.int32), form).astype(np.int8))
    return copy


def _cut(node: ir.Node, w: Array, form: Form) -> Array:
    """Weights of a node, s32, with the form's zeros and bits."""
    sparsity, axis = KINDS[form.kind].sparsity, channel_axis(node, w.ndim)
    if sparsity is not None and fits(w.shape, axis, sparsity):
        w = np.where(largest(np.abs(w), axis, sparsity, int(attribute(node, "group", 1))), w, 0)
    if form.bits == 1:
        return np.where(w < 0, -1, 1)
    limit = (1 << (form.bits - 1)) - 1
    return np.clip(np.rint(w * (limit / 127)), -limit, limit) if np.abs(w).max(initial=0) > limit else w


def is_weighted(node: ir.Node) -> bool:
    """Whether a node of an INTEGER graph multiplies by constant s8 weights."""
    if node.domain != DOMAIN or node.op_type not in WEIGHTED or len(node.inputs) < 2:
        return False
    w = constant(node.inputs[1])
    return w is not None and w.dtype == np.int8


def single_nodes(model: ir.Model, names: set[str], feeds: Feeds) -> list[SingleNode]:
    """The nodes of a lowered graph that stand for products.

    Args:
        model: lowered for the kernel library.
        names: of the products' nodes in the INTEGER graph.
        feeds: one sample, which decides the shapes.
    """
    wanted = [n for n in model.graph if n.name in names and n.domain == DOMAIN]
    shapes = _shapes(model, wanted, feeds)
    return [_single(model, node, shapes) for node in wanted]


def _inputs(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads besides constants, each once."""
    yield from dict.fromkeys(v for v in node.inputs if v is not None and constant(v) is None)


def _shapes(model: ir.Model, nodes: list[ir.Node], feeds: Feeds) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of each input, found by running the model."""
    copy = model.clone()
    inputs = {str(v.name) for v in copy.graph.inputs}
    names = dict.fromkeys(str(v.name) for node in nodes for v in _inputs(node))
    values = {str(v.name): v for n in copy.graph for v in n.outputs}
    have = {str(v.name) for v in copy.graph.outputs}
    for name in names:
        if name not in inputs and name not in have:
            copy.graph.outputs.append(values[name])
    running = session(bytes(ir.serde.serialize_model(copy).SerializeToString()), 1)
    made = dict(zip([o.name for o in running.get_outputs()], running.run(None, dict(feeds)), strict=True))
    made |= {name: np.asarray(a) for name, a in feeds.items()}
    return {name: (made[name].shape, made[name].dtype) for name in names}


def _single(model: ir.Model, node: ir.Node, shapes: Mapping[str, tuple[tuple[int, ...], Any]]) -> SingleNode:
    rng = np.random.default_rng(0)
    inputs: dict[ir.Value, ir.Value] = {}
    feeds: dict[str, Array] = {}
    for i, value in enumerate(_inputs(node)):
        shape, dtype = shapes[str(value.name)]
        kind = ir.TensorType(ir.DataType.from_numpy(dtype))
        inputs[value] = ir.Value(name=f"x{i}", type=kind, shape=ir.Shape(shape))
        info = np.iinfo(dtype)
        feeds[f"x{i}"] = rng.integers(max(info.min, -(2**12)), min(info.max, 2**12) + 1, shape, dtype)
    constants: dict[ir.Value, ir.Value] = {}
    for i, value in enumerate(dict.fromkeys(v for v in node.inputs if v is not None and v not in inputs)):
        array = constant(value)
        assert array is not None
        constants[value] = ir.Value(
            name=f"c{i}", type=value.type, shape=ir.Shape(array.shape), const_value=value.const_value
        )
    read = [None if v is None else inputs.get(v) or constants[v] for v in node.inputs]
    outputs = [ir.Value(name=f"y{i}", type=v.type) for i, v in enumerate(node.outputs)]
    made = ir.Node(node.domain, node.op_type, read, list(node.attributes.values()), outputs=outputs, name="node")
    graph = ir.Graph(
        list(inputs.values()),
        outputs,
        nodes=[made],
        initializers=list(constants.values()),
        opset_imports=dict(model.opset_imports),
        name="single",
    )
    data = ir.serde.serialize_model(ir.Model(graph, ir_version=model.ir_version)).SerializeToString(deterministic=True)
    return SingleNode(str(node.name), (str(node.name), *origin(node)), _key(node, feeds, constants), bytes(data), feeds)


def _easy(weights: Array | None) -> list[int]:
    """What of the values of packed weights decides speed: their bits, and where kernels may add pairs in 16 bits.

    Without VNNI a block of 16 channels by 4 inputs is multiplied faster if `255 (|w0| + |w1|)` fits 16 bits in all its
    pairs (docs/decisions/0003-avx2.md); the share of such blocks is told in sixteenths.
    """
    if weights is None or weights.dtype != np.int8 or not weights.size:
        return []
    size = np.abs(weights.astype(np.int32))
    bits = int(size.max()).bit_length()
    if weights.ndim < 3 or weights.shape[-1] != 4:
        return [bits]
    pairs = size[..., 0::2] + size[..., 1::2]
    share = (pairs <= 2 * PAIR_LIMIT).all(axis=(-2, -1)).mean()
    return [bits, round(16 * float(share))]


def _key(node: ir.Node, feeds: Mapping[str, Array], constants: Mapping[ir.Value, ir.Value]) -> str:
    """A hash of the operator, its attributes, the shapes and types of all that it reads, and what weights allow."""
    attributes = {k: str(a.value) for k, a in node.attributes.items() if not k.endswith(_NUMBERS)}
    read = [(list(a.shape), str(a.dtype)) for a in feeds.values()]
    stored = [(str(v.shape), str(v.dtype)) for v in constants.values()]
    text = json.dumps([node.op_type, attributes, read, stored, _easy(constant(node.inputs[1]))], sort_keys=True)
    return f"{node.op_type} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
