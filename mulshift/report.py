"""What became of a model: per layer, per pass and in total. The same bytes for the same input: no times in here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir
import pydantic

from mulshift.backends import Artifact
from mulshift.backends.verify import Verified
from mulshift.ir import constant, describe, get_qparams, origin
from mulshift.ir.layout import stands_for
from mulshift.ir.levels import BOUND, FLOAT_REASON, WIDTH, float_nodes
from mulshift.measure import Measured
from mulshift.passes.kernels.products import DENSE, KERNEL
from mulshift.passes.outliers import OutlierRatios
from mulshift.passes.pipeline import PassRecord
from mulshift.passes.sparsity.found import zeros_of

_BORDER = ("QuantizeLinear", "DequantizeLinear")


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Quantization(_Model):
    """`real = scale * (q - zero_point)`; per channel: the smallest and the largest."""

    bits: int
    signed: bool
    scale: tuple[float, float]
    zero_point: tuple[int, int]


class DyadicSummary(_Model):
    """Over the channels of one requantization by b / 2^c: bits of the widest b, and the range of c."""

    bits: int
    shift: tuple[int, int]


class Layer(_Model):
    """One node of the artifact. `sqnr_db` compares its output with the float model's; null if equal or not there."""

    name: str
    op: str
    node: str
    origin: tuple[str, ...]
    activation: Quantization | None = None
    weight_bits: int | None = None
    precision: str | None = None
    density: float | None = None
    sparsity: str | None = None
    dense_reason: str | None = None
    kernel: str | None = None
    put_back: bool = False
    dyadic: DyadicSummary | None = None
    width: str | None = None
    accumulator_bound: int | None = None
    macs: int = 0
    sqnr_db: float | None = None
    float_reason: str | None = None


class NoteRow(_Model):
    """Where a pass did or declined something, and what."""

    where: str
    what: str


class PassRow(_Model):
    """One pass. `error`: relative, CLOSE passes. `sqnr_db`: per output against the float model, LOSSY passes."""

    name: str
    contract: str
    changed: tuple[NoteRow, ...]
    skipped: tuple[NoteRow, ...]
    error: float
    sqnr_db: dict[str, float | None]


class Verification(_Model):
    """The comparison with the specification that preceded the writing; see `mulshift.backends.verify.Verified`."""

    samples: int
    tensors: int
    elements: int
    differences: int
    kernel_elements: int = 0


class Totals(_Model):
    """Sizes in bytes. `integer_fraction`: nodes that touch no float tensor, of all between the borders."""

    weights_before: int
    weights_after: int
    model_bytes: int
    macs: int
    nodes: int
    integer_nodes: int
    integer_fraction: float
    output_sqnr_db: dict[str, float | None]


class OutlierRow(_Model):
    """Where the extremes of a value lie, from calibration: see `mulshift.passes.outliers.OutlierRatios`."""

    name: str
    position: float | None
    channel: float | None


