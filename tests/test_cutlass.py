"""2:4 metadata in NVIDIA's layout, byte for byte that of torch."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass as from_dense,
)
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_to_dense_cutlass as to_dense,
)

from mulshift.backends.cutlass import TYPES, compress
from mulshift.ir import Array, UsageError

DTYPES: dict[str, tuple[Any, torch.dtype]] = {
    "int8": (np.int8, torch.int8),
    "float16": (np.float16, torch.float16),
    "bfloat16": (ml_dtypes.bfloat16, torch.bfloat16),
    "float32": (np.float32, torch.float32),
}


def sparse(name: str, rows: int, columns: int, seed: int, density: float) -> Array:
    """At most half of each group not zero, often fewer."""
    group, rng = TYPES[name].group, np.random.default_rng(seed)
    w = rng.integers(-127, 128, (rows * TYPES[name].rows, columns * TYPES[name].columns))
    grouped = w.reshape(len(w), -1, group)
    order = rng.random(grouped.shape).argsort(axis=-1)
    kept = np.where((order < group // 2) & (rng.random(grouped.shape) < density), grouped, 0)
    return kept.reshape(w.shape).astype(DTYPES[name][0])


def as_torch(w: Array, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(w.astype(np.float32) if w.dtype.kind == "V" or dtype is torch.bfloat16 else w).to(dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(DTYPES)),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_values_and_metadata_are_those_of_torch(name: str, rows: int, columns: int, seed: int, density: float) -> None:
    w = sparse(name, rows, columns, seed, density)
    dense = as_torch(w, DTYPES[name][1])
    values, meta = from_dense(dense)
    got, positions = compress(w)
    assert got.dtype == w.dtype and np.array_equal(got.astype(np.float32), values.float().numpy())
    assert positions.dtype == meta.numpy().dtype and np.array_equal(positions, meta.numpy())
    assert torch.equal(to_dense(as_torch(got, DTYPES[name][1]), torch.from_numpy(positions)), dense)


def test_every_pattern_of_one_group() -> None:
    w = np.zeros((16, 64), np.int8)
    for i, pattern in enumerate(p for p in range(16) if p.bit_count() <= 2):
        w[i % 16, 4 * i : 4 * i + 4] = [pattern >> b & 1 for b in range(4)]
    assert np.array_equal(compress(w)[1], from_dense(torch.from_numpy(w))[1].numpy())


@pytest.mark.parametrize(
    ("w", "why"),
    [
        (np.ones((16, 64), np.int8), "output channel 0 has more than 2 weights in group 0 of 4"),
        (np.ones((32, 16), np.float32), "more than 1 weights in group 0 of 2"),
        (np.zeros((8, 64), np.int8), "pad N to a multiple of 16 and K of 64"),
        (np.zeros((16, 32), np.int8), "pad N to a multiple of 16 and K of 64"),
        (np.zeros((16, 64), np.int16), "there is none of int16"),
        (np.zeros((0, 64), np.int8), "there is none of int8"),
    ],
)
def test_what_has_no_metadata(w: Array, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        compress(w)
