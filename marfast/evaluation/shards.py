"""Shards of images as files: each written whole, and the same images give the same bytes."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from marfast.evaluation.run import Kind, Run
from marfast.image_files import as_picture
from marfast.pixels import Pixels

DIGITS = 9
"""Of an image's number in a name."""


UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow raises for files that are damaged, or aren't pictures."""


class UnreadableShard(ValueError):
    """A file that isn't the shard that it should be; the message names it."""


class Format(NamedTuple):
    """A way to keep the images `ids` [n, H, W, C] of a shard, made for these labels."""

    suffix: str
    write: Callable[[Path, range, Sequence[int], Pixels], None]
    read: Callable[[Path], Iterator[Pixels]]
    """Image by image, each [H, W, C]."""
    names: Callable[[Path], int]
    """How many images there are, from what can be told without decoding them."""


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    as_picture(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _decoded(file: Path | io.BytesIO) -> Pixels:
    with Image.open(file) as image:
        pixels: Pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _write_tar(path: Path, ids: range, labels: Sequence[int], pixels: Pixels) -> None:
    """As WebDataset reads it: of image i, i.png and i.cls."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for i, label, image in zip(ids, labels, pixels, strict=True):
            for suffix, data in (("png", _png(image)), ("cls", str(label).encode())):
                entry = tarfile.TarInfo(f"{i:0{DIGITS}}.{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def _read_tar(path: Path) -> Iterator[Pixels]:
    with tarfile.open(path, "r:") as archive:
        for entry in archive:
            if _is_image(entry):
                stored = archive.extractfile(entry)
                assert stored is not None
                yield _decoded(io.BytesIO(stored.read()))


def _count_tar(path: Path) -> int:
    with tarfile.open(path, "r:") as archive:
        return sum(map(_is_image, archive))


def _is_image(entry: tarfile.TarInfo) -> bool:
    return entry.isreg() and entry.name.endswith(".png")


def _write_npz(path: Path, ids: range, labels: Sequence[int], pixels: Pixels) -> None:
    """As ADM's evaluator reads it: arr_0 [n, H, W, C]; arr_1 are the labels."""
    with path.open("wb") as file:
        np.savez(file, pixels, np.asarray(labels, np.int64))


def _read_npz(path: Path) -> Iterator[Pixels]:
    with np.load(path, allow_pickle=False) as stored:
        yield from stored["arr_0"]


def _count_npz(path: Path) -> int:
    with np.load(path, allow_pickle=False) as stored:
        return len(stored["arr_1"])


def _write_folder(path: Path, ids: range, labels: Sequence[int], pixels: Pixels) -> None:
    path.mkdir()
    for i, label, image in zip(ids, labels, pixels, strict=True):
        (path / f"{i:0{DIGITS}}_class{label}.png").write_bytes(_png(image))


def _read_folder(path: Path) -> Iterator[Pixels]:
    yield from map(_decoded, sorted(path.glob("*.png")))


def _count_folder(path: Path) -> int:
    return len([*path.glob("*.png")])


FORMATS: dict[Kind, Format] = {
    "tar": Format(".tar", _write_tar, _read_tar, _count_tar),
    "npz": Format(".npz", _write_npz, _read_npz, _count_npz),
    "png": Format("", _write_folder, _read_folder, _count_folder),
}


def shard_files(folder: Path, run: Run) -> list[Path]:
    """Where a run's shards of images are, or will be."""
    suffix = FORMATS[run.kind].suffix
    return [folder / f"{shard:05}{suffix}" for shard in range(len(run.shards))]


JOINED = "images.npz"
"""All images of a run whose shards are .npz, in one."""


def join(folder: Path, run: Run, path: Path) -> None:
    """Write all images [count, H, W, C] as `arr_0` of one .npz, a shard at a time."""
    shape = (run.count, run.side, run.side, run.channels)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for shard, ids in zip(shard_files(folder, run), run.shards, strict=True):
            file.write(read_shard(shard, run, ids).tobytes())


def read_shard(file: Path, run: Run, ids: range) -> Pixels:
    """Its images [n, H, W, C]. UnreadableShard unless all are there and of their size."""
    with _readable(file):
        images = [*FORMATS[run.kind].read(file)]
        _check(file, len(images), len(ids))
        kinds = {(image.shape, str(image.dtype)) for image in images}
        if kinds != {((run.side, run.side, run.channels), "uint8")}:
            told = ", ".join(f"{dtype} {[*shape]}" for shape, dtype in sorted(kinds))
            raise UnreadableShard(f"{file}: images of {told}{_CURE}")
        return np.stack(images)


def check_shard(file: Path, run: Run, ids: range) -> None:
    """UnreadableShard where it can be told without decoding images."""
    with _readable(file):
        _check(file, FORMATS[run.kind].names(file), len(ids))


def _check(file: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise UnreadableShard(f"{file}: {found} images of {wanted}{_CURE}")


_DAMAGED = (
    *UNREADABLE,
    Image.DecompressionBombError,
    tarfile.TarError,
    zipfile.BadZipFile,
    AttributeError,  # from a bare .npy, or TypeError, as Python's version has it
    TypeError,
    KeyError,
    RuntimeError,  # from a zip's compression that isn't known, or encryption
)
"""What libraries raise for files that are damaged, or of another kind."""

_CURE = "; remove it, and the command that made it makes it anew"


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turns what libraries raise about a file's contents into UnreadableShard."""
    try:
        yield
    except UnreadableShard:
        raise
    except _DAMAGED as error:
        raise UnreadableShard(f"{file}: not readable ({error}){_CURE}") from None
