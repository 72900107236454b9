"""fuse: operators that an exporter took apart become one node again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import add_initializer, constant, inherit_origin, is_float, scalar
from mulshift.passes.base import Contract, Pass
from mulshift.passes.fuse_activations import fuse_activations
from mulshift.passes.fuse_attention import fuse_attention
from mulshift.passes.fuse_positions import fuse_positions
from mulshift.passes.fuse_rotary import fuse_rotary
from mulshift.passes.heads import insert
from mulshift.passes.linear_weights import drop_unused
from mulshift.passes.rules import apply_rules


@dataclass
class Fuse(Pass):
    """Find again what was decomposed, in this order:

    - activations of one tensor, by what they compute (`fuse_activations`): Gelu in both forms, Swish (SiLU), HardSwish,
      HardSigmoid, Mish, Softplus, LeakyRelu, Elu, Relu, Clip (ReLU6), ...;
    - LayerNormalization, RMSNormalization and Softmax, by rewrite rules (`fuse_norms`);
    - `x / c` becomes `x * (1 / c)`, `x / y` becomes `x * Reciprocal(y)`, `x ** 2` becomes `x * x`;
    - cosines and sines of positions become tables (`fuse_positions`), rotary embeddings one node (`fuse_rotary`);
    - scaled dot-product attention becomes one node, its mask boolean (`fuse_attention`).

    What the standard lacks at our opset is a model function of the domain `mulshift.float` (`float_functions`).

    Attributes:
        positions: rows of the tables; a longer sequence is an error at run time.
    """

    name: ClassVar[str] = "fuse"
    contract: ClassVar[Contract] = Contract.CLOSE
    positions: int = 8192

    def rewrite(self, model: ir.Model) -> None:
        """See the class; a match that cannot be rewritten is reported with the reason."""
        from mulshift.passes.fuse_norms import rules

        fuse_activations(self, model)
        apply_rules(self, model, list(rules(model)))
        for node in list(model.graph):
            self._multiply(model.graph, node)
        fuse_positions(self, model, self.positions)
        fuse_rotary(self, model)
        fuse_attention(self, model)
        tidy(model)

    def _multiply(self, graph: ir.Graph, node: ir.Node) -> None:
        """Division by a constant, and the square, as a product."""
        if node.domain != "" or node.op_type not in ("Div", "Pow") or not is_float(node.inputs[0]):
            return None
        x, c = node.inputs[0], node.inputs[1]
        number = constant(c)
        if x is None or c is None or constant(x) is not None:
            return None
        if number is None:
            return self._reciprocal(graph, node, x, c) if node.op_type == "Div" and _is_factor(c) else None
        if node.op_type == "Pow":
            if scalar(c) != 2 or number.ndim > 0:
                return None
            other = x
        else:
            if not number.all():
                return self.skipped(node, "it divides by 0")
            inverse = (1 / number.astype(np.float64)).astype(number.dtype)
            if not np.isfinite(inverse).all():
                return self.skipped(node, "the reciprocal of its constant is too large")
            other = add_initializer(graph, f"{c.name}.reciprocal", inverse)
        new = ir.node("Mul", [x, other], name=node.name)
        inherit_origin([new], [node])
        new.outputs[0].metadata_props.update(node.outputs[0].metadata_props)
        self.changed(node, "Mul")
        ir.convenience.replace_nodes_and_values(graph, node, [node], [new], node.outputs, new.outputs)
        return drop_unused(graph, c)

    def _reciprocal(self, graph: ir.Graph, node: ir.Node, x: ir.Value, y: ir.Value) -> None:
        """`x / y` where y is one number for many of x: a mean over what a mask counts, a norm."""
        inverse = insert(graph, node, "Reciprocal", [y], {})
        inverse.shape = y.shape
        product = insert(graph, node, "Mul", [x, inverse], {})
        product.shape = node.outputs[0].shape
        product.metadata_props.update(node.outputs[0].metadata_props)
        self.changed(node, "Mul by the Reciprocal")
        ir.convenience.replace_nodes_and_values(graph, node, [node], [], node.outputs, [product])


def _is_factor(y: ir.Value) -> bool:
    """Whether a divisor is the same along the last axis."""
    return y.shape is not None and (not len(y.shape) or y.shape[-1] == 1)


def tidy(model: ir.Model) -> None:
    """Drop Transposes that undo each other and what nothing reads any more; name what has no name."""
    from onnx_ir.passes import common
    from onnxscript.rewriter.rules import common as rules

    quiet = Fuse()
    apply_rules(quiet, model, [rules.transpose_transpose_rule, rules.no_op_transpose_rule], quiet=True)
    common.RemoveUnusedNodesPass()(model)
    common.IdentityEliminationPass()(model)
    common.NameFixPass()(model)
