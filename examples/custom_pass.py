"""A pass of one's own in one's own file: -(-x) = x, run in a recipe beside the passes that ship.

python examples/custom_pass.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import sole_user
from mulshift.ir.frontend import load
from mulshift.passes import PASSES, Contract, Pass
from mulshift.passes.pipeline import Pipeline

MODEL = """
<ir_version: 10, opset_import: ["": 21]>
agraph (float[N, 4] x) => (float[N, 4] y, float[N, 4] shown) {
  a = Neg (x)
  b = Neg (a)
  c = Relu (b)
  shown = Neg (c)
  y = Neg (shown)
}
"""


@dataclass
class DropDoubleNeg(Pass):
    """`-(-x)` becomes `x`, where the inner negation has no other user.

    The fields of the dataclass (none here) would be its options in a recipe.
    """

    name: ClassVar[str] = "drop-double-neg"
    contract: ClassVar[Contract] = Contract.EXACT

    def rewrite(self, model: ir.Model) -> None:
        for outer in list(model.graph):
            inner = outer.inputs[0].producer() if outer.op_type == "Neg" and outer.inputs[0] is not None else None
            if inner is None or inner.op_type != "Neg" or inner.inputs[0] is None:
                continue
            if sole_user(inner.outputs[0]) is not outer:
                self.skipped(outer, "the inner negation is used elsewhere too")
                continue
            if outer.outputs[0].is_graph_output():
                self.skipped(outer, "it makes a graph output, whose name must stay")
                continue
            outer.outputs[0].replace_all_uses_with(inner.inputs[0])
            model.graph.remove([outer, inner], safe=True)
            self.changed(outer, "dropped with its inner negation")


def main() -> None:
    PASSES[DropDoubleNeg.name] = DropDoubleNeg  # one row makes it known to recipes
    recipe = {"name": "mine", "passes": [{"pass": DropDoubleNeg.name}]}
    model = load(ir.from_onnx_text(MODEL))
    samples = [{"x": np.array([[-1.5, 0.0, 2.0, 3.25]], np.float32)}]
    # The pipeline runs the samples before and after: a pass that promises EXACT and is not is an error.
    result = Pipeline(recipe).run(model, samples)
    for record in result.records:
        for kind, notes in (("changed", record.changed), ("left alone", record.skipped)):
            for note in notes:
                print(f"{record.name}: {kind}: {note.where}: {note.what}")
    print("operators now:", ", ".join(node.op_type for node in result.model.graph))


if __name__ == "__main__":
    main()
