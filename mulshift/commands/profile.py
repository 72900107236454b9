"""`mulshift profile`: how long each product's kernel takes here, by form of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mulshift.commands.options import Json, Limit, Quiet, Traceback

if TYPE_CHECKING:
    from mulshift.kernel_profile import Profile


def profile(
    model: Annotated[
        str, typer.Argument(help=".onnx, .pt2, or module:function that returns the model.", metavar="MODEL")
    ],
    calibration: Annotated[
        str, typer.Option("--calibration", "-c", help="Samples: .npz, .npy, a folder, or module:function.")
    ],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Name (see recipes) or path of a YAML file.")] = "int8",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of one operator.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="Of timing, for each kind of node.")] = 0.2,
    limit: Limit = None,
    json: Json = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Time the kernels of every product of a model on this machine, for 8, 4, 2 weight bits and 2:4; times are kept."""
    from mulshift.assigning import examples_for
    from mulshift.commands.output import print_json
    from mulshift.data import DataRequest, input_specs, open_samples
    from mulshift.ir import load
    from mulshift.kernel_profile import profile as measure
    from mulshift.progress import show_progress
    from mulshift.sources import model_source

    source = model_source(model)
    with show_progress(quiet) as progress:
        progress("load", 0, None)
        imported = load(source.source, examples_for(source.source, source.example_inputs, calibration))
        samples = open_samples(DataRequest(calibration, limit), input_specs(imported))
        found = measure(imported, samples, recipe, threads=threads, seconds=seconds, progress=progress)
    if json:
        print_json(found)
    else:
        _show(found)


def _show(found: Profile) -> None:
    from mulshift.commands.output import print_line, print_table
    from mulshift.kernel_profile import BASE, FORMS
    from mulshift.passes.allocation.candidates import DENSE

    keys = [str(form) for form in FORMS]
    rows = [(p.name, p.op, *(_us(p.seconds.get(key)) for key in keys)) for p in found.products]
    totals = [sum(p.seconds.get(key, p.seconds[str(BASE)]) for p in found.products) for key in keys]
    blank = [None] * (len(keys) - 1)
    rows += [("all products", None, *(_us(t) for t in totals)), ("the model", None, _us(found.model), *blank)]
    kinds = ["" if form.kind == DENSE else f", {form.kind}" for form in FORMS]
    columns = [f"us, {form.bits} bits{kind}" for form, kind in zip(FORMS, kinds, strict=True)]
    print_table(("product", "kernel", *columns), rows)
    print_line(found.machine)


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e6, 1)
