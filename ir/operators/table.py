"""Table: any unary function of an 8-bit tensor as 256 entries, `y = table[x]` (ARITHMETIC.md section 4).

x: u8 or s8, any shape; table: [256] of u8, s8 or s16, ordered by the *bits* of x, so entry 255 belongs to s8 -1: ONNX
Gather counts negative indices from the end.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.operator import Attributes, Operator
from mulshift.ir.types import Array

_BODY = """
  index = Cast <to = 6> (x)
  y = Gather <axis = 0> (table, index)
"""


def _reference(a: Attributes, x: Array, table: Array) -> Array:
    return np.asarray(table[x.astype(np.int64)])


TABLE = Operator(name="Table", signature="(x, table) => (y)", body=_BODY, reference=_reference)
