"""Calibration, test and run data for a model: any source becomes feeds that fit the model's inputs, one at a time.

A feed is one call of the model: input name -> array with its batch axis. `mulshift.array_feeds` has the rule of shapes,
`mulshift.fitting` the rule of types.
"""

from __future__ import annotations

import hashlib
import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mulshift.array_feeds import array_feeds, check_batches, plan_part
from mulshift.data_sources import Images, Items, Parts, resolve
from mulshift.fitting import InputSpec, check_names, fit, input_specs, quoted, to_numpy
from mulshift.images import Preprocessing, image_feeds
from mulshift.ir import DataError, Feeds, Samples


@dataclass(frozen=True)
class Dataset:
    """Feeds that are read anew at each iteration, one in memory at a time (it is a `mulshift.ir.Samples`).

    Attributes:
        where: the source, for messages.
        count: number of feeds, None if it shows only at the end; `operator.length_hint` gives it too.
        start: starts one pass over the source.
        limit: most feeds that a pass gives.
        inputs: what the feeds were fitted to.
    """

    where: str
    count: int | None
    start: Callable[[], Iterator[Feeds]]
    limit: int | None = None
    inputs: tuple[InputSpec, ...] = ()

    def __iter__(self) -> Iterator[Feeds]:
        found = 0
        for found, feeds in enumerate(self.start(), 1):
            yield feeds
            if found == self.limit:
                return
        if not found:
            raise DataError(self.where, "holds no samples", "give at least one")

    def __length_hint__(self) -> int:
        return NotImplemented if self.count is None else self.count


@dataclass(frozen=True)
class DataRequest:
    """Data that is opened once the model's inputs are known; `open_samples` takes it in place of the data itself.

    Attributes:
        data, limit, batch, images: as `open_samples` takes them.
    """

    data: Any
    limit: int | None = None
    batch: int = 1
    images: Preprocessing | None = None


