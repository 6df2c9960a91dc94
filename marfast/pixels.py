"""Pixels as files hold them, from images as models make them."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

Pixels = npt.NDArray[np.uint8]


def to_pixels(images: Tensor) -> Pixels:
    """[B, C, H, W] in [−1, 1] -> [B, H, W, C], rounded to nearest."""
    exact = images.permute(0, 2, 3, 1).double()  # in float32 the sum can round to a half
    scaled = exact.add(1).mul(127.5).round().clamp(0, 255)
    pixels: Pixels = scaled.byte().cpu().numpy()
    return pixels
