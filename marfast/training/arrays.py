"""Arrays in memory or mapped: images, sequences of vectors."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from marfast.checkpoints import Architecture
from marfast.errors import ArgumentError
from marfast.model.tokenizer import Tokenizer
from marfast.training.data import (
    Data,
    Facts,
    Floats,
    Whole,
    as_floats,
    latents_of,
    need_tokenizer,
)

Array = npt.NDArray[Any]

IMAGES, SEQUENCES, LABELS = ("images", "arr_0"), ("sequences",), ("labels", "arr_1")
"""Names in an .npz; the second of each are those of ADM's, which `marfast sample` writes, too."""
CHUNK = 1 << 24  # numbers that are looked at, or hashed, at a time


@dataclass
class Images:
    """Images [N, c, H, W]: bytes, or numbers in [−1, 1]; or latents, as the model's tokens are."""

    facts: Facts
    labels: Whole
    pixels: Array
    tokenizer: Tokenizer | None
    lengths: None = None

    @classmethod
    def of(
        cls,
        pixels: Array,
        labels: Array | None,
        architecture: Architecture,
        names: tuple[str, ...],
        tokenizer: Tokenizer | None,
    ) -> "Images":
        what = architecture
        latent = what.img_size // what.vae_stride
        shape = (what.vae_embed_dim, latent, latent)
        if tokenizer is not None:
            shape = (3, what.img_size, what.img_size)
        if pixels.ndim == 4 and pixels.shape[1:] != shape and pixels.shape[3] in (1, 3):
            pixels = pixels.transpose(0, 3, 1, 2)  # as ADM has them
        if pixels.ndim != 4 or pixels.shape[1:] != shape:
            allowed = f"allowed are [N, {', '.join(map(str, shape))}]"
            raise ArgumentError("data", f"images {list(pixels.shape)}", allowed)
        if pixels.dtype == np.uint8:
            if not what.makes_pixels:
                need_tokenizer(what, tokenizer)
        else:
            limit = 1.0 if what.makes_pixels or tokenizer is not None else None
            check_numbers(pixels, "images", limit)
        facts, whole = facts_of("images", pixels, labels, names)
        return cls(facts, whole, pixels, tokenizer)

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int, flip: bool) -> Floats:
        image = as_floats(self.pixels[index])
        return image[..., ::-1] if flip else image

    def finish(self, items: Tensor) -> Tensor:
        return items if self.tokenizer is None else latents_of(items, self.tokenizer)


@dataclass
class Sequences:
    """Sequences of vectors [N, L, C], of which the first `lengths` are there."""

    facts: Facts
    labels: Whole
    vectors: Floats
    lengths: Whole

    @classmethod
    def of(
        cls,
        vectors: Array,
        lengths: Array | None,
        labels: Array | None,
        architecture: Architecture,
    ) -> "Sequences":
        most, channels = architecture.seq_len, architecture.vae_embed_dim
        if vectors.ndim != 3 or vectors.shape[1] > most or vectors.shape[2] != channels:
            allowed = f"allowed are [N, up to {most}, {channels}]"
            raise ArgumentError("data", f"sequences {list(vectors.shape)}", allowed)
        count, longest, _ = vectors.shape
        whole = whole_numbers("lengths", np.full(count, longest) if lengths is None else lengths)
        if len(whole) != count:
            said = f"{len(whole)} lengths of {count} sequences"
            raise ArgumentError("lengths", said, "one for each is needed")
        wrong = np.flatnonzero((whole < 1) | (whole > longest))
        if len(wrong):
            said = f"sequence {wrong[0]} has the length {whole[wrong[0]]}"
            raise ArgumentError("lengths", said, f"allowed are 1 to {longest}")
        there = np.arange(longest) < whole[:, None]
        kept = np.where(there[..., None], vectors, 0)  # what lies behind an end may be anything
        check_numbers(kept, "sequences", None)
        facts, classes = facts_of("sequences", kept, labels, ())
        padded = np.zeros((count, most, channels), np.float32)
        padded[:, :longest] = kept
        return cls(facts, classes, padded, whole)

    def __len__(self) -> int:
        return len(self.vectors)

    def read(self, index: int, flip: bool) -> Floats:
        """[C, 1, L]: an image of one row."""
        return np.ascontiguousarray(self.vectors[index].T[:, None])

    def finish(self, items: Tensor) -> Tensor:
        return items


