"""round-nearest: every weight to the nearest integer, in the interface of the learned roundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mulshift.passes.rounding.base import RoundingPass
from mulshift.passes.rounding.problem import Problem, Solution


@dataclass
class RoundNearest(RoundingPass):
    """`q = clamp(round(w / s))`.

    With `compensate` the weights w are first regressed on the quantized inputs, and biases keep the mean output.
    """

    name: ClassVar[str] = "round-nearest"
    compensate: bool = False

    def solve(self, problem: Problem) -> Solution:
        """One rounding."""
        return Solution(problem.round(problem.target / problem.scale), problem.scale)
