"""How much quality a candidate costs: one row a way to tell. A new one is a file beside this one and a row."""

from __future__ import annotations

from mulshift.ir import UsageError
from mulshift.passes.allocation.sensitivity.base import Sensitivity, Table
from mulshift.passes.allocation.sensitivity.gradient import Gradient
from mulshift.passes.allocation.sensitivity.hessian import Hessian
from mulshift.passes.allocation.sensitivity.outputs import Kl, Sqnr

SENSITIVITIES: dict[str, Sensitivity] = {s.name: s for s in (Gradient(), Hessian(), Kl(), Sqnr())}


def find_sensitivity(name: str) -> Sensitivity:
    """A row by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in SENSITIVITIES:
        raise UsageError("sensitivity", f"there is no '{name}'", f"use one of {', '.join(SENSITIVITIES)}")
    return SENSITIVITIES[name]


__all__ = ["SENSITIVITIES", "Sensitivity", "Table", "find_sensitivity"]
