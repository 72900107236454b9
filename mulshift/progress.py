"""Progress of long work on stderr: bars with time left on a terminal, a few plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO, TypeAlias

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""`progress(stage, done, total)`; total is None where it is not known."""

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def show_progress(quiet: bool = False, stream: TextIO | None = None) -> Iterator[Progress]:
    """A callback that shows what it is told until the block ends.

    Args:
        quiet: show nothing.
        stream: stderr if None.
    """
    out = sys.stderr if stream is None else stream
    if quiet:
        yield lambda stage, done, total: None
    elif out.isatty():
        yield from _bars(out)
    else:
        yield _Lines(out)


def _bars(out: TextIO) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(file=out), transient=True) as bars:
        yield _Bars(bars)


@dataclass
class _Bars:
    bars: RichProgress
    tasks: dict[str, TaskID] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=total)
        self.bars.update(self.tasks[stage], completed=done, total=total)


@dataclass
class _Lines:
    """A line when a stage starts, ends, and every few seconds between, with the time left."""

    out: TextIO
    clock: Callable[[], float] = time.monotonic
    started: dict[str, float] = field(default_factory=dict)
    told: float = 0.0
    last: tuple[str, int, int | None] | None = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if self.last == (stage, done, total):
            return
        now = self.clock()
        new = stage not in self.started
        self.started.setdefault(stage, now)
        if not (new or done == total or now - self.told >= SECONDS_BETWEEN_LINES):
            return
        self.told, self.last = now, (stage, done, total)
        self.out.write(f"{stage}: {done}/{'?' if total is None else total}{self._left(stage, done, total, now)}\n")
        self.out.flush()

    def _left(self, stage: str, done: int, total: int | None, now: float) -> str:
        if total is None or not 0 < done < total:
            return ""
        seconds = (now - self.started[stage]) / done * (total - done)
        return f", {seconds:.0f} s left"
