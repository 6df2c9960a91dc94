"""Calls that are alike: what was found out for one of them holds for the others."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from marfast.ops.runtime import short_dtype

EXACT = 4
"""Sizes up to it are told apart."""


def product_dtype(a: Sequence[object]) -> torch.dtype:
    """What decides how products are computed: a half-precision dtype where there is one."""
    found = {leaf.dtype for leaf in tree_leaves(tuple(a)) if isinstance(leaf, Tensor)}
    for half in (torch.bfloat16, torch.float16):
        if half in found:
            return half
    return torch.float32


def shape_class(a: Sequence[object]) -> str:
    """The dtype, options and shapes of bound arguments. Of a tensor's sizes the last is taken as it
    is; for the others (rows, steps, positions) the next power of two stands."""
    parts = [short_dtype(product_dtype(a)), *filter(None, map(_of, a))]
    return " ".join(parts)


def _of(value: object) -> str:
    if isinstance(value, Tensor):
        *counts, last = value.shape or (1,)
        return "x".join(map(str, [*map(_rounded, counts), last]))
    if isinstance(value, list):  # weights: their number tells depth, the ends tell width
        return f"{len(value)}({_of(value[0])}..{_of(value[-1])})" if value else "0"
    if isinstance(value, float):  # a number that enters the arithmetic, and no choice
        return ""
    return "-" if value is None else str(value)


def _rounded(size: int) -> int:
    return size if size <= EXACT else 1 << (size - 1).bit_length()
