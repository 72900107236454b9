"""INTEGER graph -> the same graph as the kernel library runs it: channels last, packed weights, fused epilogues.

    Transpose(Conv(x, w)) = ConvNhwc(Transpose(x), pack(w))
    Requantize(Add(ConvNhwc(x, w), r)) = ConvNhwcAddRequantize(x, w, r)
    Pad(Slice(Slice(x))) = SlicePad(x)
    Reshape(Attention(Reshape(q), Reshape(k), Reshape(v))) = FlatAttention(q, k, v)

All are identities of the same integers. What stands between two products is turned channels last too, so that their
Transposes vanish; one stays where something needs [N, C, H, W], and a note says why. The new operators are functions
like all others: without the library ONNX Runtime runs their bodies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mulshift.ir import Level, attach, describe, get_level
from mulshift.passes.base import Contract, Pass
from mulshift.passes.kernels.boxes import fuse_boxes
from mulshift.passes.kernels.epilogue import fuse_epilogues
from mulshift.passes.kernels.flat_attention import fuse_flat_attention
from mulshift.passes.kernels.movers import MOVERS
from mulshift.passes.kernels.norm_rows import fuse_norm_rows
from mulshift.passes.kernels.products import PRODUCTS
from mulshift.passes.kernels.relayout import Relayout, StaysError
from mulshift.passes.kernels.rows import fuse_rows


@dataclass
class FuseKernels(Pass):
    """Regroup for the kernel library; `lower` does it for the target `onnxruntime`."""

    name: ClassVar[str] = "fuse-kernels"
    contract: ClassVar[Contract] = Contract.EXACT

    def rewrite(self, model: ir.Model) -> None:
        """See the module."""
        if get_level(model) is not Level.INTEGER:
            return
        state = Relayout(model.graph)
        for node in list(model.graph):
            self._visit(state, node)
        if self.log.changed:
            RemoveUnusedNodesPass()(model)  # a dead Transpose is a reader too
        fuse_rows(self, model.graph)
        fuse_epilogues(self, model.graph)
        fuse_norm_rows(self, model.graph)
        fuse_flat_attention(self, model.graph)
        fuse_boxes(self, model.graph)
        if self.log.changed:
            RemoveUnusedNodesPass()(model)
            attach(model)

    def _visit(self, state: Relayout, node: ir.Node) -> None:
        key, where = (node.domain, node.op_type), describe(node)
        product, mover = PRODUCTS.get(key), MOVERS.get(key)
        try:
            if product is not None:
                self.changed(where, product(state, node))
            elif not any(state.has_twin(v) for v in node.inputs):
                return
            elif mover is None:
                self.skipped(where, f"{node.op_type} has no channels-last form")
            else:
                mover(state, node)
                self.changed(where, "channels last")
        except StaysError as e:
            self.skipped(where, str(e))
