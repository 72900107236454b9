"""The operators of a serialized model, read field by field: a session imports neither `onnx` nor the weights for it.

Field numbers are those of onnx.proto; weights are skipped by their length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

    Data: TypeAlias = bytes | mmap.mmap

Field: TypeAlias = tuple[int, int, int]
"""Number, first byte, end."""

GRAPHS = {"model": {7: "graph", 25: "function"}, "attribute": {6: "graph", 11: "graph"}}
NODES = {"graph": {1: "node"}, "function": {7: "node"}, "node": {5: "attribute"}}
WITHIN = GRAPHS | NODES
"""Message -> its fields that hold messages with nodes, and what these are."""
OP_TYPE, DOMAIN = 4, 7
VARINT, LENGTH = 0, 2
SIZES = {1: 8, 5: 4}
"""Wire type -> bytes of a value."""
BITS = 64
"""Of the longest varint."""
DEPTH = 100
"""Messages within messages: protobuf's own limit."""


def operators_of(model: str | Path | bytes, domain: str) -> frozenset[str]:
    """The types of all nodes of a domain, in functions and subgraphs too.

    Args:
        model: path of an ONNX file, or its bytes.
        domain: such as "mulshift".

    Raises:
        ValueError: these are no protobuf messages.
        OSError: the file cannot be read.
    """
    return frozenset(name for where, name in nodes_of(model) if where == domain)


def nodes_of(model: str | Path | bytes) -> frozenset[tuple[str, str]]:
    """Domains and types of all nodes, as `operators_of`."""
    if isinstance(model, bytes):
        return frozenset(nodes_in(model, "model", 0, len(model)))
    import mmap

    with open(model, "rb") as file:
        if not file.seek(0, 2):
            return frozenset()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return frozenset(nodes_in(data, "model", 0, len(data)))


def types_in(data: Data, message: str, start: int, end: int, domain: str) -> Iterator[str]:
    """The types of the nodes of a domain in one message, a row of WITHIN; some more than once."""
    return (name for where, name in nodes_in(data, message, start, end) if where == domain)


def nodes_in(data: Data, message: str, start: int, end: int, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Domain and type of each node."""
    if depth > DEPTH:
        raise ValueError(f"more than {DEPTH} messages within each other")
    here: dict[int, bytes] = {}
    for number, first, last in fields(data, start, end):
        within = WITHIN[message].get(number)
        if within:
            yield from nodes_in(data, within, first, last, depth + 1)
        elif message == "node" and number in (OP_TYPE, DOMAIN):
            here[number] = data[first:last]
    if message == "node":
        yield here.get(DOMAIN, b"").decode(), here.get(OP_TYPE, b"").decode()


def fields(data: Data, start: int, end: int) -> Iterator[Field]:
    """Those with a length; the others are skipped."""
    while start < end:
        tag, start = _varint(data, start, end)
        wire, first = tag & 7, start
        if wire == VARINT:
            _, start = _varint(data, start, end)
        elif wire == LENGTH:
            size, first = _varint(data, start, end)
            start = first + size
        elif wire in SIZES:
            start += SIZES[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if start > end:
            raise ValueError("a field is longer than its message")
        if wire == LENGTH:
            yield tag >> 3, first, start


def _varint(data: Data, at: int, end: int) -> tuple[int, int]:
    """Its value, and where it ends."""
    value = 0
    for shift in range(0, BITS + 6, 7):
        if at >= end:
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number has no end")
