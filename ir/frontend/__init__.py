"""Read a model of any source into one graph, ready for passes: one file a source, and `load` that picks it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from onnx import ModelProto

from mulshift.ir.errors import UsageError
from mulshift.ir.frontend.files import FileKind, sniff
from mulshift.ir.frontend.normalize import normalize
from mulshift.ir.frontend.onnx import read_onnx, read_proto
from mulshift.ir.frontend.quantized import read_quantized


def load(
    source: Any,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> ir.Model:
    """A model at FLOAT level, or at QDQ level if it is already quantized.

    Args:
        source: path of an .onnx or .pt2 file, `onnx_ir.Model`, `onnx.ModelProto`, `torch.nn.Module` (a `GraphModule`
            too) or `torch.export.ExportedProgram`. None of them is changed.
        example_inputs: for a module: a tuple of positional or a dict of named inputs (tensors or arrays).
        dynamic_shapes: for a module: as `torch.export.export` takes it; the names of the dimensions are kept. For an
            ExportedProgram or .pt2, which have forgotten them: the same, to name them again.

    Returns:
        Opset 21 or newer, float32 throughout (half and double become it, inputs too), weights as initializers, every
        node named and with its origin, shapes inferred. An artifact of ours (level INTEGER) comes back as it was
        written.

    Raises:
        ModelError: the source cannot be read or is not valid.
        UnsupportedError: an operator that no reader of ours knows.
        UsageError: `source` is of another type, or inputs are missing.
    """
    return read_quantized(normalize(_read(source, example_inputs, dynamic_shapes)))


def _read(source: Any, example_inputs: Any, dynamic_shapes: Any) -> ir.Model:
    if isinstance(source, ir.Model):
        return source.clone()
    if isinstance(source, ModelProto):
        return read_proto(source, "model")
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if sniff(path) is FileKind.ONNX:
            return read_onnx(path)
        from mulshift.ir.frontend.pt2 import read_program
        from mulshift.ir.frontend.torch import read_torch

        return read_torch(read_program(path), None, dynamic_shapes)
    if "torch" in sys.modules:
        from mulshift.ir.frontend.torch import is_torch, read_torch

        if is_torch(source):
            return read_torch(source, example_inputs, dynamic_shapes)
    raise UsageError(
        f"source of type {type(source).__name__}",
        "is not a model",
        "give a path (.onnx, .pt2), an onnx model, a torch module or an ExportedProgram",
    )


__all__ = ["load"]
