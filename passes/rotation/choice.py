"""Which rotation a region gets: by name, or the one with the least quantization error in what its readers make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, Feeds, Interpreter, attribute
from mulshift.passes.hadamard import factors, hadamard, largest_order, orthogonal
from mulshift.passes.rotation.regions import Norm, Region
from mulshift.passes.rotation.weights import in_axis, turned, weight

if TYPE_CHECKING:
    import torch

NONE = "none"
_ROWS, _PER_SAMPLE, _COLUMNS = 512, 64, 256
"""Rows of an activation that are kept, how many of one sample, and output channels of a reader that are compared."""


@dataclass(frozen=True)
class Bits:
    """Bits of activations (one scale a tensor) and of weights (one scale an output channel)."""

    activations: int
    weights: int


def rotation(order: int, method: str, seed: int) -> tuple[str, Array]:
    """(what it is, Q): `diag(s) H / sqrt(n)`, s random signs, where there is an H and `method` is "hadamard"."""
    h = hadamard(order) if method == "hadamard" else None
    if h is None:
        return f"random orthogonal {order}", orthogonal(order, seed)
    s = np.random.default_rng(seed).choice([-1.0, 1.0], order)
    p, m = factors(order) or (1, order)
    return f"Hadamard {order}" + (f" = {p} x {m}" if 1 < m < order else ""), s[:, None] * h


def candidates(order: int, moment: Array, seed: int) -> dict[str, Array]:
    """Rotations to choose from.

    - Hadamard: each output channel is a sum of all channels with random signs (arXiv:2404.00456).
    - spread, where no H has the order: channels dealt out by size, back and forth, over blocks; H in each block.
    - random orthogonal.
    - principal + ...: on the principal axes V of `moment` = x^T x a Hadamard, so that diag((V H)^T moment (V H)) is one
      number: all channels get the same mean square.
    """
    name, q = rotation(order, "hadamard", seed)
    found = {name: q, **dict([rotation(order, "random", seed)])}
    block = largest_order(order, order)
    if 4 <= block < order:
        found[f"spread over Hadamard {block}"] = _spread(np.diag(moment), block)
    found[f"principal axes, {name}"] = _principal(moment) @ q
    return found


def _spread(energy: Array, block: int) -> Array:
    """Q = permutation, then blockdiag(H, ..., H): the largest channels land in different blocks."""
    n, count, h = energy.size, energy.size // block, hadamard(block)
    assert h is not None
    rounds = np.argsort(-energy, kind="stable").reshape(block, count)
    rounds[1::2] = rounds[1::2, ::-1]
    order = rounds.T.reshape(-1)  # block after block
    return np.eye(n)[:, order] @ np.kron(np.eye(count), h)


def _principal(moment: Array) -> Array:
    """Eigenvectors, each with its largest entry positive."""
    v = np.linalg.eigh(moment)[1]
    largest = np.take_along_axis(v, np.abs(v).argmax(axis=0)[None], axis=0)
    return np.asarray(v * np.where(largest < 0, -1.0, 1.0))


# Measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One reader: `y = (gain * u + shift) W`.

    Attributes:
        u: [rows, k], what a rotation acts on.
        gain, shift: [k].
        w: [k, columns].
    """

    u: Array
    gain: Array
    shift: Array
    w: Array


def choose(
    region: Region, rows: Mapping[ir.Value, Array], bits: Bits, seed: int, only: Mapping[str, Array] | None = None
) -> tuple[str, Array | None, str]:
    """(what, Q or None, the errors in words) with the least error: none, `only`, or all `candidates`."""
    cases = [_case(node, norm, rows) for node, norm in region.readers.items()]
    runs = np.concatenate([case.u.reshape(-1, region.order) for case in cases])
    made = candidates(region.order, runs.T @ runs, seed) if only is None else only
    errors = {NONE: _mean(_plain_error(case, bits) for case in cases)}
    errors |= {name: _mean(_error(case, q, bits) for case in cases) for name, q in made.items()}
    best = min(errors, key=lambda name: errors[name])
    return best, made.get(best), ", ".join(f"{name} {e:.3g}" for name, e in errors.items())


