"""A serialized model without the function bodies that a session with kernels never runs.

Each takes ONNX Runtime about 30 KB. Read field by field, as in `model_operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from mulshift.backends.model_operators import fields, types_in

GRAPH, FUNCTION = 7, 25
"""Fields of ModelProto."""
NAME, DOMAIN = 1, 10
"""Fields of FunctionProto."""

_Function: TypeAlias = tuple[str | None, frozenset[str], int, int]
"""Its name, None if it belongs to another domain; types of its nodes, of the domain; the field that holds it."""


def without_bodies(model: bytes, domain: str, has_kernel: Callable[[str], bool]) -> bytes:
    """Leave out the bodies of a domain that kernels replace, and those that nothing else calls.

    Args:
        model: a serialized ModelProto.
        domain: such as "mulshift".
        has_kernel: whether nodes of that type need no body.

    Raises:
        ValueError: these are no protobuf messages.
    """
    functions = list(_functions(model, domain))
    needed: set[str] = set()
    found = {
        name
        for number, first, last in fields(model, 0, len(model))
        if number == GRAPH
        for name in types_in(model, "graph", first, last, domain)
    }
    found |= {call for name, calls, _, _ in functions if name is None for call in calls}
    while found - needed:
        new = {name for name in found - needed if not has_kernel(name)}
        needed |= found
        found |= {call for name, calls, _, _ in functions if name in new for call in calls}
    kept, at = [], 0
    for name, _, start, end in functions:
        if name is not None and (name not in found or has_kernel(name)):
            kept.append(memoryview(model)[at:start])
            at = end
    return b"".join([*kept, memoryview(model)[at:]])


def _functions(model: bytes, domain: str) -> Iterator[_Function]:
    for number, first, last in fields(model, 0, len(model)):
        if number != FUNCTION:
            continue
        text = {n: model[a:b] for n, a, b in fields(model, first, last) if n in (NAME, DOMAIN)}
        is_ours = text.get(DOMAIN, b"").decode() == domain
        name = text.get(NAME, b"").decode() if is_ours else None
        calls = frozenset(types_in(model, "function", first, last, domain))
        start = first - 2 - max(1, ((last - first).bit_length() + 6) // 7)  # its tag, of two bytes, and its length
        if next(fields(model, start, last), None) != (FUNCTION, first, last):
            raise ValueError("a field has an odd head")
        yield name, calls, start, last
