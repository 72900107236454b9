"""fuse: operators that an exporter took apart become one node again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import add_initializer, constant, inherit_origin, is_float, scalar
from mulshift.passes.base import Contract, Pass
from mulshift.passes.fuse_activations import fuse_activations
from mulshift.passes.fuse_attention import name_attention
from mulshift.passes.linear_weights import drop_unused
from mulshift.passes.rules import apply_rules


@dataclass
class Fuse(Pass):
    """Find again what was decomposed, in this order:

    - activations of one tensor, by what they compute (`fuse_activations`): Gelu in both forms, Swish (SiLU), HardSwish,
      HardSigmoid, Mish, Softplus, LeakyRelu, Elu, Relu, Clip (ReLU6), ...;
    - LayerNormalization, RMSNormalization and Softmax, by rewrite rules (`fuse_norms`);
    - `x / c` becomes `x * (1 / c)`, `x ** 2` becomes `x * x`;
    - scaled dot-product attention keeps its MatMul, Softmax and MatMul, marked `mulshift.attention` (`fuse_attention`).

    Swish before opset 24 and RMSNormalization before 23 are model functions of the domain `mulshift.float`.
    """

    name: ClassVar[str] = "fuse"
    contract: ClassVar[Contract] = Contract.CLOSE

    def rewrite(self, model: ir.Model) -> None:
        """See the class; a match that cannot be rewritten is reported with the reason."""
        from mulshift.passes.fuse_norms import rules

        fuse_activations(self, model)
        apply_rules(self, model, list(rules(model)))
        for node in list(model.graph):
            self._multiply(model.graph, node)
        name_attention(self, model)

    def _multiply(self, graph: ir.Graph, node: ir.Node) -> None:
        """Division by a constant, and the square, as a product."""
        if node.domain != "" or node.op_type not in ("Div", "Pow") or not is_float(node.inputs[0]):
            return None
        x, c = node.inputs[0], node.inputs[1]
        number = constant(c)
        if x is None or c is None or number is None or constant(x) is not None:
            return None
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
