"""`mulshift diff`: what differs between two models or artifacts."""

from __future__ import annotations

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
    Traceback,
    preprocessing,
)


def diff(
    first: Annotated[str, typer.Argument(help="Artifact folder, .onnx, .pt2, or module:function.", metavar="A")],
    second: Annotated[str, typer.Argument(help="Artifact folder, .onnx, .pt2, or module:function.", metavar="B")],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Compare values of one name on this data too (2 samples, see --limit)."),
    ] = None,
    limit: Limit = 2,
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
    traceback: Traceback = False,
) -> None:
    """Compare two models or artifacts: nodes, and on data the numbers. Exit code 1 if they differ."""
    import mulshift.inspection
    from mulshift.commands.loading import inspectable
    from mulshift.commands.output import print_json, print_line, print_table
    from mulshift.data import DataRequest

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
    request = None if data is None else DataRequest(data, None, batch, images)
    found = mulshift.inspection.diff(inspectable(first), inspectable(second), request, limit)
    if json:
        print_json({"same": found.same, "nodes": found.nodes, "values": found.values, "compared": found.compared})
    else:
        for line in found.nodes:
            print_line(line)
        if found.values:
            rows = [(v.name, v.sqnr_db, v.largest) for v in found.values]
            print_table(("value", "SQNR dB", "largest difference"), rows)
        print_line("no difference" if found.same else f"{len(found.nodes)} lines, {len(found.values)} values differ")
    raise typer.Exit(0 if found.same else 1)
