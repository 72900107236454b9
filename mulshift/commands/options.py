"""Options that several commands share, each defined once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from mulshift.images import Preprocessing


@dataclass
class Settings:
    """What the program must know after a command failed; `mulshift.cli.main` makes one a call."""

    traceback: bool = False


def _set_traceback(context: typer.Context, value: bool) -> bool:
    settings = context.find_object(Settings)
    if settings is not None:
        settings.traceback = settings.traceback or value
    return value


OUTPUT = "Output"
DATA = "Data"
IMAGES = "Images: x = (pixel * scale - mean) / std"

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout instead of tables.", rich_help_panel=OUTPUT)
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress on stderr.", rich_help_panel=OUTPUT)
]
Traceback: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--traceback",
        help="Show the Python traceback of an error.",
        callback=_set_traceback,
        is_eager=True,
        rich_help_panel=OUTPUT,
    ),
]
ASSIGN = "Mixed precision"
Budgets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="Repeatable: size=0.6 or bops=0.5 of all w8a8, size=3.2MB, latency=5ms, top1=-1.0 (needs --metrics).",
        rich_help_panel=ASSIGN,
    ),
]
Candidates: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--candidate",
        help="Repeatable: w4a8, w4g32a8, w8a8:2:4, w8a8:2:4:shared; default 8, 4, 2 by 8, 4 bits.",
        rich_help_panel=ASSIGN,
    ),
]
Metrics: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        help="module:function that is given a function feeds -> outputs and returns metrics by name.",
        rich_help_panel=ASSIGN,
    ),
]
Jobs: TypeAlias = Annotated[
    int, typer.Option("--jobs", "-j", min=1, help="Measurements at a time.", rich_help_panel=ASSIGN)
]
Executor: TypeAlias = Annotated[
    str, typer.Option("--executor", help="Where they run: local, or ray (extra [ray]).", rich_help_panel=ASSIGN)
]
Workspace: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="Folder from which a call that was killed goes on; default: the cache, for tables.",
        rich_help_panel=ASSIGN,
    ),
]
Limit: TypeAlias = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use at most so many samples.", rich_help_panel=DATA)
]
Batch: TypeAlias = Annotated[
    int, typer.Option("--batch", min=1, help="Samples a call where the model's batch is dynamic.", rich_help_panel=DATA)
]
ImagePreset: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-preset",
        help="Known numbers: imagenet (mean and std of ImageNet), unit (0..1), signed (-1..1), raw (0..255).",
        rich_help_panel=IMAGES,
    ),
]
ImageScale: TypeAlias = Annotated[
    str | None, typer.Option("--image-scale", help="scale, as 1/255.", rich_help_panel=IMAGES)
]
ImageMean: TypeAlias = Annotated[
    str | None,
    typer.Option("--image-mean", help="mean, one number or one a channel: 0.485,0.456,0.406.", rich_help_panel=IMAGES),
]
ImageStd: TypeAlias = Annotated[
    str | None, typer.Option("--image-std", help="std, one number or one a channel.", rich_help_panel=IMAGES)
]
ImageSize: TypeAlias = Annotated[
    str | None,
    typer.Option("--image-size", help="224 or HEIGHTxWIDTH; the model's if left out.", rich_help_panel=IMAGES),
]
ImageResize: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-resize",
        help="crop (shorter side fitted, centre kept), stretch, or pad (longer side fitted); default crop.",
        rich_help_panel=IMAGES,
    ),
]
ImageCrop: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--image-crop", help="Part of the shorter side that crop keeps, as 0.875; default 1.", rich_help_panel=IMAGES
    ),
]
ImageInterpolation: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-interpolation", help="bilinear, bicubic, nearest or lanczos; default bilinear.", rich_help_panel=IMAGES
    ),
]
ImageLayout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-layout", help="nchw or nhwc; told from the model's channels if left out.", rich_help_panel=IMAGES
    ),
]
ImageChannels: TypeAlias = Annotated[
    str | None, typer.Option("--image-channels", help="rgb or bgr; default rgb.", rich_help_panel=IMAGES)
]


def preprocessing(
    preset: str | None,
    scale: str | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    resize: str | None,
    crop: float | None,
    interpolation: str | None,
    layout: str | None,
    channels: str | None,
) -> Preprocessing | None:
    """The image options as one object, None if none was given.

    Raises:
        UsageError: an option that cannot be read.
    """
    from mulshift.images import parse_preprocessing

    given = (preset, scale, mean, std, size, resize, crop, interpolation, layout, channels)
    if all(value is None for value in given):
        return None
    return parse_preprocessing(
        preset=preset,
        scale=scale,
        mean=mean,
        std=std,
        size=size,
        resize=resize,
        crop=crop,
        interpolation=interpolation,
        layout=layout,
        channels=channels,
    )
