"""Calls that are alike: what was found out for one of them holds for the others."""

import functools
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from marfast.ops.runtime import short_dtype

EXACT = 4
"""Sizes up to it are told apart."""


def product_dtype(a: Iterable[object]) -> torch.dtype:
    """What decides how products are computed: a half-precision dtype where there is one."""
    found = {tensor.dtype for value in a for tensor in _tensors(value)}
    for half in (torch.bfloat16, torch.float16):
        if half in found:
            return half
    return torch.float32


def shape_class(a: Sequence[object]) -> str:
    """The dtype, options and shapes of bound arguments. Of a tensor of several sizes the last is
    taken as it is; for the others (rows, steps, positions) the next power of two stands. Of weights
    in a list, their number and the first and the last one's shapes count."""
    return _named(short_dtype(product_dtype(a)), tuple(map(_plain, a)))


def _tensors(value: object) -> Sequence[Tensor]:
    """One, or of a list, whose tensors have one dtype, its ends."""
    if isinstance(value, Tensor):
        return (value,)
    return (value[0], value[-1]) if isinstance(value, list) and value else ()


def _plain(value: object) -> Hashable:
    if isinstance(value, Tensor):
        return value.shape
    if isinstance(value, list):
        return len(value), *(tensor.shape for tensor in _tensors(value))
    if isinstance(value, float):  # a number that enters the arithmetic, and no choice
        return ""
    return "-" if value is None else str(value)


@functools.lru_cache(maxsize=1024)
def _named(dtype: str, plain: tuple[Any, ...]) -> str:
    return " ".join(filter(None, (dtype, *map(_name, plain))))


def _name(plain: Any) -> str:
    if isinstance(plain, str):
        return plain
    if isinstance(plain, torch.Size):
        counts, last = (plain[:-1], plain[-1:]) if len(plain) > 1 else (plain, ())
        return "x".join(map(str, (*map(_rounded, counts), *last)))
    number, *ends = plain
    return f"{number}({'..'.join('x'.join(map(str, shape)) for shape in ends)})"


def _rounded(size: int) -> int:
    return size if size <= EXACT else 1 << (size - 1).bit_length()
