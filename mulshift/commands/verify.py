"""`mulshift verify`: an artifact on disk against its lock and the specification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from mulshift.data import DataRequest


def verify(
    artifact: Annotated[Path, typer.Argument(help="Folder that compile wrote.", metavar="DIR")],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help=".npz, .npy, a folder, or module:function; default is the calibration data."),
    ] = None,
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
    """Check the files against lock.json, and every integer on stock ONNX Runtime against the specification."""
    import mulshift.checking
    from mulshift.commands.output import differences_text, print_json, print_line
    from mulshift.data import DataRequest
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
    request = _locked(artifact) if data is None else DataRequest(data, None, batch, images)
    with show_progress(quiet) as progress:
        progress("verify", 0, None)
        found = mulshift.checking.verify(artifact, request, limit or (request.limit if data is None else None))
    if json:
        print_json({"verified": found})
        return
    counted = differences_text(found.differences, found.elements, found.tensors, found.kernel_elements)
    print_line(f"{counted}; {found.samples} samples")


def _locked(folder: Path) -> DataRequest:
    """The calibration data that the artifact was made with.

    Raises:
        UsageError: the lock does not name it.
    """
    from mulshift.data import DataRequest
    from mulshift.images import Preprocessing
    from mulshift.ir import UsageError
    from mulshift.lock import read_lock

    sources = read_lock(folder).sources
    if sources.calibration is None:
        raise UsageError(str(folder), "its lock.json does not name its calibration data", "give --data")
    images = None if sources.images is None else Preprocessing.from_dict(sources.images)
    return DataRequest(sources.calibration, sources.limit, sources.batch, images)