def _mean(errors: Iterable[float]) -> float:
    return float(np.mean(list(errors)))


def _case(node: ir.Node, norm: Norm | None, rows: Mapping[ir.Value, Array]) -> Case:
    w = np.moveaxis(weight(node.inputs[1]), in_axis(node), 0)
    w = w.reshape(len(w), -1)
    w = w[:, :: max(1, w.shape[1] // _COLUMNS)].astype(np.float64)
    x = rows[source(node, norm)].astype(np.float64)
    if norm is None:
        return Case(x, np.ones(len(w)), np.zeros(len(w)), w)
    x = x - x.mean(axis=1, keepdims=True) if norm.centred else x
    u = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + attribute(norm.node, "epsilon", 1e-5))
    repeats = len(w) // u.shape[1]
    return Case(np.tile(u, repeats), np.tile(norm.gamma, repeats), np.tile(norm.beta, repeats), w)


def _plain_error(case: Case, bits: Bits) -> float:
    x = case.u * case.gain + case.shift
    return _relative(x, case.w, (case.u * case.gain) @ case.w, bits)


def _error(case: Case, q: Array, bits: Bits) -> float:
    x, w = turned(case.u, 1, q), turned(case.w, 0, q, np.resize(case.gain, len(q)))
    return _relative(x, w, (case.u * case.gain) @ case.w, bits)


def _relative(x: Array, w: Array, signal: Array, bits: Bits) -> float:
    """`|round(x) round(w) - x w|^2 / |signal|^2`."""
    noise = _rounded(x, bits.activations) @ _rounded_weights(w, bits.weights) - x @ w
    return float((noise**2).sum() / max(float((signal**2).sum()), 1e-300))


def _rounded(x: Array, bits: int) -> Array:
    """On 2^bits levels from the smallest to the largest number (zero included)."""
    scale = (max(float(x.max()), 0.0) - min(float(x.min()), 0.0)) / (2**bits - 1)
    return x if scale == 0 else np.asarray(np.rint(x / scale) * scale)


def _rounded_weights(w: Array, bits: int) -> Array:
    """w: [k, outputs], symmetric, one scale a column."""
    scale = np.abs(w).max(axis=0) / (2 ** (bits - 1) - 1)
    return np.asarray(np.rint(w / np.where(scale == 0, 1.0, scale)) * scale)


def source(node: ir.Node, norm: Norm | None) -> ir.Value:
    """What is observed for a reader: its input, or that of the norm before it."""
    value = node.inputs[0] if norm is None else norm.node.inputs[0]
    assert value is not None
    return value


def observe(model: ir.Model, regions: Sequence[Region], samples: Iterable[Feeds]) -> dict[ir.Value, Array]:
    """Rows [at most 512, channels] of what each reader's rotation acts on, evenly from each sample."""
    import torch

    axes = {source(n, norm): r.values[source(n, norm)] for r in regions for n, norm in r.readers.items()}
    kept: dict[ir.Value, list[Array]] = {value: [] for value in axes}

    def keep(value: ir.Value, tensor: torch.Tensor) -> None:
        have = sum(len(part) for part in kept.get(value, []))
        if value not in kept or have >= _ROWS or not tensor.numel():
            return
        rows = tensor.detach().movedim(axes[value], -1).flatten(0, -2)
        count = min(len(rows), _PER_SAMPLE, _ROWS - have)
        index = torch.linspace(0, len(rows) - 1, count).round().long()
        kept[value].append(rows[index].float().numpy())

    interpreter = Interpreter(model)
    with torch.no_grad():
        for feeds in samples:
            interpreter.run(feeds, keep)
    return {value: np.concatenate(parts) for value, parts in kept.items() if parts}
