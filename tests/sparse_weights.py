"""Random zeros in k4n16 weights: at most two of four stay."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array
from mulshift.ir.operators.sparse import SPARSE, SparseForm


def form_of(base: str) -> SparseForm | None:
    """Of the operators of that name, None where they keep all weights."""
    return next((form for form in SPARSE if base.endswith(form.suffix)), None)


def thinned(packed: Array, shared: bool, rng: np.random.Generator) -> Array:
    """[G, P, K4, 16, 4]; shared: the same positions for the columns of a panel. Some fours keep fewer than two."""
    group, panels, fours = packed.shape[:3]
    drawn = rng.random((group, panels, fours, 1 if shared else 16, 4)).argsort(axis=-1)
    fewer = rng.random((group, panels, fours, 16, 1)) < 0.1
    return np.asarray(packed * (drawn < np.where(fewer, rng.integers(0, 2), 2)), packed.dtype)
