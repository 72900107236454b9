"""The qdq form against the integer formulas, node by node on equal inputs (ARITHMETIC.md section 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mulshift.backends.onnxruntime import session
from mulshift.backends.qdq import freeze
from mulshift.backends.tensorrt import freeze_signed
from mulshift.backends.verify import Verified
from mulshift.ir import (
    Array,
    Feeds,
    Interpreter,
    Level,
    VerificationError,
    constant,
    describe,
    is_float,
    scalar,
    set_level,
)
from mulshift.passes.pipeline import to_numpy
from mulshift.passes.to_integer import ToInteger

if TYPE_CHECKING:
    import torch

MAX_STEPS = 1
MAX_RATE = 1e-4
"""Float scales round differently from b / 2^c in 1e-6 to 1e-5 of the values; one step, never more."""
APPROXIMATE = ("Softmax", "Attention", "MaskedAttention", "LayerNorm", "RmsNorm")
"""Integer operators that stand for functions: within a step of them, on average a quarter (ARITHMETIC.md 4)."""
APPROXIMATE_RATE = 0.25
FEW = 2
"""Differences that say nothing about a rate in a small model."""


@dataclass(frozen=True)
class _Block:
    """What lies between dequantized inputs and one quantized output.

    Attributes:
        node: that makes the value which is quantized.
        inputs: float activations that are quantized at the block's entrance.
        output: DequantizeLinear's output at its end.
        scale: of the output.
    """

    node: ir.Node
    inputs: tuple[ir.Value, ...]
    output: ir.Value
    scale: float


def verify_qdq(model: ir.Model, samples: Iterable[Feeds], signed: bool = False) -> Verified:
    """Run each quantized operator alone on ONNX Runtime, in its frozen Q/DQ form, and by the integer formula.

    Args:
        model: QDQ level, before it is frozen.
        samples: feeds of the model; inputs of a block are what the QDQ graph holds there.
        signed: the form for TensorRT, run as it is written: ONNX Runtime's fused kernels for s8 activations saturate on
            x86 without VNNI, or refuse the pairs that its own optimizer makes (1.31).

    Raises:
        VerificationError: more than 1 step, or different in more than 1e-4 of the values (of 0.25 where the integer
            operator is an approximation).
    """
    import torch

    blocks = {block.output: block for block in _blocks(model)}
    runners: dict[ir.Value, _Runner | None] = {}
    tally, rough = Tally(), Tally(APPROXIMATE_RATE)
    count = 0
    interpreter = Interpreter(model)
    for feeds in samples:
        live: dict[ir.Value, Array] = {}
        uses = Counter(v for block in blocks.values() for v in block.inputs)

        def observe(value: ir.Value, tensor: torch.Tensor, live: Any = live, uses: Any = uses) -> None:
            block = blocks.get(value)
            if block is not None:
                if value not in runners:
                    runners[value] = _runner(model, block, signed)
                runner = runners[value]
                _check(block, runner, live, rough if runner is not None and runner.approximate else tally)
                for v in block.inputs:
                    uses[v] -= 1
                    if not uses[v]:
                        live.pop(v, None)
            source = _quantized_value(value) if is_float(value) else value
            if source is not None and uses[source]:
                live[source] = to_numpy(tensor)

        with torch.no_grad():
            interpreter.run(feeds, observe)
        count += 1
    if not count:
        raise VerificationError("verification", "there is no sample to run", "give at least one")
    for found in (tally, rough):
        found.judge()
    tensors = sum(r is not None for r in runners.values())
    return Verified(count, tensors, tally.elements + rough.elements, tally.differences + rough.differences)


def _quantized_value(value: ir.Value) -> ir.Value | None:
    """v, for the output of v -> QuantizeLinear -> DequantizeLinear."""
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    quantizer = node.inputs[0].producer()
    if quantizer is None or quantizer.op_type != "QuantizeLinear" or constant(quantizer.inputs[0]) is not None:
        return None
    return quantizer.inputs[0]


def _blocks(model: ir.Model) -> list[_Block]:
    found = []
    for node in model.graph:
        if node.op_type != "DequantizeLinear":
            continue
        value = _quantized_value(node.outputs[0])
        scale = scalar(node.inputs[1])
        if value is None or value.producer() is None or scale is None:
            continue
        inputs = _entrances(value)
        maker = value.producer()
        if inputs and maker is not None and maker.op_type != "DequantizeLinear":
            found.append(_Block(maker, inputs, node.outputs[0], scale))
    return found


def _entrances(value: ir.Value) -> tuple[ir.Value, ...] | None:
    """Quantized activations, masks and indices where the computation of `value` starts; None if some are float."""
    entrances: dict[ir.Value, None] = {}
    pending, seen = [value], {value}
    while pending:
        node = pending.pop().producer()
        if node is None:
            return None  # a float graph input without a pair
        for v in node.inputs:
            if v is None or v in seen or constant(v) is not None:
                continue
            seen.add(v)
            source = _quantized_value(v) if is_float(v) else v
            if source is not None:
                entrances[source] = None
            elif not _is_constant_pair(v):
                pending.append(v)
    return tuple(entrances)


def _is_constant_pair(value: ir.Value) -> bool:
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return False
    q = node.inputs[0]
    quantizer = q.producer()
    return constant(q) is not None or (quantizer is not None and constant(quantizer.inputs[0]) is not None)


@dataclass
class _Runner:
    """Both forms; `approximate`: the integer one holds an operator of APPROXIMATE."""

    approximate: bool
    specification: Interpreter
    runtime: Any
    names: dict[ir.Value, str]


def _runner(model: ir.Model, block: _Block, signed: bool) -> _Runner | None:
    """Both forms of one block; None if it has no integer form (an island)."""
    quantized = ir.Model(
        ir.convenience.extract(model.graph, block.inputs, [block.output]),
        ir_version=model.ir_version,
        functions=[function.clone() for function in model.functions.values()],
    )
    set_level(quantized, Level.QDQ)
    integer = quantized.clone()
    ToInteger(widths="wide")(integer)  # a shortened mantissa moves up to 1/64 step, which is not what is checked here
    inner = [n for n in integer.graph if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    if any(is_float(v) for n in inner for v in (*n.inputs, *n.outputs)):
        return None
    frozen = ir.serde.serialize_model((freeze_signed if signed else freeze)(quantized)).SerializeToString()
    rough = any(n.op_type in APPROXIMATE for n in inner)
    return _Runner(
        rough, Interpreter(integer), session(frozen, optimize=not signed), {v: str(v.name) for v in block.inputs}
    )


def _check(block: _Block, runner: _Runner | None, live: dict[ir.Value, Array], tally: Tally) -> None:
    if runner is None:
        return
    feeds = {name: live[v] for v, name in runner.names.items()}
    name = str(block.output.name)
    expected = to_numpy(runner.specification.run(feeds)[name])
    got = runner.runtime.run([name], feeds)[0]
    steps = np.rint(np.abs(got.astype(np.float64) - expected) / block.scale)
    worst = float(steps.max(initial=0.0))
    if worst > MAX_STEPS:
        cause = f"'{name}' is {worst:.0f} steps off the integer formula in ONNX Runtime's qdq form (limit {MAX_STEPS})"
        raise VerificationError(describe(block.node), cause)
    tally.add(describe(block.node), int(np.count_nonzero(steps)), steps.size)


class Tally:
    """Differences by node, and the rate that is allowed."""

    def __init__(self, limit: float = MAX_RATE) -> None:
        self.limit = limit
        self.by_node: Counter[str] = Counter()
        self.elements = 0

    @property
    def differences(self) -> int:
        return self.by_node.total()

    def add(self, node: str, differences: int, elements: int) -> None:
        self.by_node[node] += differences
        self.elements += elements

    def judge(self) -> None:
        """Raise VerificationError if too many differ."""
        if self.differences <= max(FEW, self.limit * self.elements):
            return
        node, most = self.by_node.most_common(1)[0]
        rate = self.differences / self.elements
        cause = (
            f"most of the differences, {most}; qdq form: {rate:.2g} of {self.elements} values (limit {self.limit:g})"
        )
        raise VerificationError(node, cause)


__all__ = ["verify_qdq"]
