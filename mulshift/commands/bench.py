"""`mulshift bench`: latency on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mulshift.commands.options import Json, Quiet, Traceback

if TYPE_CHECKING:
    from mulshift.latency import Latency


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
    json: Json = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Time models on ONNX Runtime, one process each: the fastest of many runs."""
    from mulshift.commands.output import print_json, print_table
    from mulshift.latency import bench as measure
    from mulshift.progress import show_progress

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
