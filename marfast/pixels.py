"""Pixels as files hold them, from images as models make them; sheets of several."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

Pixels = npt.NDArray[np.uint8]

BETWEEN = 255  # white, between the images of a grid


def to_pixels(images: Tensor) -> Pixels:
    """[B, C, H, W] in [−1, 1] -> [B, H, W, C], rounded to nearest."""
    exact = images.permute(0, 2, 3, 1).double()  # in float32 the sum can round to a half
    scaled = exact.add(1).mul(127.5).round().clamp(0, 255)
    pixels: Pixels = scaled.byte().cpu().numpy()
    return pixels


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
