"""The same bytes on every machine: floating-point sums must not depend on how many cores share them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch's operators on one thread inside, as before outside.

    torch splits sums by thread, so ranges and rounded weights would differ in the last bit between machines. Two
    threads also gain little on small operators, and lose much (measured: 8 times) where other work shares the cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
