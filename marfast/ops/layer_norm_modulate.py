"""`layer_norm_modulate`: LayerNorm(x) (1 + scale) + shift, the LayerNorm affine or not."""

from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks, cuda, native, triton_backend
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import head

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def layer_norm_modulate(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """LayerNorm over the last dimension, then the modulation of adaLN.

    Args:
        x: [R, w] float32, bfloat16 or float16 (float64: plain PyTorch only).
        shift, scale: [R, w], x's dtype; expanded rows (stride 0) are read in place.
        weight, bias: [w], x's dtype, or None.
        eps: added to the variance.

    Returns:
        [R, w], x's dtype, computed in float32. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: Peebles & Xie 2023 (arXiv 2212.09748), as in the head of MAR (arXiv 2406.11838).
    """
    return _OP(x, shift, scale, weight, bias, eps)


def _check(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> None:
    rows, width = checks.first("x", x, "R, w", _DTYPES)
    if width == 0:
        raise ValueError(f"x has shape [{rows}, 0]; its rows must have at least one element")
    own = (x.dtype,)
    checks.like("shift", shift, "R, w", (rows, width), own, x)
    checks.like("scale", scale, "R, w", (rows, width), own, x)
    if weight is not None:
        checks.like("weight", weight, "w", (width,), own, x)
    if bias is not None:
        checks.like("bias", bias, "w", (width,), own, x)


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """128 rows of MAR-B's head (w = 1024), affine."""
    rows, width = 128, 1024
    source = generator.device
    draw = torch.randn(3, rows, width, generator=generator, device=source).to(device, dtype)
    affine = torch.randn(2, width, generator=generator, device=source).to(device, dtype)
    return (*draw.unbind(), *affine.unbind(), 1e-6)


def _can_run_cpu(x: Tensor, *_: Any) -> Verdict:
    return native.can_run({"x": x}, tuple(native.DTYPE_CODES))


def _run_cpu(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    rows, width = x.shape
    x, shift, scale = native.rows(x), native.rows(shift), native.rows(scale)
    weight = None if weight is None else native.rows(weight)
    bias = None if bias is None else native.rows(bias)
    out = x.new_empty((rows, width))
    native.extension().layer_norm_modulate(
        out.data_ptr(),
        x.data_ptr(),
        shift.data_ptr(),
        scale.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        rows,
        width,
        x.stride(0),
        shift.stride(0),
        scale.stride(0),
        native.DTYPE_CODES[x.dtype],
        eps,
    )
    return out


def _can_run_triton(x: Tensor, *_: Any) -> Verdict:
    return triton_backend.can_run({"x": x}, width=x.shape[1])


def _can_run_cuda(x: Tensor, *_: Any) -> Verdict:
    return cuda.can_run({"x": x}, tuple(native.DTYPE_CODES))


def _run_cuda(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    rows = [native.rows(tensor) for tensor in (x, shift, scale)]
    affine = [None if tensor is None else native.rows(tensor) for tensor in (weight, bias)]
    out = x.new_empty(x.shape)
    cuda.call(
        *("layer_norm_modulate", x.device, out.data_ptr()),
        *(tensor.data_ptr() for tensor in rows),
        *(0 if tensor is None else tensor.data_ptr() for tensor in affine),
        *x.shape,
        *(tensor.stride(0) for tensor in rows),
        *[cuda.code(x.dtype)] * 3,
        eps,
    )
    return out


_OP = Op(
    "layer_norm_modulate(Tensor x, Tensor shift, Tensor scale, Tensor? weight=None, "
    "Tensor? bias=None, float eps=1e-6) -> Tensor",
    check=_check,
    fake=_fake,
    reference=head.layer_norm_modulate,
    example=_example,
    backends=[
        Backend("cuda", _can_run_cuda, _run_cuda, on_request=True),
        triton_backend.backend("layer_norm_modulate", _can_run_triton),
        Backend("cpu", _can_run_cpu, _run_cpu),
    ],
)
