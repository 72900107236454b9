"""`mulshift run`: an artifact on data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mulshift.commands.options import (
    Batch,
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
    Json,
    Limit,
    Quiet,
    Traceback,
    preprocessing,
)


def run(
    artifact: Annotated[Path, typer.Argument(help="Folder that compile wrote.", metavar="DIR")],
    data: Annotated[str, typer.Option("--data", "-d", help=".npz, .npy, a folder, or module:function.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the outputs go, one array each.")] = Path(
        "outputs.npz"
    ),
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
    """Run an artifact and write its outputs, samples along axis 0, to an .npz file."""
    from mulshift.checking import open_artifact
    from mulshift.commands.output import print_json, print_line
    from mulshift.commands.outputs_file import check_file, write_outputs
    from mulshift.data import input_specs, open_samples
    from mulshift.progress import show_progress

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
    check_file(output)
    loaded = open_artifact(artifact)
    samples = open_samples(data, input_specs(loaded.model), limit=limit, batch=batch, images=images)
    with show_progress(quiet) as progress:
        shapes = write_outputs(output, loaded.run, samples, progress)
    if json:
        print_json({"output": output, "shapes": shapes})
        return
    for name, shape in shapes.items():
        print_line(f"{name}: {list(shape)} in {output}")
