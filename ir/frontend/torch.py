"""PyTorch into the graph, through torch.export and torch.onnx's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import ModelError, UsageError
from mulshift.ir.metadata import set_origin

_SCOPES = "pkg.torch.onnx.name_scopes"


def is_torch(source: Any) -> bool:
    """Whether `read_torch` takes it."""
    import torch

    return isinstance(source, (torch.nn.Module, torch.export.ExportedProgram))


def read_torch(source: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> ir.Model:
    """The graph of a module or an exported program.

    A module is exported in eval mode and gets its modes back. Nothing is fused on the way, so that every node keeps
    the module it came from; constants are folded.

    Raises:
        ModelError: the exporter gave up; its first line is told.
        UsageError: a module without example inputs.
    """
    import torch

    if isinstance(source, torch.jit.ScriptModule):
        raise ModelError("TorchScript module", "cannot be read", "give the nn.Module that it was made from")
    where = type(source).__name__
    if isinstance(source, torch.export.ExportedProgram):
        return _export(source, (), {}, None, where)
    if example_inputs is None:
        raise UsageError(f"module {where}", "needs example inputs", "give example_inputs, a tuple of tensors")
    args, kwargs = _arguments(example_inputs)
    with _eval_mode(source):
        return _export(source, args, kwargs, dynamic_shapes, where)


def read_pt2(path: str) -> ir.Model:
    """The graph of a .pt2 file written by torch.export.save."""
    import torch

    return read_torch(torch.export.load(path))


def _arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, Mapping):
        return (), {str(k): _tensor(v) for k, v in example_inputs.items()}
    if isinstance(example_inputs, Sequence):
        return tuple(_tensor(v) for v in example_inputs), {}
    return (_tensor(example_inputs),), {}


def _tensor(value: Any) -> Any:
    import torch

    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@contextlib.contextmanager
def _eval_mode(module: Any) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def _export(source: Any, args: Any, kwargs: Any, dynamic_shapes: Any, where: str) -> ir.Model:
    import torch

    try:
        with _quiet():
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
        raise ModelError(f"module {where}", f"torch cannot export it ({e})") from e
    assert program is not None
    model = program.model
    record_modules(model)
    _fold(model)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither warnings nor log lines nor prints from the exporter."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def record_modules(model: ir.Model) -> None:
    """Set each node's origin to its torch module path; `path.op` where one module made several operators."""
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
    return [] if text is None else [str(part) for part in json.loads(text.replace("'", '"'))]


def _fold(model: ir.Model) -> None:
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
