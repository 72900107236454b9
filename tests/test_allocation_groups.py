"""Groups and candidates: what must share a format does, what need not does not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g

from mulshift.ir import UsageError
from mulshift.passes.allocation.candidates import Candidate, parse_candidates
from mulshift.passes.allocation.groups import find_products, group_products
from mulshift.passes.allocation.weights import multipliers, rounded_weights
from mulshift.passes.precision import Precision

WEIGHTS = parse_candidates(["w8a8", "w4a8"])
BOTH = parse_candidates(["w8a8", "w4a8", "w8a4"])
W, V = g.normal(4, 4, seed=1), g.normal(4, 4, seed=2)


def names(model: ir.Model, candidates: tuple[Candidate, ...]) -> list[list[str]]:
    return [[p.name for p in group.products] for group in group_products(find_products(model.graph), candidates)]


def build(body: str) -> ir.Model:
    return g.graph(f"(float[2, 4] x) => (float[2, 4] y) {{ {body} }}", {"w": W, "v": V, "u": W.copy()})


def test_products_of_their_own_are_groups_of_their_own() -> None:
    model = build("a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)")
    assert names(model, BOTH) == [["MatMul_0"], ["MatMul_2"]]


def test_shared_weights_share_a_format() -> None:
    model = build("a = MatMul(x, w) b = Relu(a) y = MatMul(b, w)")
    assert names(model, WEIGHTS) == [["MatMul_0", "MatMul_2"]]


def test_equal_weights_are_not_shared_ones() -> None:
    model = build("a = MatMul(x, w) b = Relu(a) y = MatMul(b, u)")
    assert names(model, WEIGHTS) == [["MatMul_0"], ["MatMul_2"]]


QKV = "q = MatMul(x, w) k = MatMul(x, v) r = Relu(x) t = MatMul(r, u) s = Add(q, k) y = Add(s, t)"


def test_readers_of_one_activation_share_its_bits() -> None:
    """Only where candidates differ in them; another activation is another group."""
    assert names(build(QKV), BOTH) == [["MatMul_0", "MatMul_1"], ["MatMul_3"]]
    assert names(build(QKV), WEIGHTS) == [["MatMul_0"], ["MatMul_1"], ["MatMul_3"]]


def test_movers_hand_the_same_integers_on() -> None:
    model = build("t = Transpose(x) r = Transpose(t) q = MatMul(r, w) k = MatMul(x, v) y = Add(q, k)")
    assert names(model, BOTH) == [["MatMul_2", "MatMul_3"]]


def test_products_of_activations_and_skipped_ones_are_left_alone() -> None:
    model = build("t = Transpose(x) a = MatMul(x, t) b = MatMul(a, x) y = MatMul(b, w)")
    assert [p.name for p in find_products(model.graph)] == ["MatMul_3"]
    assert find_products(model.graph, ["MatMul*"]) == []


def test_axis_and_shape_of_each_operator() -> None:
    model = g.graph(
        """(float[1, 4, 5, 5] x) => (float[1, 6] y) {
            a = Conv(x, c)  b = ConvTranspose(a, t)  p = GlobalAveragePool(b)  f = Flatten(p)  y = Gemm<transB=1>(f, m)
        }""",
        {"c": g.normal(8, 4, 3, 3), "t": g.normal(8, 6, 2, 2), "m": g.normal(6, 6)},
    )
    assert [(p.weights, p.shape, p.axis) for p in find_products(model.graph)] == [
        ("c", (8, 4, 3, 3), 0), ("t", (8, 6, 2, 2), 1), ("m", (6, 6), 0)
    ]  # fmt: skip


def test_candidates_are_sorted_once_and_named() -> None:
    found = parse_candidates(["w2a8", "w8a4", "w8a8", "w4g32a8", "w2a8", "w4a8:dense"])
    assert list(map(str, found)) == ["w8a8", "w4a8", "w4g32a8", "w2a8", "w8a4"]
    assert all(Candidate.parse(str(c)) == c for c in found)


@pytest.mark.parametrize(
    ("texts", "words"), [([], "there are none"), (["w9a8"], "there is no"), (["w4a8:holey"], "no kind 'holey'")]
)
def test_candidates_that_there_are_not(texts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_candidates(texts)


def test_rounded_weights_lie_on_their_grid() -> None:
    w = g.normal(3, 10, seed=3)
    for bits in (8, 4, 2):
        made = rounded_weights(w, 0, Precision(bits))
        assert all(len(np.unique(np.abs(row[row != 0]))) <= 2 ** (bits - 1) - 1 for row in made)
        assert made.shape == w.shape and made.dtype == np.float32
    errors = [np.square(rounded_weights(w, 0, p) - w).sum() for p in (Precision(8), Precision(4), Precision(2))]
    assert errors == sorted(errors)


def test_grouped_weights_have_a_scale_a_group() -> None:
    """A row whose halves differ 100 times in size: one scale loses the small half, two keep it."""
    w = np.concatenate([g.normal(2, 8, seed=4), 100 * g.normal(2, 8, seed=5)], axis=1)
    one, two = (rounded_weights(w, 0, Precision(4, 8, group)) for group in (0, 8))
    assert not one[:, :8].any() and two[:, :8].any(axis=1).all()
    assert multipliers((2, 16), 0, Precision(4, 8, 8)) == 4
    assert multipliers((2, 16), 0, Precision(4, 8)) == 0
    turned = rounded_weights(w.T.copy(), 1, Precision(4, 8, 8))
    assert np.array_equal(turned, two.T)
