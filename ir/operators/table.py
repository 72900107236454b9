"""Table: any unary function of a tensor as one entry for each integer, `y = table[x]` (ARITHMETIC.md section 4).

x: u8, s8 or s16, any shape; table: [256], [65536] for s16, of u8, s8 or s16, ordered by the *bits* of x, so that the
last entry belongs to -1: ONNX Gather counts negative indices from the end.
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
