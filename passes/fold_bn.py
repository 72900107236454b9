"""fold-bn: BatchNormalization, and any per-channel Mul and Add, go into the weights of a neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import describe, is_float, sole_user
from mulshift.passes.base import Contract, Pass
from mulshift.passes.channel_affine import Affine, Chain, read_affine
from mulshift.passes.fold_affine import into_consumer, into_producer, write_mul_add
from mulshift.passes.fuse_activations import nodes_of_activations


@dataclass
class FoldBn(Pass):
    """BatchNormalization `y = scale * (x - mean) / sqrt(var + epsilon) + B` is `y = a * x + b` for each channel:

        a = scale / sqrt(var + epsilon),    b = B - mean * a

    After a linear operator `x = W u + bias`, also across Reshape, Flatten, Squeeze, Unsqueeze and Transpose:

        W' = a * W (output channels),       bias' = a * bias + b

    Before one, `z = W y + bias`, where y is not padded with zeros or b is 0:

        W' = W * a (input channels),        bias' = bias + W b

    Linear operators: Conv, ConvTranspose, Gemm, and MatMul with constant weights (its bias becomes an Add). Add, Sub,
    Mul and Div with a constant a channel fold like BatchNormalization; one that cannot fold becomes a Mul and an Add.
    What fuse would take into an activation (the `x / 6` of a HardSwish) stays. Computed in float64, stored in the type
    of the weights. Weights that others read are copied.
    """

    name: ClassVar[str] = "fold-bn"
    contract: ClassVar[Contract] = Contract.CLOSE

    def rewrite(self, model: ir.Model) -> None:
        """See the class; a BatchNormalization that is not folded is reported with the reason."""
        graph = model.graph
        taken = nodes_of_activations(graph)
        changes = -1
        while changes != len(self.log.changed):
            changes = len(self.log.changed)
            for node in list(graph):
                chain = self._chain(node, taken) if node.graph is graph else None
                if chain is not None:
                    self._fold(graph, chain)

    def _chain(self, head: ir.Node, taken: set[ir.Node]) -> Chain | None:
        """The chain that starts at a node, None if none does; nodes in `taken` belong to none."""
        found = _affine(head, taken)
        if isinstance(found, str):
            self._note(head, found)
            return None
        if found is None or not is_float(head.outputs[0]):
            return None
        x, affine = found
        before = x.producer()
        if before is not None and sole_user(x) is head and isinstance(_affine(before, taken), tuple):
            return None  # in the middle of a chain
        nodes = [head]
        while (user := sole_user(nodes[-1].outputs[0])) is not None:
            following = _affine(user, taken)
            if (
                not isinstance(following, tuple)
                or following[0] is not nodes[-1].outputs[0]
                or user.graph is not head.graph
            ):
                break
            affine = affine.then(following[1])
            nodes.append(user)
        return Chain(nodes, x, affine)

    def _fold(self, graph: ir.Graph, chain: Chain) -> None:
        if not (np.isfinite(chain.affine.a).all() and np.isfinite(chain.affine.b).all()):
            return self._note(chain.nodes[0], "its factors are not finite")
        reasons = []
        for fold in (into_producer, into_consumer):
            names = [describe(node) for node in chain.nodes]
            result = fold(graph, chain)
            if isinstance(result, ir.Node):
                for name in names:
                    self.changed(name, f"folded into {describe(result)}")
                return None
            reasons += [result] if result else []
        normalizations = [node for node in chain.nodes if node.op_type == "BatchNormalization"]
        if not normalizations and len(chain.nodes) <= 2:
            for reason in reasons:
                self._note(chain.nodes[0], f"not folded: {reason}")
            return None
        why = "; ".join(reasons) or "no linear operator beside it"
        for node in normalizations:
            self._note(node, f"became Mul and Add: {why}")
        for node in chain.nodes:
            self.changed(node, "part of a Mul and an Add")
        return write_mul_add(graph, chain)

    def _note(self, node: ir.Node, why: str) -> None:
        """A skip, reported once although the graph is swept several times."""
        if not any(n.what == why and n.where == describe(node) for n in self.log.skipped):
            self.skipped(node, why)


def _affine(node: ir.Node, taken: set[ir.Node]) -> tuple[ir.Value, Affine] | str | None:
    return None if node in taken else read_affine(node)
