"""Image files: grids, and files that are whole or not there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from marfast.cli.target import FORMATS
from marfast.files import replacing
from marfast.pixels import Pixels

LONGEST_SIDE = 16383  # pixels: WebP's limit, the least of the three
CHANNELS = (1, 3)  # grey and RGB
BETWEEN = 255  # white, between the images of a grid

_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}


def enlarge(pixels: Pixels, scale: int) -> Pixels:
    """[H, W, C] -> [H·scale, W·scale, C]: each pixel becomes a square."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def grid_side(images: int, side: int) -> int:
    """Pixels along a row or column of a grid: images with a line around each."""
    return images * (side + 1) + 1


def make_grid(images: Sequence[Pixels], columns: int) -> Pixels:
    """A sheet of images [H, W, C], row by row from the top left."""
    height, width, channels = images[0].shape
    rows = -(-len(images) // columns)
    shape = (grid_side(rows, height), grid_side(columns, width), channels)
    sheet = np.full(shape, BETWEEN, np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        top, left = grid_side(row, height), grid_side(column, width)
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_image(pixels: Pixels, path: Path, *, force: bool = False) -> None:
    """Write [H, W, C] in the format of the path's suffix; what is there only if forced."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    kind = FORMATS[path.suffix.lower()]
    with replacing(path, force=force) as unfinished, unfinished.open("wb") as file:
        image.save(file, kind, **_OPTIONS.get(kind, {}))
