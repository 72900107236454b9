"""Proof of an artifact before it is written: its integers, with and without our kernels, are the specification's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir

from mulshift.backends import kernel_session
from mulshift.backends.artifact import Artifact, has_kernels
from mulshift.backends.onnxruntime import session, with_outputs
from mulshift.ir import DOMAIN, Array, Feeds, Interpreter, VerificationError, describe, is_float
from mulshift.ir.layout import plain_array, stands_for
from mulshift.passes.compare import first_difference
from mulshift.passes.pipeline import to_numpy

GROUP_BYTES = 256 * 2**20
"""Tensors that are held at a time for comparison."""


@dataclass(frozen=True)
class Verified:
    """What was compared.

    Attributes:
        samples: feeds that were run.
        tensors: values of the artifact compared, for each sample.
        elements: their numbers, in all samples, made by stock ONNX Runtime.
        differences: of them that differ (0, or in the qdq form at most 1 in 10,000, each by one step).
        kernel_elements: numbers compared that the kernel library made; none of them differ. 0 where it is not built
            or the artifact has no nodes for it.
    """

    samples: int
    tensors: int
    elements: int
    differences: int = 0
    kernel_elements: int = 0


@dataclass(frozen=True)
class _Runtime:
    """What runs an artifact. Attributes: name, as an error says it; open, which makes a session of serialized bytes."""

    name: str
    open: Callable[[bytes], Any]


_STOCK = _Runtime("on ONNX Runtime", partial(session, precise=False))
_KERNELS = _Runtime("with the kernel library", kernel_session.session)


def verify_integer(artifact: Artifact, specification: ir.Model, samples: Iterable[Feeds]) -> Verified:
    """Compare the integer or portable form with the specification in Python arithmetic.

    All integer tensors that the artifact has are exposed as outputs, in groups of at most GROUP_BYTES; one that is laid
    out in another way is compared with the tensor that it stands for. Then the plain model's outputs are compared.
    Both are done on stock ONNX Runtime, which runs the bodies, and with the kernel library where it is built.
    Float operators (islands) may differ in the last bit between runtimes, so where a float result becomes
    an integer the specification's integers are fed to both sides.

    Args:
        artifact: what will be written.
        specification: the INTEGER-level graph that it was lowered from.
        samples: feeds; each is run once a group.

    Raises:
        VerificationError: with the first node, count and numbers that differ; or an integer operator of the artifact
            makes what the specification has not.
    """
    views = _views(artifact.model, specification)
    cut = _cut(specification)
    proto = ir.serde.serialize_model(_without_islands(artifact.model, {str(v.name) for v in cut}))
    interpreter = Interpreter(specification)
    runtimes = [_STOCK, _KERNELS] if has_kernels(artifact.model) else [_STOCK]
    plain = [(runtime.name, runtime.open(artifact.proto.SerializeToString())) for runtime in runtimes]
    groups: list[_Group] = []
    elements: Counter[str] = Counter()
    tensors = count = 0
    for feeds in samples:
        fed: dict[str, Array] = {}
        if cut or not groups:
            sizes, fed = _survey(interpreter, feeds, cut)
            groups = groups or list(_groups(proto, views, sizes, runtimes))
            tensors = sum(len(g.views) for g in groups)
        outputs: dict[str, Array] = {}
        for group in groups:
            outputs = _compare(interpreter, feeds, group.run({**feeds, **fed}), elements)
        if not cut and groups:
            for where, runner in plain:
                _compare_outputs(specification, outputs, runner.run(None, dict(feeds)), where)
        count += 1
    if not count:
        raise VerificationError("verification", "there is no sample to run", "give at least one")
    return Verified(count, tensors, elements[_STOCK.name], kernel_elements=elements[_KERNELS.name])


def _cut(model: ir.Model) -> list[ir.Value]:
    """Integer values made from float values that are not graph inputs: where islands come back."""
    inputs = set(model.graph.inputs)
    return [
        value
        for node in model.graph
        if any(is_float(v) and v not in inputs and v.const_value is None for v in node.inputs if v is not None)
        for value in node.outputs
        if value.name and not is_float(value) and value.dtype is not None
    ]


def _without_islands(model: ir.Model, cut: set[str]) -> ir.Model:
    """A copy in which the cut values are graph inputs instead of being made."""
    if not cut:
        return model
    copy = model.clone()
    for node in list(copy.graph):
        for value in [v for v in node.outputs if v.name in cut]:
            fed = ir.Value(name=value.name, type=value.type, shape=value.shape)
            value.replace_all_uses_with(fed, replace_graph_outputs=True)
            value.name = f"{value.name}.island"
            copy.graph.inputs.append(fed)
    return copy


@dataclass(frozen=True)
class _View:
    """A tensor of the specification, by name, as a value of the artifact."""

    name: str
    value: ir.Value


def _views(artifact: ir.Model, specification: ir.Model) -> list[_View]:
    """What can be compared, in the artifact's order. Raises VerificationError."""
    known = {str(v.name) for node in specification.graph for v in node.outputs if v.name}
    views: list[_View] = []
    for node in artifact.graph:
        for value in node.outputs:
            name = next((name for name in (str(value.name), stands_for(value)) if name in known), None)
            if name is not None:
                views.append(_View(name, value))
            elif value.name and node.domain == DOMAIN:
                raise VerificationError(describe(node), f"'{value.name}' stands for no tensor of the specification")
    return views


