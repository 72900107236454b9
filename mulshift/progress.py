"""Progress of long work on stderr: bars with time left on a terminal, a few plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    """One bar, of the stage at work."""

    bars: RichProgress
    task: TaskID | None = None
    stage: tuple[str, int | None] | None = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if self.task is None:
            self.task = self.bars.add_task(stage, total=total)
        if self.stage != (stage, total):
            self.stage = (stage, total)
            self.bars.reset(self.task, description=stage, total=total, completed=done)
        self.bars.update(self.task, completed=done)


@dataclass
class _Lines:
    """A line when a stage starts, ends, and every few seconds between, with the time left."""

    out: TextIO
    clock: Callable[[], float] = time.monotonic
    stage: tuple[str, int | None] | None = None
    started: tuple[float, int] = (0.0, 0)
    told: float = 0.0
    last: int = -1

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        now = self.clock()
        if self.stage != (stage, total):
            self.stage, self.started = (stage, total), (now, done)
        elif done == self.last or not (done == total or now - self.told >= SECONDS_BETWEEN_LINES):
            return
        self.told, self.last = now, done
        self.out.write(f"{stage}: {done}/{'?' if total is None else total}{self._left(done, total, now)}\n")
        self.out.flush()

    def _left(self, done: int, total: int | None, now: float) -> str:
        since, first = self.started
        if total is None or not first < done < total:
            return ""
        return f", {(now - since) / (done - first) * (total - done):.0f} s left"