def open_array(
    path: Path,
    architecture: Architecture,
    labels: str | Path | None,
    tokenizer: Tokenizer | None,
) -> Data:
    """An .npz with `images` or `sequences` (and `labels`, `lengths`), or an .npy of images or
    sequences, mapped. ArgumentError names `data` or `labels`."""
    if path.suffix == ".npz":
        if labels is not None:
            raise ArgumentError("labels", f"{labels}; an .npz has its own", "allowed with an .npy")
        stored = read_npz(path)
    elif path.suffix == ".npy":
        name = SEQUENCES[0] if architecture.sequence else IMAGES[0]
        stored = {name: read_npy("data", path)}
        if labels is not None:
            stored[LABELS[0]] = read_npy("labels", Path(labels))
    else:
        raise ArgumentError("data", path, "allowed files are .npz and .npy")
    wanted = SEQUENCES if architecture.sequence else IMAGES
    given = _first(stored, wanted)
    if given is None:
        said = f"{path} has {', '.join(sorted(stored)) or 'nothing'}"
        raise ArgumentError("data", said, f"this model needs {wanted[0]}")
    if given.ndim and not len(given):
        raise ArgumentError("data", f"{path} is empty", "at least one item is needed")
    classes = _first(stored, LABELS)
    if architecture.sequence:
        return Sequences.of(given, stored.get("lengths"), classes, architecture)
    return Images.of(given, classes, architecture, (), tokenizer)


def _first(stored: dict[str, Array], names: tuple[str, ...]) -> Array | None:
    return next((stored[name] for name in names if name in stored), None)


def read_npz(path: Path) -> dict[str, Array]:
    """Arrays of numbers; no code in the file runs."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile's, zlib's and NumPy's own, of many kinds
        raise ArgumentError("data", f"{path}: not readable as .npz ({error})") from None


def read_npy(name: str, path: Path) -> Array:
    try:
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArgumentError(name, f"{path}: not readable as .npy ({error})") from None
    return mapped


def whole_numbers(name: str, given: Array) -> Whole:
    """An array [N] of integers."""
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        said = f"{given.dtype} {list(given.shape)}"
        raise ArgumentError(name, said, "allowed are whole numbers [N]")
    return given.astype(np.int64)


def check_numbers(values: Array, what: str, limit: float | None) -> None:
    """Raise ArgumentError unless they are finite floats, and within ±limit; it names the first."""
    if not np.issubdtype(values.dtype, np.floating):
        raise ArgumentError("data", f"{what} of {values.dtype}", "allowed are uint8 and floats")
    at_once = max(1, CHUNK // max(1, values[0].size))
    for first in range(0, len(values), at_once):
        chunk = values[first : first + at_once].reshape(-1, values[0].size)
        finite = np.isfinite(chunk).all(1)
        if not finite.all():
            item = first + int(np.flatnonzero(~finite)[0])
            said = f"{what}: item {item} has NaN or infinite values"
            raise ArgumentError("data", said, "allowed are finite numbers")
        if limit is not None and (worst := float(np.abs(chunk).max())) > limit:
            said = f"{what} have values up to {worst:g}"
            raise ArgumentError("data", said, f"allowed are -{limit:g} to {limit:g}, or bytes")


def facts_of(
    kind: str, values: Array, labels: Array | None, names: tuple[str, ...]
) -> tuple[Facts, Whole]:
    """What is remembered of an array, and its labels: all 0 where there are none."""
    count = len(values)
    classes = whole_numbers("labels", np.zeros(count, np.int64) if labels is None else labels)
    if len(classes) != count:
        said = f"{len(classes)} labels of {count} {kind}"
        raise ArgumentError("labels", said, "one for each is needed")
    digest = hashlib.sha256(repr((values.dtype.str, values.shape)).encode())
    at_once = max(1, CHUNK // max(1, values[0].size))
    for first in range(0, count, at_once):
        digest.update(values[first : first + at_once].tobytes())
    digest.update(classes.tobytes())
    return Facts(kind, count, names, digest.hexdigest()[:16]), classes
