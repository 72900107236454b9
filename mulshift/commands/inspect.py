"""`mulshift inspect`: what is in a model or an artifact, and why a layer is slow or wrong."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Annotated

import typer

from mulshift.commands.options import Json, Traceback

if TYPE_CHECKING:
    from mulshift.inspection import Inspected
    from mulshift.passes.sparsity.found import Zeros
    from mulshift.report import Layer, Report


def inspect(
    source: Annotated[str, typer.Argument(help="Artifact folder, .onnx, .pt2, or module:function.", metavar="SOURCE")],
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="Only layers with this in their name; tells all about them.")
    ] = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Show a model, or the layers of an artifact: op, bits, scale, width, accumulator bound, SQNR, why float, zeros."""
    import mulshift.inspection
    from mulshift.commands.loading import inspectable
    from mulshift.commands.output import print_json
    from mulshift.ir import UsageError

    found = dataclasses.replace(mulshift.inspection.inspect(inspectable(source)), name=source)
    if layer is not None and found.report is None:
        raise UsageError("--layer", f"'{source}' is not an artifact", "give the folder that compile wrote")
    chosen = [] if layer is None or found.report is None else matching(found.report, layer)
    if json:
        print_json({"layers": chosen} if layer is not None else found)
    elif layer is not None and found.report is not None:
        _show_chosen(found.report, chosen)
    else:
        _show(found)


def matching(report: Report, text: str) -> list[Layer]:
    """Layers whose value, node or origin contains the text, whatever its case.

    Raises:
        UsageError: there is none.
    """
    from mulshift.ir import UsageError
    from mulshift.passes.recipe import suggest

    wanted = text.lower()
    found = [r for r in report.layers if any(wanted in name.lower() for name in (r.name, r.node, *r.origin))]
    if not found:
        names = [name for r in report.layers for name in (r.name, *r.origin)]
        raise UsageError(f"layer '{text}'", "no layer has that in its name", suggest(text, names))
    return found


def _show(found: Inspected) -> None:
    from mulshift.commands.output import print_table

    rows = [
        ("level", found.level),
        ("opset", found.opset),
        *(("input", text) for text in found.inputs),
        *(("output", text) for text in found.outputs),
        ("weights", f"{found.weights / 1e6:.2f} MB"),
        ("operators", ", ".join(f"{count} {name}" for name, count in found.operators.items())),
    ]
    print_table((found.name, ""), rows)
    if found.report is not None:
        show_layers(found.report.layers)
    show_zeros(found.zeros)
    if found.outliers:
        outliers = [(row.name, _times(row.position), _times(row.channel)) for row in found.outliers]
        print_table(("outliers", "position 0 / rest", "worst / median channel"), outliers)


def show_zeros(zeros: tuple[Zeros, ...]) -> None:
    """Density and pattern of each product's weights, and why it has no 2:4 kernel."""
    from mulshift.commands.output import print_table

    if zeros:
        rows = [(z.name, z.op, z.density, z.pattern, z.reason is None, z.reason) for z in zeros]
        print_table(("product", "op", "density", "zeros", "qualifies for 2:4", "because"), rows)


def _times(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio:.4g}x"


def show_layers(layers: tuple[Layer, ...] | list[Layer]) -> None:
    """One row a layer."""
    from mulshift.commands.output import print_table

    columns = (
        "layer",
        "op",
        "bits",
        "weights",
        "scale",
        "dyadic",
        "width",
        "bound",
        "MACs",
        "SQNR dB",
        "float because",
    )
    print_table(columns, [_row(layer) for layer in layers])


def _row(layer: Layer) -> tuple[object, ...]:
    quantized = layer.activation
    low, high = (None, None) if quantized is None else quantized.scale
    sign = "" if quantized is None else ("s" if quantized.signed else "u")
    return (
        layer.name,
        layer.op.removeprefix("mulshift::"),
        None if quantized is None else f"{sign}{quantized.bits}",
        layer.precision or layer.weight_bits,
        None if low is None else (f"{low:.4g}" if low == high else f"{low:.3g}..{high:.3g}"),
        None if layer.dyadic is None else f"{layer.dyadic.bits} bits >> {_span(layer.dyadic.shift)}",
        layer.width,
        layer.accumulator_bound,
        layer.macs or None,
        layer.sqnr_db,
        layer.float_reason,
    )


def _span(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}..{pair[1]}"


def _show_chosen(report: Report, chosen: list[Layer]) -> None:
    """The layers in full, and what each pass did or declined at them."""
    from mulshift.commands.output import print_table

    show_layers(chosen)
    names = {name for layer in chosen for name in (layer.name, layer.node, *layer.origin) if name}
    rows = [
        (row.name, kind, note.where, note.what)
        for row in report.passes
        for kind, notes in (("changed", row.changed), ("skipped", row.skipped))
        for note in notes
        if any(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", note.where) for name in names)
    ]
    if rows:
        print_table(("pass", "", "where", "what"), rows)
