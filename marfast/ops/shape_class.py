"""Calls that are alike: what was found out for one of them holds for the others."""

import functools
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from marfast.ops.runtime import short_dtype

EXACT = 4
"""Sizes up to it are told apart."""


def precision(a: Iterable[object]) -> str:
    """What decides how products are computed: a half-precision dtype where there is one, else
    float64, else float32, or what the device's libraries take for that."""
    found = _dtypes(a)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        if dtype in found:
            return short_dtype(dtype)
    return float32_products()


def float32_products() -> str:
    """In what precision the device's libraries compute products of float32: that, or tf32."""
    matmul: Any = torch.backends.cuda.matmul
    told = getattr(matmul, "fp32_precision", None)  # torch 2.9; allow_tf32 raises once it was set
    rounded = matmul.allow_tf32 if told is None else told == "tf32"
    return "tf32" if rounded else "float32"


def shape_class(a: Sequence[object]) -> str:
    """The dtypes, options and shapes of bound arguments. Of a tensor of several sizes the last is
    taken as it is; for the others (rows, steps, positions) the next power of two stands. Of weights
    in a list, their number and the first and the last one's shapes count."""
    products = precision(a)
    dtypes = [products] if products == "tf32" else map(short_dtype, _dtypes(a))
    return _named("+".join(dtypes), tuple(map(_plain, a)))


def _dtypes(a: Iterable[object]) -> dict[torch.dtype, None]:
    """Of numbers, in the order in which they appear."""
    tensors = (tensor for value in a for tensor in _tensors(value))
    return {tensor.dtype: None for tensor in tensors if tensor.is_floating_point()}


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
