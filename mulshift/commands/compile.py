"""`mulshift compile`: the main job."""

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
    from mulshift.compiler import Compiled
    from mulshift.image_input import ImageInput
    from mulshift.images import Preprocessing
    from mulshift.sources import ModelSource
    from mulshift.sparse_layers import Compared


def compile_model(
    model: Annotated[
        str, typer.Argument(help=".onnx, .pt2, or module:function that returns the model.", metavar="MODEL")
    ],
    calibration: Annotated[
        str, typer.Option("--calibration", "-c", help="Samples: .npz, .npy, a folder, or module:function.")
    ],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Name (see recipes) or path of a YAML file.")] = "int8",
    target: Annotated[str, typer.Option("--target", "-t", help="Name (see targets).")] = "onnxruntime",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; default is the model's name + .mulshift.")
    ] = None,
    float_islands: Annotated[
        str, typer.Option("--float-islands", help="What has no integer form: report it, or forbid it.")
    ] = "report",
    input_uint8: Annotated[
        bool, typer.Option("--input-uint8", help="Take uint8 pixels; fold scale, mean and std into the artifact.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="For passes that draw random numbers.")] = 0,
    verify_samples: Annotated[
        int, typer.Option("--verify-samples", min=1, help="Samples that the check before writing runs.")
    ] = 2,
    sparse_kernels: Annotated[
        str,
        typer.Option("--sparse-kernels", help="For 2:4 layers: timed (where faster here than the dense one), or all."),
    ] = "timed",
    budget: Budgets = None,
    candidate: Candidates = None,
    metrics: Metrics = None,
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
    """Compile a trained model to integers, check it bit for bit on stock ONNX Runtime, and write the artifact."""
    import mulshift.compiler
    from mulshift.assigning import Workers, metrics_function
    from mulshift.commands.output import print_json
    from mulshift.data import DataRequest
    from mulshift.lock import Sources
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
    data = DataRequest(calibration, limit, batch, images)
    with show_progress(quiet) as progress:
        done = mulshift.compiler.compile(
            source.source,
            data,
            recipe=recipe,
            target=target,
            output=output or _default_output(source),
            example_inputs=source.example_inputs,
            seed=seed,
            float_islands=float_islands,
            input_image=_image_input(images) if input_uint8 else None,
            verify_samples=verify_samples,
            sparse_kernels=sparse_kernels,
            budgets=budget or (),
            candidates=candidate or (),
            evaluate=None if metrics is None else metrics_function(metrics),
            workers=Workers(jobs, executor, workspace),
            sources=Sources(
                model=model,
                calibration=calibration,
                limit=limit,
                batch=batch,
                images=None if images is None else images.as_dict(),
            ),
            progress=progress,
        )
    if json:
        print_json({"folder": done.folder, "report": done.report})
    else:
        _show(done)


def _default_output(source: ModelSource) -> Path:
    name = source.path.stem if source.path is not None else source.text.rpartition(":")[2]
    return Path(f"{name}.mulshift")


def _image_input(images: Preprocessing | None) -> ImageInput:
    """The preprocessing that the artifact shall hold.

    Raises:
        UsageError: none was given.
    """
    from mulshift.image_input import ImageInput
    from mulshift.ir import UsageError

    if images is None or images.normalization is None:
        raise UsageError("--input-uint8", "needs the preprocessing to fold in", "give --image-preset or --image-scale")
    norm = images.normalization
    return ImageInput(scale=norm.scale, mean=norm.mean, std=norm.std)


def _show(done: Compiled) -> None:
    from mulshift.commands.output import differences_text, print_line, print_table
    from mulshift.ir import Level
    from mulshift.report import float_islands

    totals, checked = done.report.totals, done.report.verification
    rows: list[tuple[str, Any]] = [
        ("weights", f"{megabytes(totals.weights_before)} to {megabytes(totals.weights_after)}"),
        ("nodes in integers", f"{totals.integer_nodes} of {totals.nodes}"),
        ("verified", differences_text(**checked.model_dump(exclude={"samples"}))),
        *((f"SQNR of {name}", decibel(value)) for name, value in totals.output_sqnr_db.items()),
    ]
    print_table(("result", ""), rows)
    if done.compared:
        show_compared(done.compared)
    level = done.artifact.target.level
    islands = float_islands(done.levels[level]) if level is Level.INTEGER else []
    if islands:
        print_table(("stays in float", "why"), islands)
    print_line(f"written to {done.folder}")


def show_compared(compared: tuple[Compared, ...]) -> None:
    """Sparse layers beside their dense twins."""
    from mulshift.commands.output import print_table

    rows = [(c.name, c.op, c.sparse * 1e6, c.dense * 1e6, "put back dense" if c.slower else None) for c in compared]
    print_table(("sparse layer", "kernel", "us", "us, dense", ""), rows)


def megabytes(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 1e6:.2f} MB"


def decibel(value: float | None) -> str:
    """None stands for no difference at all."""
    return "exact" if value is None else f"{value:.1f} dB"
