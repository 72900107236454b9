"""3x3 convolutions by F(4x4, 3x3) where the instruction set has it, at its borders: the operator's sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_checks import S8, S32, U8
from random_draws import Node
from random_nodes import check_node

from mulshift.ir import Array
from mulshift.ir.operators import packing

SIZES = [(1, 1), (2, 2), (2, 7), (3, 3), (4, 4), (5, 6), (8, 8), (9, 13), (17, 3)]


def node(w: Array, x_zero_point: int, x: Array, pads: list[int]) -> Node:
    a: dict[str, Any] = {"x_zero_point": x_zero_point, "layout": packing.K4N16, "w_shape": list(w.shape), "group": 1}
    a |= {"strides": [1, 1], "dilations": [1, 1], "pads": pads}
    bias = np.arange(-3, w.shape[0] - 3, dtype=S32)
    return Node("ConvNhwcAccumulate", a, {1: packing.pack_conv(w, 1), 2: bias}, lambda _: {0: x})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_and_padding(size: tuple[int, int], threads: int) -> None:
    rng = np.random.default_rng(size)
    for pads in ([1, 1, 1, 1], [0, 2, 2, 0], [2, 1, 0, 1]):
        w = rng.integers(-128, 128, (40, 16, 3, 3)).astype(S8)
        x = rng.integers(0, 256, (2, *size, 16)).astype(U8)
        if size[0] + pads[0] + pads[2] >= 3 and size[1] + pads[1] + pads[3] >= 3:
            check_node(node(w, int(rng.integers(256)), x, pads), rng, threads)


@pytest.mark.parametrize("channels", [16, 112, 128, 272])
@pytest.mark.parametrize("x_zero_point", [0, 128, 255])
@pytest.mark.parametrize("most", [-128, 127])
def test_the_largest_sums(channels: int, x_zero_point: int, most: int) -> None:
    """112 channels of 127 * 255 are below 2^25, 128 are not: then it is no longer F(4x4, 3x3)."""
    w = np.full((16, channels, 3, 3), most, S8)
    for value in (0, 255):
        x = np.full((1, 6, 6, channels), value, U8)
        check_node(node(w, x_zero_point, x, [1, 1, 1, 1]), np.random.default_rng(0), 1)


@pytest.mark.parametrize("channels", [144, 272, 400])
def test_weights_in_parts(channels: int) -> None:
    """Too many to keep: transformed in each call, some channels at a time."""
    rng = np.random.default_rng(channels)
    w = rng.integers(-20, 21, (48, channels, 3, 3)).astype(S8)
    x = rng.integers(0, 256, (1, 9, 10, channels)).astype(U8)
    check_node(node(w, 3, x, [1, 1, 1, 1]), rng, 2)
