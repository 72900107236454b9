"""The activation functions that fuse knows: a row each, parameters read off a few samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mulshift.ir import Array

_FAR = 1e30
GRID: Array = np.concatenate([np.linspace(-30, 30, 1201), *[[-x, x] for x in (50.0, 1e2, 1e3, 1e4, 1e6, _FAR)]])
"""Where two functions are compared; the far points tell a Relu from a Clip at 100."""
NEAR = 1201
"""The first points, where a decomposed form must be finite (further out its Exp may overflow)."""
_LIMIT = 2e-5
"""Absolute: constants are written with 5 digits or more (1.4142 for the root of 2)."""
_RELATIVE = 1e-6


@dataclass(frozen=True)
class Function:
    """A row.

    Attributes:
        op: ONNX operator; `Clip` takes its parameters as inputs, the others as attributes.
        fit: parameters from `f`, which gives the decomposed form at a grid point; None if it is not this row.
        formula: the real function of x and the parameters, float64.
    """

    op: str
    fit: Callable[[Callable[[float], float]], Mapping[str, Any] | None]
    formula: Callable[..., Array]


def _fixed(**parameters: Any) -> Callable[[Callable[[float], float]], Mapping[str, Any]]:
    return lambda f: parameters


def _tidy(x: float) -> float:
    """The number that was meant: 1 for 0.99999994."""
    rounded = round(x, 6)
    return rounded if abs(rounded - x) < 1e-6 * max(1.0, abs(x)) else x


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def _gelu(x: Array, approximate: str = "none") -> Array:
    from scipy.special import erf

    if approximate == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


def _fit_swish(f: Callable[[float], float]) -> Mapping[str, Any] | None:
    """`f(1) = sigmoid(alpha)`."""
    y = f(1.0)
    return {"alpha": _tidy(float(np.log(y / (1 - y))))} if 0.5 < y < 1 else None


def _fit_hard_sigmoid(f: Callable[[float], float]) -> Mapping[str, Any] | None:
    """`f(0) = beta`, and the slope from a point close by."""
    beta = f(0.0)
    alpha = (f(0.5) - beta) / 0.5
    return {"alpha": alpha, "beta": beta} if 0 < beta < 1 and alpha > 0 else None


def _fit_leaky(f: Callable[[float], float]) -> Mapping[str, Any] | None:
    alpha = -f(-1.0)
    return {"alpha": alpha} if 0 < alpha < 1 else None


def _fit_elu(f: Callable[[float], float]) -> Mapping[str, Any] | None:
    alpha = -f(-30.0)
    return {"alpha": _tidy(alpha)} if 0 < alpha < 30 else None


def _fit_clip(f: Callable[[float], float]) -> Mapping[str, Any] | None:
    low, high = f(-_FAR), f(_FAR)
    if low >= high or (low == -_FAR and high == _FAR):
        return None
    return {"min": None if low == -_FAR else low, "max": None if high == _FAR else high}


def _clip(x: Array, min: float | None, max: float | None) -> Array:
    return np.asarray(np.clip(x, min, max))


FUNCTIONS: tuple[Function, ...] = (
    Function("Relu", _fixed(), lambda x: np.maximum(x, 0)),
    Function("Clip", _fit_clip, _clip),
    Function("LeakyRelu", _fit_leaky, lambda x, alpha: np.where(x < 0, alpha * x, x)),
    Function("HardSwish", _fixed(), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    Function("HardSigmoid", _fit_hard_sigmoid, lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
    Function("Sigmoid", _fixed(), _sigmoid),
    Function("Tanh", _fixed(), np.tanh),
    Function("Softplus", _fixed(), lambda x: np.logaddexp(x, 0)),
    Function("Softsign", _fixed(), lambda x: x / (1 + np.abs(x))),
    Function("Gelu", _fixed(), _gelu),
    Function("Gelu", _fixed(approximate="tanh"), _gelu),
    Function("Mish", _fixed(), lambda x: x * np.tanh(np.logaddexp(x, 0))),
    Function("Elu", _fit_elu, lambda x, alpha: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)),
    Function("Swish", _fit_swish, lambda x, alpha: x * _sigmoid(alpha * x)),
)


def recognize(y: Array) -> tuple[str, Mapping[str, Any]] | None:
    """The operator and parameters of the first row that gives `y` on GRID, or None."""
    if not np.isfinite(y[:NEAR]).all() or np.ptp(y[:NEAR]) == 0:
        return None

    def at(x: float) -> float:
        return float(y[int(np.argmin(np.abs(GRID - x)))])

    finite = np.isfinite(y)
    limit = (_LIMIT + _RELATIVE * np.abs(GRID))[finite]
    with np.errstate(all="ignore"):
        for row in FUNCTIONS:
            parameters = row.fit(at)
            if parameters is not None and (np.abs(row.formula(GRID, **parameters) - y)[finite] <= limit).all():
                return row.op, parameters
    return None