def open_samples(
    data: Any,
    inputs: Sequence[InputSpec],
    *,
    limit: int | None = None,
    batch: int = 1,
    images: Preprocessing | None = None,
) -> Dataset:
    """Any source of data as feeds for a model; names, shapes and types are checked before the first is read.

    Args:
        data: path of an .npz, .npy or image file or of a folder of one kind of them; `module:function`; or in Python
            an array, a mapping of arrays, a function, or an iterable of feeds (mapping, array, or tuple in input
            order; torch tensors too); a `DataRequest`; or a `Dataset` opened for the same inputs.
        inputs: what the model takes, see `input_specs`.
        limit: at most so many samples, rounded up to the model's batch; each feed of a function counts as one.
        batch: samples a feed where the model's batch is dynamic.
        images: how pixels become numbers; needed for images only.

    Raises:
        DataError: the source is missing, empty, damaged or does not fit.
    """
    if limit is not None and limit < 1:
        raise DataError("the limit", f"is {limit} samples", "give at least 1")
    specs = tuple(inputs)
    if isinstance(data, DataRequest):
        return open_samples(data.data, specs, limit=limit or data.limit, batch=data.batch, images=data.images)
    if isinstance(data, Dataset) and data.inputs == specs:
        return data if limit is None else _limited(data, limit, specs)
    source = resolve(data)
    if isinstance(source, Items):
        return _limited(Dataset(source.where, source.count, lambda: _item_feeds(source, specs)), limit, specs)
    found = _open_images(source, specs, batch, images) if isinstance(source, Images) else _arrays(source, specs, batch)
    rows = specs[0].rows(batch) if specs else 1
    return _limited(found, None if limit is None else -(-limit // rows), specs)


def _limited(data: Dataset, limit: int | None, inputs: tuple[InputSpec, ...]) -> Dataset:
    if data.count == 0:
        raise DataError(data.where, "holds no samples", "give at least one")
    count = data.count if limit is None or data.count is None else min(data.count, limit)
    return Dataset(data.where, count, data.start, limit, inputs)


def _arrays(source: Parts, inputs: tuple[InputSpec, ...], batch: int) -> Dataset:
    planned = [plan_part(part, inputs, _part_name(source, part), batch) for part in source.parts]
    plans = [plan for _, plan in planned]
    return Dataset(source.where, sum(count for count, _ in planned), lambda: array_feeds(plans))


def _part_name(source: Parts, part: Mapping[str, Any]) -> str:
    first = next(iter(part.values()), None)
    return str(getattr(first, "path", source.where))


def _item_feeds(source: Items, inputs: tuple[InputSpec, ...]) -> Iterator[Feeds]:
    for index, item in enumerate(source):
        where = f"{source.where}, sample {index}"
        arrays = _by_name(item, inputs, where)
        yield {i.name: fit(to_numpy(arrays[i.name], where), i, f"{where}, input '{i.name}'") for i in inputs}


def _by_name(item: Any, inputs: Sequence[InputSpec], where: str) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        check_names([str(n) for n in item], inputs, where)
        return item
    values = list(item) if isinstance(item, (tuple, list)) else [item]
    names = [i.name for i in inputs]
    if len(values) != len(names):
        cause = f"has {len(values)} arrays where the model has inputs {quoted(names)}"
        raise DataError(where, cause, "yield one array an input, without labels")
    return dict(zip(names, values, strict=True))


def _open_images(source: Images, inputs: tuple[InputSpec, ...], batch: int, images: Preprocessing | None) -> Dataset:
    if len(inputs) != 1:
        names = quoted([i.name for i in inputs])
        raise DataError(source.where, f"images cannot feed the inputs {names}", "give an .npz with one array an input")
    spec = inputs[0]
    rows = spec.rows(batch)
    check_batches(source.where, len(source.files), spec, "images")
    make = image_feeds(source.where, source.files, spec.shape, spec.dtype, images)
    count = -(-len(source.files) // rows)
    return Dataset(source.where, count, lambda: ({spec.name: fit(a, spec, w)} for a, w in make(rows)))


def guess_inputs(data: Any, images: Preprocessing | None = None) -> tuple[InputSpec, ...]:
    """Input specs read off the data, for a model that does not tell its own (a bare nn.Module).

    Axis 0 of every array is taken for samples. Images give float32 [N, 3, height, width] of `images.size`. Arrays
    without a name get the names `input_0`, `input_1`, ...

    Raises:
        DataError: as `open_samples`; also images without a size.
    """
    if isinstance(data, DataRequest):
        return guess_inputs(data.data, data.images)
    source = resolve(data)
    if isinstance(source, Images):
        return (_image_spec(source.where, images),)
    if isinstance(source, Parts):
        columns = enumerate(source.parts[0].items())
        return tuple(_guess(name or f"input_{k}", c.dtype, c.shape) for k, (name, c) in columns)
    item = next(iter(source), None)
    if item is None:
        raise DataError(source.where, "holds no samples", "give at least one")
    where = f"{source.where}, sample 0"
    values = item if isinstance(item, (tuple, list)) else [item]
    named = item if isinstance(item, Mapping) else {f"input_{k}": v for k, v in enumerate(values)}
    arrays = {str(n): to_numpy(a, where) for n, a in named.items()}
    return tuple(_guess(name, a.dtype, a.shape) for name, a in arrays.items())


def _image_spec(where: str, images: Preprocessing | None) -> InputSpec:
    if images is None or images.size is None:
        raise DataError(where, "the model does not tell the size of its images", "give --image-size")
    height, width = images.size
    shape: tuple[int | str, ...] = ("N", height, width, 3) if images.layout == "nhwc" else ("N", 3, height, width)
    return InputSpec("input_0", np.dtype(np.float32), shape)


def _guess(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> InputSpec:
    known = np.dtype(np.float32) if dtype.kind == "f" else dtype
    return InputSpec(name, known, ("N", *shape[1:]) if shape else ())


def example_inputs(module: Any, data: Any) -> tuple[Any, ...] | dict[str, Any]:
    """The first sample of the data as a torch module takes it: by name where `forward` has the names, else in order.

    Args:
        module: an nn.Module.
        data: as `open_samples` takes it.

    Returns:
        numpy arrays, for `mulshift.ir.load(module, example_inputs)`.

    Raises:
        DataError: as `open_samples`.
    """
    feeds = next(iter(open_samples(data, guess_inputs(data))))
    parameters = inspect.signature(module.forward).parameters
    if all(name in parameters for name in feeds):
        return dict(feeds)
    return tuple(feeds.values())


def digest(samples: Samples) -> str:
    """SHA-256 (hex) over the names, types, shapes and bytes of all feeds, in order; reads them once."""
    total = hashlib.sha256()
    for feeds in samples:
        for name in sorted(feeds):
            array = np.ascontiguousarray(feeds[name])
            total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            total.update(array.tobytes())
    return total.hexdigest()


def count_of(samples: Samples) -> int | None:
    """Number of feeds if it is known without reading them."""
    found = operator.length_hint(samples, -1)
    return None if found < 0 else found


__all__ = [
    "DataRequest",
    "Dataset",
    "InputSpec",
    "count_of",
    "digest",
    "example_inputs",
    "guess_inputs",
    "input_specs",
    "open_samples",
]
