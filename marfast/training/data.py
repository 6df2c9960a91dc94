"""Data sets: what each one reads, and which one a user's path is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from marfast.checkpoints import Architecture
from marfast.errors import ArgumentError, MissingFile
from marfast.model.tokenizer import Tokenizer
from marfast.training import fashion_mnist

Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int64]


class Unreadable(ValueError):
    """One image of many that can't be read: it is left out, and counted."""

    def __init__(self, path: object, why: object):
        super().__init__(str(path), str(why))
        self.path, self.why = str(path), str(why)


@dataclass(frozen=True)
class Facts:
    """What a run remembers of its data, and compares when it goes on."""

    kind: str
    count: int
    classes: tuple[str, ...]
    """Names, where they are known."""
    digest: str
    """Of what the items are: names of files, or numbers."""


class Data(Protocol):
    """Items that a model is trained on."""

    @property
    def facts(self) -> Facts: ...

    @property
    def labels(self) -> Whole:
        """[N]: of each item."""

    @property
    def lengths(self) -> Whole | None:
        """[N]: tokens of each sequence; None for images, which all have the same."""

    def __len__(self) -> int: ...

    def read(self, index: int, flip: bool) -> Floats:
        """One item as an array, mirrored if told so and if that means anything. Called by several
        threads. Raises Unreadable."""

    def finish(self, items: Tensor) -> Tensor:
        """Items [B, …] on the model's device -> what a model is given [B, c, h, w]. May draw from
        torch's global generators."""


class Batch(NamedTuple):
    """Some items."""

    items: Tensor  # [B, …]
    labels: Tensor  # [B]
    lengths: Tensor | None  # [B]


def open_data(
    path: str | Path,
    architecture: Architecture,
    *,
    labels: str | Path | None = None,
    tokenizer: Tokenizer | None = None,
) -> Data:
    """The data set at a path, for models of an architecture.

    path: "fashion-mnist" or a folder with its four .gz files; a folder of images, in a folder for
        each class or all in one; a latent cache, folders of .npz; arrays, an .npz or .npy.
    labels: an .npy of class indices [N], beside images in an .npy.
    tokenizer: of a model of latents that is trained on images; not needed with a cache.

    Raises ArgumentError naming `data`, `labels` or `vae`; FileNotFoundError or ValueError for
    Fashion-MNIST's own files.
    """
    from marfast.training.arrays import open_array
    from marfast.training.folders import open_folder

    found = Path(path)
    if str(path) == "fashion-mnist" or (found / fashion_mnist.FILES[0]).is_file():
        data: Data = _fashion_mnist(None if str(path) == "fashion-mnist" else found, architecture)
    elif found.is_dir():
        data = open_folder(found, architecture, tokenizer)
    elif found.is_file():
        data = open_array(found, architecture, labels, tokenizer)
        labels = None
    else:
        said = f"{str(path)!r} is neither fashion-mnist nor a file or folder"
        raise MissingFile("data", said)
    if labels is not None:
        raise ArgumentError("labels", f"{labels}; {path} has its own", "allowed with an .npy alone")
    check_labels(data.labels, architecture.class_num)
    return data


def check_labels(labels: Whole, classes: int) -> None:
    """Raise ArgumentError unless each is one of the model's classes."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        given = f"item {wrong[0]} has the label {labels[wrong[0]]}"
        more = f", and {len(wrong) - 1} more are out of range" * (len(wrong) > 1)
        raise ArgumentError("labels", given + more, f"allowed are 0 to {classes - 1}")


def random_latents(moments: Tensor, scale: float) -> Tensor:
    """Moments [B, 2C, h, w] of a tokenizer -> latents [B, C, h, w], drawn as in LTH14/mar's
    training: from the CPU's generator."""
    from marfast.reference.vae import DiagonalGaussianDistribution

    return DiagonalGaussianDistribution(moments).sample() * scale


def latents_of(images: Tensor, tokenizer: Any) -> Tensor:
    """Images [B, 3, H, W] -> latents; drawn where the tokenizer has `moments`, else its own."""
    if hasattr(tokenizer, "moments"):
        return random_latents(tokenizer.moments(images), tokenizer.scale)
    latents: Tensor = tokenizer.encode(images)
    return latents


def need_tokenizer(architecture: Architecture, tokenizer: Tokenizer | None) -> None:
    """Raise ArgumentError where images are to become latents, and nothing makes them."""
    if not architecture.makes_pixels and tokenizer is None:
        said = "none given, and the model is one of latents"
        raise ArgumentError("vae", said, "name the tokenizer, or train on a latent cache")


def _fashion_mnist(folder: Path | None, architecture: Architecture) -> Data:
    from marfast.training.arrays import Images

    read = fashion_mnist.read_fashion_mnist("train", folder)
    return Images.of(
        read.images[:, None], read.labels, architecture, fashion_mnist.CLASS_NAMES, None
    )


def as_floats(pixels: npt.NDArray[Any]) -> Floats:
    """Bytes as x / 127.5 − 1; floats as they are."""
    floats: Floats = np.ascontiguousarray(pixels, np.float32)
    if pixels.dtype == np.uint8:
        floats /= 127.5
        floats -= 1
    return floats


def stack(items: list[Floats]) -> Tensor:
    return torch.from_numpy(np.stack(items))
