"""The Fashion-MNIST data set: 70,000 grey 28×28 photographs of clothes in ten classes.

Zalando Research, MIT licence, arXiv 1708.07747. Read from its four ``.gz`` files in the IDX
format: a magic number (two zero bytes, a type code, the number of dimensions), one big-endian
32-bit size per dimension, then the values, last dimension fastest.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
IMAGE_SIZE = 28

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FOLDER_VARIABLE = "MARFAST_FASHION_MNIST"

_PREFIX = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08

FILES = tuple(
    f"{prefix}-{what}-ubyte.gz"
    for prefix in _PREFIX.values()
    for what in ("images-idx3", "labels-idx1")
)
"""Of the data set."""


class LabelledImages(NamedTuple):
    """Images [N, 28, 28] in uint8 (0 is the background) and their classes [N] in uint8, 0–9."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def read_fashion_mnist(
    split: Literal["train", "test"], folder: str | os.PathLike[str] | None = None
) -> LabelledImages:
    """The training (60,000) or test (10,000) images and labels.

    ``folder`` holds the four ``.gz`` files; without it, the one that the environment variable
    ``MARFAST_FASHION_MNIST`` names, and without that, the one of Debian's package.
    Raises FileNotFoundError if a file is missing and ValueError if one is not what it should be;
    the message names the file.
    """
    if split not in _PREFIX:
        raise ValueError(f"split is {split!r}; it must be 'train' or 'test'")
    root = Path(folder or os.environ.get(FOLDER_VARIABLE) or DEBIAN_FOLDER)
    images = _read_idx(root / f"{_PREFIX[split]}-images-idx3-ubyte.gz", dims=3)
    labels_file = root / f"{_PREFIX[split]}-labels-idx1-ubyte.gz"
    labels = _read_idx(labels_file, dims=1)
    if images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"{root}: images are {images.shape[1:]}, not {IMAGE_SIZE}×{IMAGE_SIZE}")
    if len(images) != len(labels):
        raise ValueError(f"{root}: {len(images)} {split} images but {len(labels)} labels")
    if labels.max() >= len(CLASS_NAMES):
        raise ValueError(f"{labels_file}: label {labels.max()} is not one of 0–9")
    return LabelledImages(images, labels)


def to_model_range(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 images [N, 28, 28] → float32 [N, 1, 28, 28] in [-1, 1]: x / 127.5 - 1."""
    return torch.from_numpy(images).float().div_(127.5).sub_(1).unsqueeze(1)


def _read_idx(file: Path, dims: int) -> npt.NDArray[np.uint8]:
    """The array in a gzipped IDX file of unsigned bytes with ``dims`` dimensions."""
    try:
        raw = gzip.decompress(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{file} is missing: install Debian's package dataset-fashion-mnist, or point to a "
            f"folder with the four .gz files (an argument, or {FOLDER_VARIABLE})"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be read as a gzip file: {error}") from None
    header = struct.Struct(f">HBB{dims}I")
    if len(raw) < header.size:
        raise ValueError(
            f"{file} ends after {len(raw)} bytes, within its {header.size}-byte header"
        )
    zero, kind, n_dims, *shape = header.unpack_from(raw)
    if (zero, kind, n_dims) != (0, _UNSIGNED_BYTE, dims):
        raise ValueError(
            f"{file} has magic number 0x{raw[:4].hex()}; an IDX file of unsigned bytes with "
            f"{dims} dimension(s) has 0x0000080{dims}"
        )
    expected = math.prod(shape)
    if expected == 0 or len(raw) - header.size != expected:
        raise ValueError(
            f"{file} announces shape {tuple(shape)} but holds {len(raw) - header.size:,} values"
        )
    values = np.frombuffer(raw, np.uint8, offset=header.size).reshape(shape)
    return np.array(values, np.uint8)  # a copy, which can be written to
