"""What a sensitivity is: tasks that any process can run by itself, and how their results become a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from mulshift.passes.allocation.job import Bench, Job

Table = dict[str, dict[str, float]]
"""group -> candidate -> predicted loss, a number that adds up over groups."""


class Sensitivity(ABC):
    """One way to predict what a candidate costs in quality.

    Attributes:
        sees_outputs: whether it is about what products make, so that it sees what a learned rounding gains.
    """

    name: ClassVar[str]
    sees_outputs: ClassVar[bool] = True

    @abstractmethod
    def tasks(self, job: Job) -> list[str]:
        """Keys of the independent parts, in order."""

    @abstractmethod
    def run(self, bench: Bench, task: str) -> Any:
        """One part, as plain JSON; depends on the bench's files and the task alone."""

    @abstractmethod
    def combine(self, job: Job, results: Mapping[str, Any]) -> Table:
        """The table from the results of all tasks; sums go in the order of `tasks`."""


class EachSample(Sensitivity):
    """A table a sample, averaged."""

    def tasks(self, job: Job) -> list[str]:
        return [str(i) for i in range(job.samples)]

    def combine(self, job: Job, results: Mapping[str, Any]) -> Table:
        tables = [results[task] for task in self.tasks(job)]
        return {
            g.name: {str(c): sum(t[g.name][str(c)] for t in tables) / len(tables) for c in job.of(g)}
            for g in job.groups
        }


class EachGroup(Sensitivity):
    """A row a group."""

    def tasks(self, job: Job) -> list[str]:
        return [g.name for g in job.groups]

    def combine(self, job: Job, results: Mapping[str, Any]) -> Table:
        return {name: dict(results[name]) for name in self.tasks(job)}