class Report(_Model):
    """The whole of report.json."""

    recipe: str
    target: str
    totals: Totals
    verification: Verification
    layers: tuple[Layer, ...]
    passes: tuple[PassRow, ...]
    outliers: tuple[OutlierRow, ...] = ()

    def text(self) -> str:
        """JSON, indented, the same text for the same report."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Facts:
    """What a report is made from.

    Attributes:
        recipe: its name.
        before: the imported model.
        after: the graph that was lowered.
        artifact: lowered from it.
        model_bytes: size of model.onnx.
        records: of the passes.
        measured: SQNR and shapes.
        verified: result of the verification.
        outliers: of the calibrated graph.
        precisions: what the float graph says of the bits of its products, by the integer node that each becomes.
    """

    recipe: str
    before: ir.Model
    after: ir.Model
    artifact: Artifact
    model_bytes: int
    records: Sequence[PassRecord]
    measured: Measured
    verified: Verified
    outliers: tuple[OutlierRatios, ...] = ()
    precisions: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def kernels(self) -> dict[str, str]:
        """Node of the lowered graph -> operator of the kernel library that it is, products alone."""
        return {str(n.name): n.op_type for n in self.artifact.model.graph if "w_shape" in n.attributes}


def make_report(facts: Facts) -> Report:
    """The report of one compilation."""
    layers = tuple(_layer(node, facts) for node in facts.after.graph)
    inner = [n for n in facts.after.graph if n.op_type not in _BORDER]
    whole = len(inner) - len(float_nodes(facts.after))
    totals = Totals(
        weights_before=weight_bytes(facts.before),
        weights_after=weight_bytes(facts.artifact.model),
        model_bytes=facts.model_bytes,
        macs=sum(layer.macs for layer in layers),
        nodes=len(inner),
        integer_nodes=whole,
        integer_fraction=round(whole / len(inner), 6) if inner else 1.0,
        output_sqnr_db={k: rounded(v) for k, v in facts.measured.outputs.items()},
    )
    return Report(
        recipe=facts.recipe,
        target=facts.artifact.target.name,
        totals=totals,
        verification=Verification(**asdict(facts.verified)),
        layers=layers,
        passes=tuple(_pass(record) for record in facts.records),
        outliers=tuple(OutlierRow(**asdict(found)) for found in facts.outliers),
    )


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(int(v.const_value.nbytes) for v in model.graph.initializers.values() if v.const_value is not None)


def rounded(value: float | None) -> float | None:
    """Two decimals: what a dB figure means."""
    return None if value is None else round(value, 2)


def _pass(record: PassRecord) -> PassRow:
    return PassRow(
        name=record.name,
        contract=str(record.contract),
        changed=tuple(NoteRow(where=n.where, what=n.what) for n in record.changed),
        skipped=tuple(NoteRow(where=n.where, what=n.what) for n in record.skipped),
        error=float(f"{record.error:.3g}"),
        sqnr_db={k: rounded(v) for k, v in record.sqnr.items()},
    )


def _layer(node: ir.Node, facts: Facts) -> Layer:
    measured = facts.measured
    out = next((v for v in node.outputs if v.name), None)
    name = "" if out is None else str(out.name)
    bound = node.metadata_props.get(BOUND)
    zeros = zeros_of(node)
    return Layer(
        name=name,
        op=f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
        node=node.name or "",
        origin=origin(node),
        activation=None if out is None else _quantization(out),
        weight_bits=_weight_bits(node),
        precision=facts.precisions.get(str(node.name)) if node.domain else None,
        density=None if zeros is None else zeros.density,
        sparsity=None if zeros is None else zeros.pattern,
        dense_reason=None if zeros is None else zeros.reason,
        kernel=facts.kernels.get(str(node.name)),
        put_back=node.metadata_props.get(KERNEL) == DENSE,
        dyadic=_dyadic(node),
        width=node.metadata_props.get(WIDTH),
        accumulator_bound=None if bound is None else int(bound),
        macs=measured.macs.get(name, 0),
        sqnr_db=None if out is None else rounded(measured.values.get(stands_for(out))),
        float_reason=node.metadata_props.get(FLOAT_REASON),
    )


def _quantization(value: ir.Value) -> Quantization | None:
    q = get_qparams(value)
    if q is None:
        return None
    scale = (float(q.scale.min()), float(q.scale.max()))
    zero = (int(q.zero_point.min()), int(q.zero_point.max()))
    return Quantization(bits=q.spec.bits, signed=q.spec.signed, scale=scale, zero_point=zero)


def _weight_bits(node: ir.Node) -> int | None:
    """Of the second operand, where it is constant and of 8 bits or fewer."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.const_value is None or weight.is_graph_input():
        return None
    dtype = weight.const_value.dtype
    return int(dtype.bitwidth) if dtype.is_integer() and dtype.bitwidth <= 8 else None


def _dyadic(node: ir.Node) -> DyadicSummary | None:
    """From the attributes of an operator, or from its inputs b and c: the last two, before those of an epilogue."""
    attributes = {k: a.value for k, a in node.attributes.items()}
    shift = attributes.get("shift")
    if isinstance(shift, int):
        b = max((int(v) for k, v in attributes.items() if k.endswith("multiplier")), default=1)
        return DyadicSummary(bits=b.bit_length(), shift=(shift, shift))
    if node.domain != "mulshift" or "qmin" not in attributes or len(node.inputs) < 3:
        return None
    multipliers, shifts = (constant(v) for v in (node.inputs[3:5] if "w_shape" in attributes else node.inputs[-2:]))
    if multipliers is None or shifts is None or not multipliers.size:
        return None
    bits = int(np.max(multipliers)).bit_length()
    return DyadicSummary(bits=bits, shift=(int(np.min(shifts)), int(np.max(shifts))))


def float_islands(model: ir.Model) -> list[tuple[str, str]]:
    """(node, reason) of every node between the borders that computes in float."""
    return [(describe(n), n.metadata_props.get(FLOAT_REASON, "no integer form")) for n in float_nodes(model)]


__all__ = ["Facts", "Layer", "Report", "float_islands", "make_report", "weight_bytes"]
