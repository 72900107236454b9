"""The text form of a graph: deterministic, complete, one value or node a line; `parse(show(g))` equals g.

    mulshift text 1
    model {ir_version=10}
    graph "net"(%x: f32[N,3,32,32]) -> (%y) {
      opset "" = 21
      %w = f32[8,3,3,3] <sha256:0f3a...>
      %y: f32[N,8,30,30] = Conv(%x, %w) {strides=[1, 1]} // conv1
        . mulshift.origin = "[\\"features.0\\"]"
        . %y mulshift.range = "[-1.0, 2.5]"
    }

Tensors of up to 8 elements are numbers, larger ones base64 (or a hash, with `elide`); odd names are quoted; `// name`
is the node's name; `_` is an absent input or an unknown type, `?` an unknown dimension, `[*]` an unknown rank. Lines
that begin with a point are documentation and metadata of what stands above them, or of the value they name.
Not kept: dimension denotations, device configurations, sparse tensors (an error), documentation of attributes.
"""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir.text.compare import difference, equal
from mulshift.ir.text.read import Reader
from mulshift.ir.text.write import Style, model_lines

__all__ = ["difference", "equal", "parse", "show"]


def show(model: ir.Model, elide: bool = False, metadata: bool = True) -> str:
    """The text of a model.

    Args:
        elide: hash in place of the data of large tensors; such a text is for people and cannot be parsed.
        metadata: whether documentation and metadata are written.

    Raises:
        UnsupportedError: a sparse tensor.
    """
    return "\n".join(model_lines(model, Style(elide, metadata))) + "\n"


def parse(text: str) -> ir.Model:
    """The model of a text that `show` wrote.

    Raises:
        ModelError: not such a text; names the line.
    """
    return Reader(text).model()
