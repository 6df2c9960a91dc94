"""The real images that generated ones are held against: their statistics, in the field's files."""

import hashlib
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marfast.checkpoints.pth import check_torch
from marfast.errors import ArgumentError, MissingFile
from marfast.evaluation.frechet import Gaussian
from marfast.evaluation.judges import Judge
from marfast.evaluation.sums import MANIFOLD
from marfast.pixels import Pixels


@dataclass(frozen=True)
class Reference:
    """Mean and covariance of real features and, for precision and recall, features [m, D]."""

    name: str
    gaussian: Gaussian
    features: Tensor | None = None


def read_statistics(file: str | Path, judge: Judge) -> Reference:
    """`mu` and `sigma`: an .npz, as LTH14/mar's fid_stats and ADM's reference batches are, or a .pt
    of torch-fidelity's cache. The first images of an .npz that has some (`arr_0`, ADM's) are judged
    for precision and recall.

    Raises ArgumentError, naming `statistics`.
    """
    path = Path(file)
    if not path.is_file():
        raise MissingFile("statistics", f"{file}: no such file")
    try:
        stored = _read_pt(path) if path.suffix in (".pt", ".pth") else _read_npz(path)
        mu, sigma = (torch.from_numpy(np.asarray(stored[key], np.float64)) for key in _KEYS)
    except _UNREADABLE as error:
        raise _wrong(file, str(error).partition("\n")[0]) from None
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise _wrong(file, f"mu is {list(mu.shape)}, sigma {list(sigma.shape)}")
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise _wrong(file, "values that are not finite")
    images = stored.get("arr_0")
    features = None if images is None else judge(_checked(file, images)).features.float()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return Reference(f"{path.name} ({digest})", Gaussian(mu, sigma), features)


_KEYS = ("mu", "sigma")
_UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, AttributeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy and torch raise for files that are damaged, or of another kind."""


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as stored:
        wanted = [*_KEYS, *(name for name in ("arr_0",) if name in stored)]
        return {name: stored[name] for name in wanted}


def _read_pt(path: Path) -> dict[str, Any]:
    """A pickled dictionary of NumPy's arrays, of which nothing else is allowed to be made."""
    check_torch("any torch reads an .npz")
    rebuild = np.zeros(0).__reduce__()[0]
    makers: list[Any] = [np.ndarray, np.dtype, type(np.dtype("f8")), type(np.dtype("f4"))]
    names = [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]
    makers += [(rebuild, name) for name in names]
    with torch.serialization.safe_globals(makers):
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return stored


def _checked(file: str | Path, images: Any) -> Pixels:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise _wrong(file, f"arr_0 is {images.dtype} {list(images.shape)}, not images")
    pixels: Pixels = images[:MANIFOLD]
    return pixels


def _wrong(file: str | Path, said: str) -> ArgumentError:
    allowed = "allowed are an .npz with mu and sigma, or torch-fidelity's .pt"
    return ArgumentError("statistics", f"{file}: {said}", allowed)
