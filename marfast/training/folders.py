"""Folders of files: images, and latents as LTH14/mar's main_mar.py caches them.

Files lie in a folder for each class, whose index is its place among the sorted names, or all in
one, for a model of one class.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from marfast.checkpoints import Architecture
from marfast.errors import ArgumentError
from marfast.model.autoencoder import SCALE
from marfast.model.tokenizer import Tokenizer
from marfast.training.data import (
    Data,
    Facts,
    Floats,
    Unreadable,
    Whole,
    as_floats,
    latents_of,
    need_tokenizer,
    random_latents,
)

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
CACHED = (".npz",)
MOMENTS, FLIPPED = "moments", "moments_flip"
"""The arrays of a cached file [2C, h, w] float32: means, then log variances, of the image and of
its mirror image."""


@dataclass(frozen=True)
class Files:
    """Files of one kind under a folder, by class and name."""

    paths: list[Path]
    labels: Whole
    facts: Facts

    @classmethod
    def under(cls, root: Path, suffixes: tuple[str, ...], kind: str) -> "Files":
        """ArgumentError, naming `data`, where there are none, or some beside folders of classes."""

        def wanted(folder: Path, deep: bool) -> list[Path]:
            found = folder.rglob("*") if deep else folder.iterdir()
            return sorted(file for file in found if file.suffix.lower() in suffixes)

        loose = wanted(root, deep=False)
        folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
        of_class = {folder.name: wanted(folder, deep=True) for folder in folders}
        of_class = {name: files for name, files in of_class.items() if files}
        if loose and of_class:
            said = f"{root} has {loose[0].name} beside folders of classes such as {min(of_class)}"
            raise ArgumentError("data", said, "allowed are the ones or the others")
        paths = [*loose, *(file for files in of_class.values() for file in files)]
        if not paths:
            raise ArgumentError("data", f"{root} has no file of {', '.join(suffixes)}")
        counts = [len(files) for files in of_class.values()] or [len(loose)]
        names = "\0".join(str(path.relative_to(root)) for path in paths)
        digest = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]
        return cls(
            paths,
            np.repeat(np.arange(len(counts)), counts).astype(np.int64),
            Facts(kind, len(paths), tuple(of_class), digest),
        )


@dataclass
class Pictures:
    """Image files, cut and scaled to squares as in ADM: halved while at least twice as large, then
    scaled by a bicubic filter, then the middle."""

    files: Files
    side: int
    channels: int
    tokenizer: Tokenizer | None
    lengths: None = None

    @property
    def facts(self) -> Facts:
        return self.files.facts

    @property
    def labels(self) -> Whole:
        return self.files.labels

    def __len__(self) -> int:
        return len(self.files.paths)

    def read(self, index: int, flip: bool) -> Floats:
        """[c, H, W] in [−1, 1]."""
        pixels = read_picture(self.files.paths[index], self.side, self.channels)
        image: Floats = as_floats(pixels).transpose(2, 0, 1)
        return image[..., ::-1] if flip else image

    def finish(self, items: Tensor) -> Tensor:
        return items if self.tokenizer is None else latents_of(items, self.tokenizer)


@dataclass
class Cached:
    """A latent cache."""

    files: Files
    shape: tuple[int, int, int]  # 2C, h, w
    lengths: None = None

    @property
    def facts(self) -> Facts:
        return self.files.facts

    @property
    def labels(self) -> Whole:
        return self.files.labels

    def __len__(self) -> int:
        return len(self.files.paths)

    def read(self, index: int, flip: bool) -> Floats:
        """Moments [2C, h, w]."""
        path = self.files.paths[index]
        name = FLIPPED if flip else MOMENTS
        try:
            with np.load(path, allow_pickle=False) as stored:
                moments: Floats = stored[name].astype(np.float32)
        except Exception as error:  # zipfile's, zlib's and NumPy's own, of many kinds
            raise Unreadable(path, error) from None
        if moments.shape != self.shape:
            raise Unreadable(path, f"{name} {list(moments.shape)}, not {list(self.shape)}")
        if not np.isfinite(moments).all():
            raise Unreadable(path, f"{name} has NaN or infinite values")
        return moments

    def finish(self, items: Tensor) -> Tensor:
        return random_latents(items, SCALE)


def open_folder(root: Path, architecture: Architecture, tokenizer: Tokenizer | None) -> Data:
    """Images, or a latent cache where there are .npz files. ArgumentError names `data` or `vae`."""
    what = architecture
    if what.sequence:
        raise ArgumentError("data", f"{root} is a folder", "sequences are read from .npz and .npy")
    if next(root.rglob("*.npz"), None) is not None:
        if what.makes_pixels:
            said = f"{root} is a latent cache, and the model is one of pixels"
            raise ArgumentError("data", said)
        latent = what.img_size // what.vae_stride
        files = Files.under(root, CACHED, "latents")
        return Cached(files, (2 * what.vae_embed_dim, latent, latent))
    found = Files.under(root, PICTURES, "images")
    need_tokenizer(what, tokenizer)
    if what.image_channels not in (1, 3):
        raise ArgumentError("data", f"{root}: a model of {what.vae_embed_dim} channels reads none")
    return Pictures(found, what.img_size, what.image_channels, tokenizer)


def read_picture(path: Path, side: int, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[side, side, channels] of an image file; Unreadable where it is none."""
    try:
        with Image.open(path) as image:
            plain = image.convert("L" if channels == 1 else "RGB")
    except Exception as error:  # decoders raise many kinds on damaged files
        raise Unreadable(path, error) from None
    pixels = np.asarray(centre_crop(plain, side))
    return pixels.reshape(side, side, channels)


def centre_crop(image: Image.Image, side: int) -> Image.Image:
    """A square of this side, as ADM (arXiv 2105.05233) cuts its training images."""
    while min(image.size) >= 2 * side:
        half = image.width // 2, image.height // 2
        image = image.resize(half, Image.Resampling.BOX)
    scale = side / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
