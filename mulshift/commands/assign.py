"""`mulshift assign`: which bits each product gets, without compiling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mulshift.commands.options import (
    Batch,
    Budgets,
    Candidates,
    Executor,
    ImageChannels,
    ImageCrop,
    ImageInterpolation,
    ImageLayout,
    ImageMean,
    ImagePreset,
    ImageResize,
    ImageScale,
    ImageSize,
    ImageStd,
    Jobs,
    Json,
    Limit,
    Metrics,
    Quiet,
    Traceback,
    Workspace,
    preprocessing,
)

if TYPE_CHECKING:
    from mulshift.assigning import Assigned


def assign(
    model: Annotated[
        str, typer.Argument(help=".onnx, .pt2, or module:function that returns the model.", metavar="MODEL")
    ],
    calibration: Annotated[
        str, typer.Option("--calibration", "-c", help="Samples: .npz, .npy, a folder, or module:function.")
    ],
    budget: Budgets = None,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Name (see recipes) or path of a YAML file.")] = "int8",
    candidate: Candidates = None,
    sensitivity: Annotated[
        str, typer.Option("--sensitivity", help="How losses are predicted: gradient, hessian, kl or sqnr.")
    ] = "gradient",
    solver: Annotated[str, typer.Option("--solver", help="ilp, greedy, baq, zeroq, uniform or in-order.")] = "ilp",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples that losses are measured on.")] = 16,
    metrics: Metrics = None,
    front: Annotated[str, typer.Option("--front", help="Cost of the Pareto front: size, bops or latency.")] = "size",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the kernels that are timed.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the table, the decision and the front go, as JSON.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Where the front goes, as SVG.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random vectors.")] = 0,
    jobs: Jobs = 1,
    executor: Executor = "local",
    workspace: Workspace = None,
    limit: Limit = None,
    batch: Batch = 1,
    image_preset: ImagePreset = None,
    image_scale: ImageScale = None,
    image_mean: ImageMean = None,
    image_std: ImageStd = None,
    image_size: ImageSize = None,
    image_resize: ImageResize = None,
    image_crop: ImageCrop = None,
    image_interpolation: ImageInterpolation = None,
    image_layout: ImageLayout = None,
    image_channels: ImageChannels = None,
    json: Json = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Measure what fewer bits cost each layer, and choose them within budgets; other budgets are solved at once."""
    from mulshift.assigning import Workers, metrics_function
    from mulshift.assigning import assign as decide
    from mulshift.commands.output import print_json
    from mulshift.data import DataRequest
    from mulshift.passes.allocation.candidates import DEFAULT
    from mulshift.progress import show_progress
    from mulshift.sources import model_source

    images = preprocessing(
        image_preset,
        image_scale,
        image_mean,
        image_std,
        image_size,
        image_resize,
        image_crop,
        image_interpolation,
        image_layout,
        image_channels,
    )
    source = model_source(model)
    with show_progress(quiet) as progress:
        found = decide(
            source.source,
            DataRequest(calibration, limit, batch, images),
            budget or (),
            recipe=recipe,
            candidates=candidate or DEFAULT,
            sensitivity=sensitivity,
            solver=solver,
            evaluate=None if metrics is None else metrics_function(metrics),
            front=front,
            count=samples,
            threads=threads,
            seed=seed,
            workers=Workers(jobs, executor, workspace),
            example_inputs=source.example_inputs,
            progress=progress,
        )
    _write(found, front, output, plot)
    if json:
        print_json(as_plain(found, front))
    else:
        _show(found, front)


def as_plain(found: Assigned, front: str) -> dict[str, Any]:
    """The decision for machines; `products` is what the option `given` of assign-precision takes."""
    measured = found.measured
    return {
        "sensitivity": measured.sensitivity,
        "loss": found.assignment.loss,
        "costs": dict(found.assignment.costs),
        "shares": dict(found.assignment.shares),
        "products": {name: str(c) for name, c in found.assignment.products(measured).items()},
        "groups": [
            {
                "products": [p.name for p in group.products],
                "chosen": str(found.assignment.chosen[group.name]),
                "loss": dict(measured.loss[group.name]),
                "costs": {
                    name: {str(c): measured.cost(name, group, c) for c in measured.candidates}
                    for name in measured.costs
                },
            }
            for group in measured.groups
        ],
        "front": {
            "cost": front,
            "points": [
                {
                    "share": point.cost,
                    "loss": point.loss,
                    "products": {n: str(c) for n, c in point.assignment.products(measured).items()},
                }
                for point in found.front
            ],
        },
    }


def _write(found: Assigned, front: str, output: Path | None, plot: Path | None) -> None:
    import json

    from mulshift.commands.output import plain
    from mulshift.passes.allocation.files import write_whole
    from mulshift.passes.allocation.plot import front_svg

    if output is not None:
        write_whole(output, json.dumps(plain(as_plain(found, front)), indent=1, sort_keys=True) + "\n")
    if plot is not None:
        points = [(point.cost, point.loss) for point in found.front]
        write_whole(plot, front_svg({"front": points}, f"{front}, share of all w8a8", "predicted loss"))


def _show(found: Assigned, front: str) -> None:
    from mulshift.commands.output import print_table

    measured, chosen = found.measured, found.assignment
    widest = str(measured.candidates[0])
    rows = [
        (
            group.name,
            len(group.products),
            sum(p.size for p in group.weights().values()),
            str(chosen.chosen[group.name]),
            measured.loss[group.name][str(chosen.chosen[group.name])],
            measured.loss[group.name][widest],
        )
        for group in measured.groups
    ]
    print_table(("group", "products", "weights", "bits", "loss", f"loss at {widest}"), rows)
    totals: list[tuple[str, Any]] = [(f"{name}, share of all w8a8", share) for name, share in chosen.shares.items()]
    print_table(("result", ""), [*totals, (f"predicted loss ({measured.sensitivity})", chosen.loss)])
    print_table((front, "predicted loss"), [(point.cost, point.loss) for point in found.front])
