"""The choice as numbers: one candidate a group, least summed loss, any number of budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mulshift.ir import Array

SLACK = 1e-9
"""Relative: a sum of floats may pass its limit by so much."""


@dataclass(frozen=True, eq=False)
class Problem:
    """`min sum loss[i, c_i]` with `offset[k] + sum cost[k][i, c_i] <= limit[k]` for each budget k.

    Attributes:
        loss: [groups, candidates], not negative; infinite where a group cannot have a candidate.
        costs: budget -> [groups, candidates].
        limits: budget -> limit, what is there whatever is chosen already taken off.
        bits: [candidates], of weights.
        activations: [candidates], of activations.
    """

    loss: Array
    costs: Mapping[str, Array]
    limits: Mapping[str, float]
    bits: Array
    activations: Array

    @property
    def rows(self) -> Array:
        """[groups]: indices of the groups."""
        return np.arange(len(self.loss))

    def allowed(self) -> Array:
        """[groups, candidates]: what can be chosen."""
        return np.isfinite(self.loss)

    def total(self, choice: Array) -> float:
        """Summed loss of a choice [groups]."""
        return float(self.loss[self.rows, choice].sum())

    def cost(self, name: str, choice: Array) -> float:
        """Summed cost of a choice."""
        return float(self.costs[name][self.rows, choice].sum())

    def excess(self, name: str, choice: Array) -> float:
        """By how much of the limit a choice passes it; 0 if it fits."""
        cost = self.cost(name, choice)
        over = max(cost - self.limits[name], 0.0) / max(abs(self.limits[name]), 1e-30)
        return 0.0 if self.fits_alone(name, cost) else over

    def fits_alone(self, name: str, cost: float) -> bool:
        """Whether a summed cost is within its limit."""
        limit = self.limits[name]
        return cost <= limit + SLACK * max(abs(limit), float(np.abs(self.costs[name]).max(initial=0.0)))

    def fits(self, choice: Array) -> bool:
        """Whether a choice is within all budgets."""
        return all(self.excess(name, choice) == 0.0 for name in self.limits)

    def without(self, name: str) -> Problem:
        """The same without one budget."""
        return replace(self, limits={k: v for k, v in self.limits.items() if k != name})

    def least(self, name: str) -> Array:
        """The choice of the least cost, of those of the least loss; budgets are not looked at."""
        cost = np.where(self.allowed(), self.costs[name], np.inf)
        tied = cost <= cost.min(axis=1, keepdims=True)
        return np.asarray(np.where(tied, self.loss, np.inf).argmin(axis=1))
