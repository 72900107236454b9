"""`mulshift bench`: latency on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mulshift.commands.options import Json, Quiet, Traceback

if TYPE_CHECKING:
    from mulshift.latency import Latency
    from mulshift.layer_bench import LayerTime


def bench(
    models: Annotated[
        list[str],
        typer.Argument(help="Artifact folders and .onnx files; the last is the base of ratios.", metavar="MODELS..."),
    ],
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Its first sample is run; default is random numbers.")
    ] = None,
    threads: Annotated[list[int] | None, typer.Option("--threads", min=1, help="Repeatable; default 1.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="Of timing, for each configuration.")] = 2.0,
    no_kernels: Annotated[
        bool, typer.Option("--no-kernels", help="Run the bodies of our operators, not the kernel library.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Of artifacts: which kernel ran each node; sparse beside dense ones.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Time models on ONNX Runtime, one process each: the fastest of many runs."""
    from mulshift.commands.output import print_json, print_table
    from mulshift.latency import bench as measure
    from mulshift.progress import show_progress

    if layers:
        _bench_layers(models, data, (threads or [1])[0], seconds, json, quiet)
        return
    found: list[Latency] = []
    with show_progress(quiet) as progress:
        for done, model in enumerate(models):
            progress("bench", done, len(models))
            found += measure({model: model}, data, threads or (1,), seconds, not no_kernels)
        progress("bench", len(models), len(models))
    base = {row.threads: row.milliseconds for row in found if row.name == models[-1]}
    if json:
        print_json({"latencies": found})
        return
    rows = [(r.name, r.kernels, r.threads, r.milliseconds, base[r.threads] / r.milliseconds, r.runs) for r in found]
    print_table(("model", "kernels", "threads", "ms", "times as fast", "runs"), rows)


def _bench_layers(models: list[str], data: str | None, threads: int, seconds: float, json: bool, quiet: bool) -> None:
    from mulshift.commands.output import print_json, print_table
    from mulshift.layer_bench import bench_layers
    from mulshift.progress import show_progress

    found: dict[str, tuple[LayerTime, ...]] = {}
    with show_progress(quiet) as progress:
        for done, model in enumerate(models):
            progress("bench", done, len(models))
            found[model] = bench_layers(model, data, threads, seconds)
        progress("bench", len(models), len(models))
    if json:
        print_json({"layers": found})
        return
    columns = ("layer", "op", "ran", "ms", "alone ms", "twin ms", "times as fast", "")
    for model, layers in found.items():
        rows = [
            (r.name, r.op, r.ran, r.milliseconds, r.alone, r.twin, r.ratio, "put back dense" if r.put_back else None)
            for r in layers
        ]
        print_table(columns, rows, title=f"{model}, threads: {threads}")