_Got: TypeAlias = dict[str, list[tuple[str, Array]]]
"""Name of a tensor -> the artifact's numbers of it, one (runtime, array) a value that holds them and runtime."""


@dataclass
class _Group:
    """Some values of the artifact as the outputs of sessions of their own, by the runtime's name."""

    views: tuple[_View, ...]
    runners: dict[str, Any]

    def run(self, feeds: Mapping[str, Array]) -> _Got:
        """All values, by all runtimes."""
        names = [view.value.name for view in self.views]
        made: _Got = {}
        for where, runner in self.runners.items():
            wanted = {i.name for i in runner.get_inputs()}
            arrays = runner.run(names, {k: v for k, v in feeds.items() if k in wanted})
            for view, array in zip(self.views, arrays, strict=True):
                made.setdefault(view.name, []).append((where, plain_array(view.value, array)))
        return made


def _survey(
    interpreter: Interpreter, feeds: Feeds, cut: list[ir.Value]
) -> tuple[dict[str, tuple[int, int]], dict[str, Array]]:
    """One run of the specification: element type and bytes of each integer value, and the cut values."""
    import torch

    sizes: dict[str, tuple[int, int]] = {}
    fed: dict[str, Array] = {}

    def observe(value: ir.Value, tensor: torch.Tensor) -> None:
        if tensor.is_floating_point() or value.producer() is None:
            return
        array = tensor.numpy()
        sizes[str(value.name)] = (int(ir.DataType.from_numpy(array.dtype)), array.nbytes)
        if value in cut:
            fed[str(value.name)] = array

    with torch.no_grad():
        interpreter.run(feeds, observe)
    return sizes, fed


def _groups(
    proto: onnx.ModelProto, views: list[_View], sizes: Mapping[str, tuple[int, int]], runtimes: list[_Runtime]
) -> Iterator[_Group]:
    inputs = {i.name for i in proto.graph.input}
    some: list[_View] = []
    held = 0
    for view in views:
        if view.name in inputs or view.name not in sizes:
            continue
        size = sizes[view.name][1] * len(runtimes)
        if some and held + size > GROUP_BYTES:
            yield _group(proto, some, sizes, runtimes)
            some, held = [], 0
        some.append(view)
        held += size
    if some:
        yield _group(proto, some, sizes, runtimes)


def _group(
    proto: onnx.ModelProto, views: list[_View], sizes: Mapping[str, tuple[int, int]], runtimes: list[_Runtime]
) -> _Group:
    data = with_outputs(proto, [(str(view.value.name), sizes[view.name][0]) for view in views])
    return _Group(tuple(views), {runtime.name: runtime.open(data) for runtime in runtimes})


def _compare(interpreter: Interpreter, feeds: Feeds, got: _Got, elements: Counter[str]) -> dict[str, Array]:
    """Compare while the specification runs, dropping each array when it is done: the graph outputs.

    Args:
        elements: numbers compared, by runtime; added to.
    """
    import torch

    def observe(value: ir.Value, tensor: torch.Tensor) -> None:
        node = value.producer()
        if node is None:
            return
        for where, other in got.pop(str(value.name), []):
            difference = first_difference(plain_array(value, tensor.numpy()), other)
            if difference is not None:
                raise VerificationError(describe(node), f"in '{value.name}' {difference} {where}")
            elements[where] += other.size

    with torch.no_grad():
        outputs = interpreter.run(feeds, observe)
    if got:
        raise VerificationError(f"value '{next(iter(got))}'", "the specification never makes it")
    return {k: to_numpy(t) for k, t in outputs.items()}


def _compare_outputs(model: ir.Model, expected: Mapping[str, Array], got: list[Array], where: str) -> None:
    for value, other in zip(model.graph.outputs, got, strict=True):
        if is_float(value) and not _is_border(value):
            continue  # made by a float operator
        difference = first_difference(expected[str(value.name)], other)
        if difference is not None:
            raise VerificationError(f"output '{value.name}'", f"{difference} {where}")


def _is_border(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def verify_runtime(artifact: Artifact, samples: Iterable[Feeds]) -> Verified:
    """Compare the outputs of the optimized session with those of the graph run as it is written.

    With s8 activations both run as it is written (see `verify_qdq`): that tells that it runs, and always alike.

    Raises:
        VerificationError: an output differs.
    """
    data = artifact.serialize()
    plain, optimized = session(data, optimize=False), session(data, optimize=not artifact.target.signed_activations)
    count = elements = 0
    for feeds in samples:
        for value, expected, got in zip(
            artifact.model.graph.outputs, plain.run(None, dict(feeds)), optimized.run(None, dict(feeds)), strict=True
        ):
            difference = first_difference(expected, got)
            if difference is not None:
                raise VerificationError(f"output '{value.name}'", f"{difference} when ONNX Runtime optimizes")
            elements += got.size
        count += 1
    if not count:
        raise VerificationError("verification", "there is no sample to run", "give at least one")
    return Verified(count, len(artifact.model.graph.outputs), elements)
