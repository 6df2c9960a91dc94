"""What users give to a generation, checked and in one form each."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from marfast.errors import ArgumentError, check_whole

Labels = int | str | Sequence[int | str | None] | npt.NDArray[Any] | Tensor
Seed = int | Sequence[int] | npt.NDArray[Any] | Tensor | None
Images = Tensor | npt.NDArray[Any]

NAMES_SHOWN = 20
"""Of classes, in a message."""


def check_labels(labels: Labels, classes: int, names: Sequence[str] = ()) -> Tensor:
    """Class indices [B], −1 for no class; `names` are the classes', where they are known."""
    listed = listed_values(labels)
    values = listed if isinstance(listed, list) else [listed]
    if not values:
        raise ArgumentError("labels", "none given", "at least one is needed")
    most = classes - 1
    known = {plain(name): i for i, name in reversed([*enumerate(names[:classes])])}
    allowed = f"allowed are 0 to {most}{told_names(names)}, or None"

    def index(value: Any) -> int:
        if isinstance(value, str) and plain(value) in known:
            return known[plain(value)]
        return -1 if value is None else check_whole("labels", value, 0, most, allowed)

    return torch.tensor([*map(index, values)], dtype=torch.int64, device="cpu")


def labels_of(indices: Tensor) -> list[int | None]:
    """What `check_labels` made indices [B] of."""
    return [None if index < 0 else index for index in indices.tolist()]


def plain(name: str) -> str:
    """A class's name, whatever the case, and whether words are parted by spaces, hyphens or
    underscores."""
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


def told_names(names: Sequence[str]) -> str:
    """For a message."""
    if len(names) > NAMES_SHOWN:
        return f", a name out of the {len(names)} in the model's config.json"
    return "".join(f", {name}" for name in names)


def check_labels_of(
    images: int, labels: Labels | None, classes: int, names: Sequence[str] = ()
) -> Tensor:
    """Class indices [images]: one for each, or one for all (None: no class)."""
    listed = listed_values(labels)
    values = listed if isinstance(listed, list) else [listed] * images
    if len(values) != images:
        given = f"{len(values)} labels for {images} images"
        raise ArgumentError("labels", given, "one for each, or one for all, is needed")
    return check_labels(values, classes, names)


def check_seeds(seed: Seed, batch: int) -> int | list[int] | None:
    listed = listed_values(seed)
    if listed is None:
        return None
    allowed = "allowed are whole numbers from 0 to 2^32 - 1"
    if not isinstance(listed, list):
        return check_whole("seed", listed, 0, 2**32 - 1, allowed)
    if len(listed) != batch:
        given = f"{len(listed)} seeds for {batch} labels"
        raise ArgumentError("seed", given, "one for each is needed")
    return [check_whole("seed", value, 0, 2**32 - 1, allowed) for value in listed]


def listed_values(given: Any) -> Any:
    """A list, where one is given in any form; NumPy's and torch's numbers as Python's."""
    given = given.tolist() if hasattr(given, "tolist") else given
    return [*given] if isinstance(given, Iterable) and not isinstance(given, str) else given


def check_tensor(name: str, given: Any, shapes: Sequence[Sequence[int | str]]) -> Tensor:
    """A tensor [B, …], float32 and finite, of one of these shapes, in which a word stands for any
    size."""
    allowed = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes)
    tensor = _tensor(name, given, f"allowed are tensors {allowed}")
    if not tensor.is_floating_point():
        raise ArgumentError(name, tensor.dtype, "allowed are floating-point numbers")
    if tensor.dim() and not len(tensor):
        raise ArgumentError(name, "none given", "at least one is needed")
    if not any(_fits(tensor.shape, shape) for shape in shapes):
        raise ArgumentError(name, f"shape {list(tensor.shape)}", f"allowed are {allowed}")
    if not tensor.numel():
        raise ArgumentError(name, f"shape {list(tensor.shape)}", "allowed are sizes from 1")
    if not bool(tensor.isfinite().all()):
        raise ArgumentError(name, "NaN or infinite values", "allowed are finite numbers")
    return tensor.detach().float()


def check_range(name: str, tensor: Tensor) -> None:
    """Raise ArgumentError unless all values are in [−1, 1]."""
    least, most = (float(end) for end in tensor.aminmax())
    if least < -1 or most > 1:
        raise ArgumentError(name, f"values from {least:g} to {most:g}", "allowed are -1 to 1")


def check_mask(given: Any, shapes: Sequence[Sequence[int]]) -> Tensor:
    """What is nonzero in a mask of one of these shapes: bool, on the CPU, in its own shape."""
    allowed = " or ".join(str([*shape]) for shape in shapes)
    tensor = _tensor("mask", given, f"allowed are tensors {allowed}")
    if tuple(tensor.shape) not in map(tuple, shapes):
        raise ArgumentError("mask", f"shape {list(tensor.shape)}", f"allowed are {allowed}")
    if bool((tensor != tensor).any()):
        raise ArgumentError("mask", "NaN values", "allowed are numbers; nonzero is made anew")
    return (tensor != 0).cpu()


def check_amount(name: str, given: Any, rows: int, side: int) -> int:
    """How far an edit goes: tokens to `grow` by, of `rows` in a column, or pixels of a `feather` or
    an `overlap`, of `side` along an image."""
    least, most = {"grow": (0, rows), "feather": (0, side), "overlap": (1, side - 1)}[name]
    return check_whole(name, given, least, most, f"allowed are {least} to {most}")


def _tensor(name: str, given: Any, allowed: str) -> Tensor:
    if isinstance(given, Tensor):
        return given
    try:
        if isinstance(given, np.ndarray):
            return torch.from_numpy(given)
    except TypeError:  # of no dtype that torch has
        pass
    raise ArgumentError(name, getattr(given, "dtype", type(given).__name__), allowed)


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(size, str) or own == size for own, size in zip(shape, wanted, strict=True)
    )
