"""Budgets as people write them: `size=0.6` of all w8a8, `size=3.2MB`, `latency=5ms`, `top1=-1.0` against float."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mulshift.ir import UsageError
from mulshift.passes.allocation.costs import COSTS
from mulshift.passes.allocation.measurements import Measurements

UNITS: dict[str, dict[str, float]] = {
    "B": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6},
    "": {"M": 1e6, "G": 1e9, "T": 1e12},
}
"""Unit of a cost -> what may follow a number, and its factor."""
_TEXT = re.compile(r"\s*([\w-]+)\s*=\s*([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*([a-zA-Z]*)\s*")


@dataclass(frozen=True)
class Budget:
    """One limit.

    Attributes:
        name: a row of COSTS, or a metric.
        value: as written, without its unit.
        unit: as written; empty for a share of all w8a8, or a metric.
    """

    name: str
    value: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.name}={self.value:g}{self.unit}"

    @property
    def is_metric(self) -> bool:
        """Whether it limits what a metric may change against float (`top1=-1`), not a cost."""
        return self.name not in COSTS

    def limit(self, measured: Measurements) -> float:
        """In units of the cost."""
        if not self.unit:
            return self.value * measured.reference(self.name)
        return self.value * UNITS[COSTS[self.name].unit][self.unit]

    def tell(self, measured: Measurements, cost: float) -> str:
        """A cost as this budget would write it, rounded up to three digits so that it can be met."""
        scale = UNITS[COSTS[self.name].unit][self.unit] if self.unit else measured.reference(self.name)
        value = cost / scale if scale else 0.0
        if value <= 0:
            return f"0{self.unit}"
        step = 10.0 ** (math.floor(math.log10(value)) - 2)
        return f"{math.ceil(value / step - 1e-6) * step:.3g}{self.unit}"


def parse_budgets(texts: Iterable[str], metrics: bool = False) -> tuple[Budget, ...]:
    """Budgets in order; a name that is no cost is a metric, if metrics can be evaluated.

    Raises:
        UsageError: not of the form, an unknown name or unit, a cost that is not positive, a name twice.
    """
    found: dict[str, Budget] = {}
    for text in texts:
        budget = _parse(text, metrics)
        if budget.name in found:
            raise UsageError(f"budget '{text}'", f"'{budget.name}' was given already", "give each once")
        found[budget.name] = budget
    return tuple(found.values())


def _parse(text: str, metrics: bool) -> Budget:
    where, match = f"budget '{text}'", _TEXT.fullmatch(text)
    if match is None:
        raise UsageError(where, "is not NAME=VALUE", "write it as size=0.6, size=3.2MB, latency=5ms or top1=-1")
    name, number, unit = match.groups()
    if name not in COSTS and not metrics:
        remedy = f"use {', '.join(COSTS)}, or give a function that evaluates metrics"
        raise UsageError(where, f"there is no cost '{name}'", remedy)
    budget = Budget(name, float(number), unit)
    units = {} if budget.is_metric else UNITS[COSTS[name].unit]
    if unit and unit not in units:
        raise UsageError(where, f"there is no unit '{unit}'", f"use {', '.join(units) or 'none'}")
    if not budget.is_metric and not budget.value > 0:
        raise UsageError(where, "is not positive", "give a share of all w8a8, or an amount with its unit")
    return budget
