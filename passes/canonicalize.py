"""canonicalize: one form for what exporters write in many; onnx_ir's and onnxscript's passes, and what they lack."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from mulshift.ir import add_initializer, constant, describe, inherit_origin, origin, rank, set_origin, static_shape
from mulshift.ir.frontend.validate import is_ours
from mulshift.ir.metadata import ORIGIN
from mulshift.passes.base import Contract, Pass
from mulshift.passes.pads import explicit_pads, pad_into_pool
from mulshift.passes.plain_operators import plain_operators
from mulshift.passes.rules import apply_rules
from mulshift.passes.shape_values import reshape_target, shape_values

_MAX_ROUNDS = 10
_COPY = "mulshift_copy"


@dataclass
class Canonicalize(Pass):
    """Inline functions, fold constants, drop what does nothing, infer shapes, until nothing changes.

    The graph computes the same function; a Pad that moves into a convolution may change the order of its sums.
    Names of graph inputs and outputs, named dynamic dimensions and origins stay.

    Attributes:
        fold_limit: an operator on constants is computed here if none of them has more elements; weights that nothing
            computes on are never read, so external data stays on disk.
        grow_limit: a constant larger than this is kept only if it is no larger than those it replaces.
    """

    name: ClassVar[str] = "canonicalize"
    contract: ClassVar[Contract] = Contract.CLOSE
    fold_limit: int = 1 << 24
    grow_limit: int = 1 << 16

    def rewrite(self, model: ir.Model) -> None:
        """See the class; reports every node that went and the pass that removed it."""
        for node in model.graph.all_nodes():
            if ORIGIN not in node.metadata_props:
                set_origin(node, origin(node))
        for _ in range(_MAX_ROUNDS):
            before = len(self.log.changed)
            self.log.skipped.clear()
            for name, step in self._steps():
                _run(self, model, name, step)
            if len(self.log.changed) == before:
                return

    def _steps(self) -> Iterator[tuple[str, Callable[[ir.Model], Any]]]:
        from onnxscript.optimizer import fold_constants_ir

        def fold(model: ir.Model) -> Any:
            limits = {"input_size_limit": self.fold_limit, "output_size_limit": self.grow_limit}
            with _quiet("onnxscript.optimizer"):  # it warns of each node that it cannot compute, and leaves it alone
                return fold_constants_ir(model, onnx_shape_inference=True, **limits)  # type: ignore[arg-type]

        yield "inline functions", common.InlinePass(criteria=lambda f: not is_ours(f.domain))
        yield "remove what nothing reads", common.RemoveUnusedNodesPass()
        yield "infer shapes", common.ShapeInferencePass(check_type=False, strict_mode=False)
        yield "fold constants", fold
        yield "make shapes constant", lambda model: _constant_shapes(self, model)
        yield "plain operators", lambda model: plain_operators(self, model)
        yield "drop neutral arithmetic", lambda model: _drop_neutral(self, model)
        yield "rewrite rules", lambda model: apply_rules(self, model, _no_op_rules(), quiet=True)
        yield "fold Pad into Conv", lambda model: apply_rules(self, model, [_pad_rule()])
        yield "make padding explicit", lambda model: explicit_pads(self, model)
        yield "fold Pad into a pool", lambda model: pad_into_pool(self, model)
        yield "share equal subexpressions", _share_equal
        yield "remove what nothing reads", common.RemoveUnusedNodesPass()
        yield "lift constants", common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        yield "share equal constants", common.DeduplicateInitializersPass()
        yield "remove unused functions", common.RemoveUnusedFunctionsPass()  # type: ignore[no-untyped-call]
        yield "remove unused operator sets", common.RemoveUnusedOpsetsPass()
        yield "make names unique", common.NameFixPass()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Errors alone from a logger and those below it."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _no_op_rules() -> list[Any]:
    """onnxscript's rules that are exact for every input.

    Not taken: its no-op rules match a constant within 1e-8 (they drop the 1e-12 of a LayerNorm), its auto_pad rules
    ignore dilations, its Clip rules are wrong for intervals that do not meet, and rules that only prefer another form.
    """
    from onnxscript.rewriter.rules import common as rules

    return [
        rules.no_op_cast_rule,
        rules.no_op_expand_rule,
        rules.no_op_transpose_rule,
        rules.transpose_transpose_rule,
        rules.unsqueeze_unsqueeze_rule,
        rules.reshape_reshape_rule,
        rules.collapse_slice_rule,
        rules.cast_constant_of_shape_rule,
    ]


def _pad_rule() -> Any:
    from onnxscript.rewriter.rules.common import fuse_pad_into_conv_rule

    return fuse_pad_into_conv_rule


def _run(owner: Pass, model: ir.Model, name: str, step: Callable[[ir.Model], Any]) -> None:
    """One step; nodes that vanish are reported, nodes that appear inherit the origins of what they replace."""
    before = {node: describe(node) for node in model.graph}
    makers = {v.name: node for node in before for v in node.outputs}
    reported = len(owner.log.changed)
    result = step(model)
    after = set(model.graph)
    _repair_origins(model.graph, set(before), makers)
    if len(owner.log.changed) > reported:
        return  # the step told itself what it did
    for node in before.keys() - after:
        owner.changed(before[node], name)
    if isinstance(result, ir.passes.PassResult) and result.modified and len(owner.log.changed) == reported:
        owner.changed("graph", name)


def _repair_origins(graph: ir.Graph, known: set[ir.Node], makers: dict[str | None, ir.Node]) -> None:
    """Give nodes that a foreign pass made the origins of the node that made their output, or of their neighbours."""
    for node in graph:
        if node in known or ORIGIN in node.metadata_props:
            continue
        replaced = [makers[v.name] for v in node.outputs if v.name in makers]
        neighbours = [p for v in node.inputs if v is not None and (p := v.producer()) is not None]
        inherit_origin([node], replaced or neighbours or [node])


def _share_equal(model: ir.Model) -> Any:
    """Common subexpressions, but not two graph outputs that copy one value: merged, they would copy one another."""
    copies = [v.producer() for v in model.graph.outputs]
    marked = [node for node in copies if node is not None and node.op_type == "Identity"]
    for i, node in enumerate(marked):
        node.attributes[_COPY] = ir.AttrInt64(_COPY, i)
    result = common.CommonSubexpressionEliminationPass()(model)
    for node in marked:
        node.attributes.pop(_COPY, None)
    return result


def _constant_shapes(owner: Pass, model: ir.Model) -> None:
    """Reshape by `Concat(Gather(Shape(x), 0), 96)` becomes Reshape by the constant [0, 96]."""
    for node in model.graph:
        if node.op_type != "Reshape" or node.domain != "" or constant(node.inputs[1]) is not None:
            continue
        wanted = shape_values(node.inputs[1])
        if wanted is None:
            continue
        target = reshape_target(node.inputs[0], wanted)
        if target is None:
            owner.skipped(node, f"its shape {list(wanted)} has more than one unknown dimension, so it stays computed")
            continue
        name = f"{node.outputs[0].name}.shape"
        node.replace_input_with(1, add_initializer(model.graph, name, np.asarray(target, np.int64)))
        node.attributes.pop("allowzero", None)
        owner.changed(node, f"its shape is the constant {target}")


_NEUTRAL = {"Add": (0.0, True), "Sub": (0.0, False), "Mul": (1.0, True), "Div": (1.0, False), "Pow": (1.0, False)}
"""Operator -> constant that leaves the other operand as it is, whether it may stand first."""


def _drop_neutral(owner: Pass, model: ir.Model) -> None:
    """x + 0, x - 0, x * 1, x / 1, x ** 1, where the constant is exactly that and does not broadcast x."""
    for node in list(model.graph):
        if node.op_type not in _NEUTRAL or node.domain != "":
            continue
        number, either = _NEUTRAL[node.op_type]
        for i in (1, 0) if either else (1,):
            x, c = node.inputs[1 - i], node.inputs[i]
            if x is None or c is None or not _is_filled_with(c, number) or not _keeps_shape(x, c):
                continue
            owner.changed(node, f"{node.op_type} with {number:g} does nothing")
            identity = ir.node("Identity", [x], name=node.name)
            inherit_origin([identity], [node])
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], [identity], node.outputs, identity.outputs
            )
            break


def _is_filled_with(value: ir.Value, number: float) -> bool:
    array = constant(value)
    return array is not None and array.size > 0 and bool((array == number).all())


def _keeps_shape(x: ir.Value, c: ir.Value) -> bool:
    shape, n = static_shape(c), rank(x)
    if shape is None or (shape and (n is None or len(shape) > n)):
        return False
    dims = [] if x.shape is None else list(x.shape)[len(x.shape) - len(shape) :]
    return all(d in (1, s) for d, s in zip(shape, dims, strict=True))
