"""Picture files that users give: pixels and masks as tensors, errors that name the file."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from marfast.evaluation.shards import UNREADABLE

_KINDS = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB", "LA": "L", "RGBA": "RGB", "PA": "RGB"}
"""Modes of Pillow's that can be read, and what each becomes."""


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """A picture; FileNotFoundError or ValueError, naming the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(Path(path).expanduser())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{path}: a picture of that many pixels is not read") from None
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a picture that can be read ({_said(error)})") from None
    with image:
        yield image


def read_picture(image: Image.Image, path: str, channels: int, side: int | None) -> Tensor:
    """Images [1, C, H, W] in [−1, 1] of 1 channel or 3; `side` is what to scale it to, if
    anything."""
    plain = _plain(image, path)
    if channels == 1 and plain.mode == "RGB":
        red, green, blue = (np.asarray(band) for band in plain.split())
        if not (np.array_equal(red, green) and np.array_equal(red, blue)):
            raise ValueError(f"{path} is in colour; allowed is grey, as this model's images are")
    plain = plain.convert("L" if channels == 1 else "RGB")
    if side is not None:
        plain = plain.resize((side, side), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(plain)).view(plain.height, plain.width, -1)
    return pixels.permute(2, 0, 1)[None].float().div(127.5).sub(1)


def read_mask(image: Image.Image, path: str, side: int | None) -> Tensor:
    """What isn't black [1, H, W], bool; where it is scaled, any of a pixel's pixels counts."""
    white = np.asarray(_plain(image, path).convert("RGB")).any(axis=2)
    marked = Image.fromarray(white.astype(np.uint8) * 255)
    if side is not None:
        marked = marked.resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.array(marked))[None] > 0


def _plain(image: Image.Image, path: str) -> Image.Image:
    """Grey or RGB, of 8 bits and without transparency."""
    kind = _KINDS.get(image.mode)
    if kind is None:
        raise ValueError(f"{path}: pixels of kind {image.mode}; allowed are 8-bit grey and RGB")
    try:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        plain = image.convert(kind)
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a picture that can be read ({_said(error)})") from None
    if alpha.min() < 255:
        raise ValueError(f"{path}: it is transparent; allowed is opaque")
    return plain


def _said(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
