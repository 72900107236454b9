"""PyTorch into the graph, through torch.export and torch.onnx's dynamo exporter."""

from __future__ import annotations

import ast
import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import ModelError, UsageError
from mulshift.ir.frontend.quiet import quiet
from mulshift.ir.frontend.torch_fixes import mend
from mulshift.ir.metadata import set_origin

_SCOPES = "pkg.torch.onnx.name_scopes"


def is_torch(source: Any) -> bool:
    """Whether `read_torch` takes it."""
    import torch

    return isinstance(source, (torch.nn.Module, torch.export.ExportedProgram))


def read_torch(source: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> ir.Model:
    """The graph of a module or an exported program.

    A module is exported in eval mode and gets its modes back. Nothing is fused on the way, so that every node keeps
    the module it came from; constants are folded. An exported program has forgotten the names of its dynamic
    dimensions (they read `s77`): `dynamic_shapes` gives them back.

    Raises:
        ModelError: the exporter gave up; the reason's first line is told.
        UsageError: a module without example inputs.
    """
    import torch

    where = type(source).__name__
    if isinstance(source, torch.jit.ScriptModule):
        raise ModelError(f"TorchScript module {where}", "cannot be read", "give the nn.Module that it was made from")
    if isinstance(source, torch.export.ExportedProgram):
        return _export(source, (), {}, _dimension_names(dynamic_shapes), "exported program")
    if example_inputs is None:
        raise UsageError(f"module {where}", "needs example inputs", "give example_inputs, a tuple of tensors")
    args, kwargs = _arguments(example_inputs)
    with _eval_mode(source):
        return _export(source, args, kwargs, dynamic_shapes, f"module {where}")


def _arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, Mapping):
        return (), {str(k): _tensor(v) for k, v in example_inputs.items()}
    if isinstance(example_inputs, Sequence):
        return tuple(_tensor(v) for v in example_inputs), {}
    return (_tensor(example_inputs),), {}


def _tensor(value: Any) -> Any:
    import torch

    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _dimension_names(shapes: Any) -> Any:
    """The same nest of dicts and tuples with `torch.export.Dim` replaced by its name, a hint or a number by None."""
    if isinstance(shapes, Mapping):
        return {key: _dimension_names(value) for key, value in shapes.items()}
    if isinstance(shapes, (tuple, list)):
        return type(shapes)(_dimension_names(value) for value in shapes)
    return shapes if isinstance(shapes, str) else getattr(shapes, "__name__", None)


@contextlib.contextmanager
def _eval_mode(module: Any) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    try:
        try:
            module.eval()
        except NotImplementedError:  # the module of an exported program: its graph has no modes left
            for m, _ in modes:
                m.training = False
        yield
    finally:
        for m, training in modes:
            m.training = training


def _export(source: Any, args: Any, kwargs: Any, dynamic_shapes: Any, where: str) -> ir.Model:
    import torch

    try:
        with quiet():
            program = torch.onnx.export(
                source,
                args,
                kwargs=kwargs,
                dynamic_shapes=dynamic_shapes,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as e:
        remedy = "see that torch.export.export(module, args) works, or export it to ONNX by other means"
        raise ModelError(where, f"torch cannot export it ({_reason(e)})", remedy) from e
    if program is None:
        raise ModelError(where, "torch exported nothing")
    model: ir.Model = program.model
    record_modules(model)
    _fold(model)
    mend(model)
    _forget_exporter(model)
    return model


def _forget_exporter(model: ir.Model) -> None:
    """Drop the fx nodes that the exporter hangs on values and nodes: their fake tensors cannot be copied."""
    for node in model.graph.all_nodes():
        node.meta.clear()
        for value in node.outputs:
            value.meta.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.meta.clear()


def _reason(error: BaseException) -> str:
    """The first line of the error at the bottom: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"


def record_modules(model: ir.Model) -> None:
    """Set each node's origin to its torch module path, or to `path.op` where one module made several operators."""
    scopes = {node: _scopes(node) for node in model.graph.all_nodes()}
    made: dict[str, set[str]] = defaultdict(set)
    for scope in scopes.values():
        if len(scope) >= 2:
            made[scope[-2]].add(scope[-1])
    for node, scope in scopes.items():
        if not scope:
            continue
        module, operator = (scope[-2] if len(scope) >= 2 else ""), scope[-1]
        alone = module and len(made[module]) == 1
        set_origin(node, [module if alone else ".".join(part for part in (module, operator) if part)])


def _scopes(node: ir.Node) -> list[str]:
    """`['', 'layer1', 'layer1.0', 'relu_3']`: the modules from the root inwards, then the fx node."""
    text = node.metadata_props.get(_SCOPES)
    return [] if text is None else [str(part) for part in ast.literal_eval(text)]


def _fold(model: ir.Model) -> None:
    """Compute what depends on constants only: the exporter leaves casts and shapes of them behind."""
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
