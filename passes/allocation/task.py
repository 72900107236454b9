"""One task of a job in one process, single-threaded: the same bits wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mulshift.ir import MulshiftError
from mulshift.ir import errors as kinds
from mulshift.passes.allocation.job import Bench
from mulshift.passes.allocation.sensitivity import find_sensitivity


@dataclass
class Runner:
    """Opens the folder of a job when first asked.

    Attributes:
        folder: of the job.
    """

    folder: Path
    _bench: Bench | None = field(default=None, init=False, repr=False)

    def run(self, task: str) -> Any:
        """Result of a task, plain JSON."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if self._bench is None:
                self._bench = Bench(self.folder)
            return find_sensitivity(self._bench.job.sensitivity).run(self._bench, task)
        finally:
            torch.set_num_threads(threads)


def told(error: MulshiftError) -> list[str]:
    """An error as JSON, for another process to raise."""
    return [type(error).__name__, error.where, error.cause, error.remedy]


def raised(error: list[str]) -> MulshiftError:
    """The inverse of `told`."""
    name, where, cause, remedy = error
    kind: type[MulshiftError] = getattr(kinds, name, MulshiftError)
    return kind(where, cause, remedy)
