"""What is in a model or an artifact, and what differs between two."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pydantic

from mulshift.checking import open_artifact
from mulshift.data import input_specs, open_samples
from mulshift.ir import DOMAIN, Feeds, Interpreter, ModelError, describe, get_level, get_qparams, load
from mulshift.ir.layout import plain_array, stands_for
from mulshift.measure import thinned
from mulshift.output_folder import LOCK_FILE, REPORT_FILE
from mulshift.passes.compare import Sqnr
from mulshift.passes.outliers import OutlierRatios, worst_outliers
from mulshift.passes.pipeline import to_numpy
from mulshift.passes.sparsity.found import Zeros, zeros_in
from mulshift.report import OutlierRow, Report, weight_bytes


@dataclass(frozen=True)
class Inspected:
    """Attributes:
    name: file or folder.
    level: FLOAT, QDQ or INTEGER.
    opset: of the standard domain.
    inputs, outputs: as `name: type [shape]`.
    operators: `domain::type` -> count, the most frequent first.
    weights: bytes of all initializers.
    report: of an artifact, else None.
    outliers: values whose extremes lie at the first position or in few channels, as calibrate saw them.
    zeros: of the products by constant weights; of an artifact, as it was before kernels were chosen.
    """

    name: str
    level: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]
    weights: int
    report: Report | None = None
    outliers: tuple[OutlierRatios, ...] = ()
    zeros: tuple[Zeros, ...] = ()


def inspect(source: Any) -> Inspected:
    """Describe a model (as `mulshift.ir.load` takes it) or an artifact's folder.

    Raises:
        ModelError: it cannot be read.
    """
    folder = _folder(source)
    model = open_artifact(folder).model if folder is not None else load(source)
    kinds = Counter(_kind(node) for node in model.graph)
    report = None if folder is None else read_report(folder)
    return Inspected(
        name=str(source) if isinstance(source, (str, Path)) else type(source).__name__,
        level=str(get_level(model)),
        opset=int(model.opset_imports.get("", 0)),
        inputs=tuple(_signature(v) for v in model.graph.inputs),
        outputs=tuple(_signature(v) for v in model.graph.outputs),
        operators=dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
        weights=weight_bytes(model),
        report=report,
        outliers=worst_outliers(model) if report is None else tuple(_ratios(row) for row in report.outliers),
        zeros=zeros_in(model.graph) if report is None else zeros_of_layers(report),
    )


def zeros_of_layers(report: Report) -> tuple[Zeros, ...]:
    """What a report says of the products by constant weights."""
    return tuple(
        Zeros(row.node, row.op.removeprefix("mulshift::"), row.density, row.sparsity, row.dense_reason)
        for row in report.layers
        if row.density is not None
    )


def _ratios(row: OutlierRow) -> OutlierRatios:
    return OutlierRatios(row.name, row.position, row.channel)


def read_report(folder: str | Path) -> Report:
    """report.json of an artifact.

    Raises:
        ModelError: it is missing or damaged.
    """
    file = Path(folder) / REPORT_FILE
    try:
        return Report.model_validate(json.loads(file.read_bytes()))
    except OSError as e:
        raise ModelError(f"'{file}'", f"cannot be read ({e.strerror or e})") from e
    except (ValueError, pydantic.ValidationError) as e:
        raise ModelError(f"'{file}'", "is not a report of mulshift", "compile again") from e


def _folder(source: Any) -> Path | None:
    if not isinstance(source, (str, Path)):
        return None
    path = Path(source)
    return path if path.is_dir() and (path / LOCK_FILE).exists() else None


def _kind(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _signature(value: ir.Value) -> str:
    dims = "?" if value.shape is None else ", ".join(str(getattr(d, "value", d) or "?") for d in value.shape)
    return f"{value.name}: {str(value.dtype).lower()} [{dims}]"


@dataclass(frozen=True)
class ValueDifference:
    """Attributes:
    name: of a value that both models have.
    sqnr_db: of the second against the first; None if all numbers are equal.
    largest: greatest absolute difference, in real numbers.
    """

    name: str
    sqnr_db: float | None
    largest: float


@dataclass(frozen=True)
class Diff:
    """Attributes:
    nodes: lines of a structural difference, `- ` only in the first, `+ ` only in the second.
    values: numeric differences in graph order, of values that differ; empty without samples.
    compared: values compared.
    """

    nodes: tuple[str, ...]
    values: tuple[ValueDifference, ...]
    compared: int

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.nodes and not self.values


def diff(a: Any, b: Any, samples: Any = None, limit: int | None = 2) -> Diff:
    """What differs between two models or artifacts: nodes, and on samples the values of one name.

    Integer tensors are compared as the reals that they stand for, whatever their layout, thinned to
    `mulshift.measure.SAMPLED` elements.

    Args:
        a, b: models or artifacts' folders, as for `inspect`.
        samples: as `mulshift.data.open_samples` takes them; None compares structure only.
        limit: most samples to run.
    """
    first, second = (_open(source) for source in (a, b))
    nodes = _node_lines(first, second)
    if samples is None:
        return Diff(nodes, (), 0)
    feeds = open_samples(samples, input_specs(first), limit=limit)
    return _numeric(first, second, list(feeds), nodes)


def _open(source: Any) -> ir.Model:
    folder = _folder(source)
    return open_artifact(folder).model if folder is not None else load(source)


def _node_lines(a: ir.Model, b: ir.Model) -> tuple[str, ...]:
    left, right = ([_line(n) for n in m.graph] for m in (a, b))
    lines: list[str] = []
    for tag, i0, i1, j0, j1 in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag != "equal":
            lines += [f"- {line}" for line in left[i0:i1]] + [f"+ {line}" for line in right[j0:j1]]
    return tuple(lines)


def _line(node: ir.Node) -> str:
    attributes = ", ".join(f"{k}={a.value}" for k, a in sorted(node.attributes.items()) if not a.is_ref())
    quantization = [get_qparams(v) for v in node.outputs]
    scale = "".join(f" at scale {float(q.scale.max()):.6g}" for q in quantization if q is not None)
    kind = _kind(node) if node.domain != DOMAIN else node.op_type
    return f"{describe(node)}: {kind}({attributes}){scale}"


def _numeric(a: ir.Model, b: ir.Model, feeds: list[Feeds], nodes: tuple[str, ...]) -> Diff:
    import torch

    runs = Interpreter(a), Interpreter(b)
    meters: dict[str, Sqnr] = {}
    largest: dict[str, float] = {}
    with torch.no_grad():
        for sample in feeds:
            kept: dict[str, Any] = {}

            def keep(value: ir.Value, tensor: torch.Tensor, kept: dict[str, Any] = kept) -> None:
                kept[stands_for(value)] = _real(value, tensor)

            def compare(value: ir.Value, tensor: torch.Tensor, kept: dict[str, Any] = kept) -> None:
                name, mine = stands_for(value), _real(value, tensor)
                other = kept.pop(name, None)
                if other is None or other.shape != mine.shape or value.producer() is None:
                    return
                meters.setdefault(name, Sqnr()).add(other, mine)
                largest[name] = max(largest.get(name, 0.0), float(abs(other - mine).max(initial=0.0)))

            runs[0].run(sample, keep)
            runs[1].run(sample, compare)
    values = [ValueDifference(n, meters[n].db, largest[n]) for n in meters if largest[n] > 0]
    return Diff(nodes, tuple(values), len(meters))


def _real(value: ir.Value, tensor: Any) -> Any:
    q = get_qparams(value)
    array = to_numpy(tensor)
    if q is None:
        return thinned(plain_array(value, array)).astype("float64")
    if q.per_tensor:
        return q.dequantize(thinned(plain_array(value, array))).astype("float64")
    return thinned(plain_array(value, q.dequantize(array))).astype("float64")
