"""Checks of an op's arguments: each raises one error that names the argument, what it was given
and what is allowed."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from marfast.ops.runtime import short_dtype


def first(
    name: str, given: Tensor, letters: str, allowed: Sequence[torch.dtype]
) -> tuple[int, ...]:
    """The sizes of a tensor of one of the `allowed` dtypes; `letters` names them: "R, w"."""
    if given.dtype not in allowed:
        _bad_dtype(name, given, allowed)
    if given.dim() != len(letters.split(", ")):
        raise ValueError(f"{name} has shape {list(given.shape)}; it must be [{letters}]")
    return tuple(given.shape)


def like(
    name: str,
    given: Tensor,
    letters: str,
    shape: tuple[int, ...],
    dtypes: Sequence[torch.dtype],
    x: Tensor,
    reference: str = "x",
) -> None:
    """`given` has this shape (`letters` names the sizes), one of these dtypes, and the device of x,
    the argument named `reference`."""
    if given.shape == shape and given.dtype in dtypes and given.device == x.device:
        return
    if given.shape != shape:
        raise ValueError(
            f"{name} has shape {list(given.shape)}; it must be [{letters}] = {list(shape)}"
        )
    if given.dtype not in dtypes:
        _bad_dtype(name, given, dtypes)
    raise ValueError(f"{name} is on {given.device}; it must be on {x.device}, as {reference} is")


def packed(given: Tensor | None, x: Tensor, reference: str = "x") -> None:
    """What a pack function returned, as far as it can be told: a dense float32 vector beside x."""
    if given is not None:
        size = (given.numel(),)
        like("packed", given, "size", size, (torch.float32,), x, reference)
        if not given.is_contiguous():
            raise ValueError("packed: it is not contiguous, as what the pack function returns is")


def _bad_dtype(name: str, given: Tensor, allowed: Sequence[torch.dtype]) -> NoReturn:
    names = " or ".join(dict.fromkeys(map(short_dtype, allowed)))
    raise TypeError(f"{name} has dtype {short_dtype(given.dtype)}; it must be {names}")
