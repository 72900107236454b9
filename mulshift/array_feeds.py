"""Arrays as feeds. How an array of rank `n` serves an input of rank `r`, by one rule for every source:

n == r      axis 0 holds samples; a feed takes the model's batch of them (1 where the batch is dynamic)
n == r + 1  axis 0 stacks whole feeds
n == r - 1  the array is one sample without its batch axis
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mulshift.array_files import Column
from mulshift.fitting import InputSpec, check_dims, check_dtype, check_names, fit_values, shape_error
from mulshift.ir import Array, DataError, Feeds


@dataclass(frozen=True)
class Plan:
    """How a column becomes the arrays of one input.

    Attributes:
        rows: steps of axis 0 that a feed takes.
        count: number of feeds.
        reshape: a block of the column -> the array fed.
    """

    column: Column
    spec: InputSpec
    rows: int
    count: int
    reshape: Callable[[Array], Array]


def plan_part(
    part: Mapping[str, Column], inputs: Sequence[InputSpec], where: str, batch: int
) -> tuple[int, Mapping[str, Plan]]:
    """The number of feeds in one file (or group of arrays), and a plan for each input.

    A lone array serves a lone input whatever its name is.

    Raises:
        DataError: names, shapes, types or lengths do not fit; nothing but headers was read.
    """
    alone = len(part) == len(inputs) == 1
    if not alone:
        check_names(list(part), inputs, where)
    columns = {i.name: next(iter(part.values())) if alone else part[i.name] for i in inputs}
    plans = {i.name: _plan(columns[i.name], i, batch) for i in inputs}
    counts = {plan.count for plan in plans.values()}
    if len(counts) > 1:
        told = ", ".join(f"'{n}' {plan.count}" for n, plan in plans.items())
        raise DataError(where, f"inputs differ in number of samples ({told})", "give each the same number")
    return counts.pop(), plans


def array_feeds(parts: Sequence[Mapping[str, Plan]]) -> Iterator[Feeds]:
    """The feeds of all parts, one after the other; a block of each column is in memory at a time."""
    for part in parts:
        streams = [plan.column.blocks(plan.rows) for plan in part.values()]
        for index, blocks in enumerate(zip(*streams, strict=True)):
            yield {
                name: fit_values(plan.reshape(block), plan.spec, f"{_where(plan)}, sample {index * plan.rows}")
                for (name, plan), block in zip(part.items(), blocks, strict=True)
            }


def _where(plan: Plan) -> str:
    return f"{plan.column.where}, input '{plan.spec.name}'"


def _plan(column: Column, spec: InputSpec, batch: int) -> Plan:
    where = f"{column.where}, input '{spec.name}'"
    shape, n = column.shape, len(column.shape)
    r = n if spec.shape is None else len(spec.shape)
    check_dtype(column.dtype, spec, where)
    if n and not shape[0]:
        raise DataError(where, "holds no samples", "give at least one")
    if n == r + 1:
        check_dims(where, shape, spec, shape[1:], 0)
        return Plan(column, spec, 1, shape[0], lambda block: block[0])
    if n == r - 1:
        check_dims(where, shape, spec, (1, *shape), 0)
        return Plan(column, spec, shape[0] if n else 1, 1, lambda block: block[None])
    if n != r:
        raise shape_error(where, shape, spec, f"has rank {n} where the model has {r}")
    if n == 0:
        return Plan(column, spec, 1, 1, lambda block: block)
    check_dims(where, shape, spec, shape[1:], 1)
    rows = spec.rows(batch)
    check_batches(where, shape[0], spec, "samples")
    return Plan(column, spec, rows, -(-shape[0] // rows), lambda block: block)


def check_batches(where: str, count: int, spec: InputSpec, what: str) -> None:
    """A fixed batch must divide the number of samples."""
    fixed = spec.shape[0] if spec.shape else "?"
    if isinstance(fixed, int) and count % max(1, fixed):
        raise DataError(where, f"holds {count} {what}, no multiple of the model's batch {fixed}", "add or drop some")
