"""`denoise`: the whole head (SimpleMLPAdaLN) once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks, cuda, native, triton_backend
from marfast.ops.head import (
    HeadShape,
    device_time_embedding,
    example_weights,
    packed_head,
    time_embedding,
)
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import head

GROUP = 128  # rows whose modulation is kept at a time


def denoise(
    x: Tensor, t: Tensor, cond: Tensor, weights: Sequence[Tensor], packed: Tensor | None = None
) -> Tensor:
    """ε and the variance fraction v of noisy tokens, each at a timestep of its own.

    Args:
        x: [R, C] float32, bfloat16 or float16 (float64: plain PyTorch only), the noisy tokens.
        t: [R] int64 or float32, the timesteps, of the 1000 that the head was trained with.
        cond: [R, D], x's dtype, the condition vectors z.
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order; x's dtype, bfloat16 or
            float16. With bfloat16, what enters a product is rounded to it, too; all else stays
            float32.
        packed: `ops.pack_head(weights)`, to save packing them in each call.

    Returns:
        [R, 2C], x's dtype: ε, then v. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: MAR (arXiv 2406.11838), section 3.2 and appendix; LTH14/mar's `SimpleMLPAdaLN.forward`.
    """
    return _OP(x, t, cond, list(weights), packed)


def _check(
    x: Tensor, t: Tensor, cond: Tensor, weights: Sequence[Tensor], packed: Tensor | None
) -> None:
    shape = HeadShape.of(weights)
    rows, _ = checks.first("x", x, "R, C", (*native.WEIGHTS, torch.float64))
    checks.like("x", x, "R, C", (rows, shape.channels), (x.dtype,), x)
    checks.like("t", t, "R", (rows,), (torch.int64, torch.float32), x)
    checks.like("cond", cond, "R, D", (rows, shape.condition), (x.dtype,), x)
    first, allowed = weights[0], (x.dtype, torch.bfloat16, torch.float16)
    checks.like("weights[0]", first, "outputs, inputs", first.shape, allowed, x)
    checks.packed(packed, x)


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty((x.shape[0], 2 * x.shape[1]), dtype=x.dtype, device=x.device)


def _reference(*args: Any) -> Tensor:
    x: Tensor = args[0]
    return head.denoise(*args[:-1]).to(x.dtype)


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """6 rows of 16 channels, 2 blocks 96 wide; dtype is the weights'."""
    rows, shape = 6, HeadShape(16, condition=64, width=96, depth=2, frequencies=256)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, device=generator.device).to(device)

    t = torch.randint(0, 1000, (rows,), generator=generator, device=generator.device).to(device)
    weights = example_weights(shape, dtype, device, generator)
    return (draw(rows, shape.channels), t, draw(rows, shape.condition), weights, None)


def _can_run_cpu(
    x: Tensor, t: Tensor, cond: Tensor, weights: Sequence[Tensor], packed: Tensor | None
) -> Verdict:
    return native.can_run({"x": x, "weights": weights[0]}, native.WEIGHTS)


def _run_cpu(
    x: Tensor, t: Tensor, cond: Tensor, weights: Sequence[Tensor], packed: Tensor | None
) -> Tensor:
    shape = HeadShape.of(weights)
    extension = native.extension()
    packed = packed_head(weights, shape, packed)
    x32, cond = x.float().contiguous(), cond.float().contiguous()
    rows = x.shape[0]
    group = min(rows, GROUP)
    workspace = native.empty(extension.denoise_workspace(shape, group))
    out = x32.new_empty((rows, 2 * shape.channels))
    for first in range(0, rows, group or 1):
        members = slice(first, min(rows, first + group))
        embedding = time_embedding(tuple(t[members].tolist()), shape.frequencies)
        extension.denoise(
            *(tensor[members].data_ptr() for tensor in (out, x32, cond)),
            embedding.data_ptr(),
            packed.data_ptr(),
            workspace.data_ptr(),
            shape,
            members.stop - members.start,
            native.packed_code(weights[0].dtype),
            native.threads(),
        )
    return out.to(x.dtype)


def _can_run_triton(
    x: Tensor, t: Tensor, cond: Tensor, weights: Sequence[Tensor], *_: Any
) -> Verdict:
    width = weights[0].shape[0]
    return triton_backend.can_run({"x": x, "weights": weights[0]}, width=width)


def _can_run_cuda(
    x: Tensor, t: Tensor, cond: Tensor, weights: Sequence[Tensor], packed: Tensor | None
) -> Verdict:
    return cuda.can_run({"x": x, "weights": weights[0]}, native.WEIGHTS)


def _run_cuda(
    x: Tensor, t: Tensor, cond: Tensor, weights: Sequence[Tensor], packed: Tensor | None
) -> Tensor:
    shape, rows, dtype = HeadShape.of(weights), x.shape[0], weights[0].dtype
    embedding = device_time_embedding(t, shape.frequencies)
    inputs = [tensor.to(dtype).contiguous() for tensor in (x, cond, embedding)]
    dense = [weight.contiguous() for weight in weights]
    out = torch.empty((rows, 2 * shape.channels), dtype=torch.float32, device=x.device)
    # time, condition, x, the modulation; normed, hidden, activated
    sizes = (3 * shape.depth + 5, rows, shape.width)
    floats = torch.empty(sizes, dtype=torch.float32, device=x.device)
    elements = torch.empty((3, rows, shape.width), dtype=dtype, device=x.device)
    cuda.call(
        *("denoise", x.device, out.data_ptr()),
        *(tensor.data_ptr() for tensor in inputs),
        [weight.data_ptr() for weight in dense],
        floats.data_ptr(),
        elements.data_ptr(),
        list(shape),
        rows,
        cuda.code(dtype),
    )
    return out.to(x.dtype)


_OP = Op(
    "denoise(Tensor x, Tensor t, Tensor cond, Tensor[] weights, Tensor? packed=None) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_reference,
    example=_example,
    backends=[
        Backend("cuda", _can_run_cuda, _run_cuda, on_request=True),
        triton_backend.backend("denoise", _can_run_triton),
        Backend("cpu", _can_run_cpu, _run_cpu),
    ],
)
