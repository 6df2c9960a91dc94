"""`adaln_mlp`: one residual block of the head, x + gate (W₂ SiLU(W₁ modulate(LN(x)) + b₁) + b₂)."""

import math
from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks, cuda, native
from marfast.ops.fused_linear import pack_linear
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import head

GROUP = 128  # rows whose hidden values stay in cache
PANEL = 32  # outputs of a panel (csrc/cpu/packed_linear.h)


def adaln_mlp(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float = 1e-6,
    packed: Tensor | None = None,
) -> Tensor:
    """A residual block of MAR's head, conditioned through adaptive LayerNorm.

    Args:
        x: [R, w] float32, bfloat16 or float16 (float64: plain PyTorch only).
        shift, scale, gate: [R, w], x's dtype, the three parts of the block's adaLN modulation in
            MAR's order.
        ln_weight, ln_bias: [w], x's dtype, of the LayerNorm.
        w1, b1, w2, b2: [w, w], [w], [w, w], [w], of the MLP: x's dtype, bfloat16 or float16. With
            bfloat16, what enters a product is rounded to it, too; all else stays float32.
        eps: of the LayerNorm.
        packed: `pack_adaln_mlp(w1, b1, w2, b2)`, to save packing them in each call.

    Returns:
        [R, w], x's dtype. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: Peebles & Xie 2023 (arXiv 2212.09748, section 3.2), as in the head of MAR
    (arXiv 2406.11838; LTH14/mar's `ResBlock`).
    """
    return _OP(x, shift, scale, gate, ln_weight, ln_bias, w1, b1, w2, b2, eps, packed)


def pack_adaln_mlp(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """A block's MLP weights as the CPU's `adaln_mlp` reads them: opaque, tied to these values.

    Takes what `pack_linear` takes, and raises what it raises -> [size] float32.
    """
    return torch.cat([pack_linear(w1, b1), pack_linear(w2, b2)])


def _check(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float,
    packed: Tensor | None,
) -> None:
    rows, width = checks.first("x", x, "R, w", (*native.WEIGHTS, torch.float64))
    if width == 0:
        raise ValueError(f"x has shape [{rows}, 0]; its rows must have at least one element")
    own, weights = (x.dtype,), (x.dtype, torch.bfloat16, torch.float16)
    for name, given in (("shift", shift), ("scale", scale), ("gate", gate)):
        checks.like(name, given, "R, w", (rows, width), own, x)
    for name, given in (("ln_weight", ln_weight), ("ln_bias", ln_bias)):
        checks.like(name, given, "w", (width,), own, x)
    checks.like("w1", w1, "w, w", (width, width), weights, x)
    checks.like("w2", w2, "w, w", (width, width), (w1.dtype,), x)
    for name, given in (("b1", b1), ("b2", b2)):
        checks.like(name, given, "w", (width,), (w1.dtype,), x)
    checks.packed(packed, x)


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _reference(*args: Any) -> Tensor:
    result: Tensor = head.adaln_mlp(*args[:-1])
    return result.to(args[0].dtype)


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """8 rows of a block of MAR-B's head (w = 1024); dtype is the MLP's."""
    rows, width = 8, 1024

    def draw(*sizes: int) -> Tensor:
        drawn = torch.randn(sizes, generator=generator, device=generator.device)
        return (drawn * math.sqrt(1 / sizes[-1])).to(device)

    rows_of_x = [draw(rows, width) * math.sqrt(width) for _ in range(4)]
    mlp = [draw(*sizes).to(dtype) for sizes in ((width, width), (width,)) * 2]
    return (*rows_of_x, draw(width) + 1, draw(width), *mlp, 1e-6)


def _can_run_cpu(x: Tensor, *args: Any) -> Verdict:
    w1: Tensor = args[5]
    return native.can_run({"x": x, "w1": w1}, native.WEIGHTS)


def _run_cpu(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float,
    packed: Tensor | None,
) -> Tensor:
    rows, width = x.shape
    extension, code = native.extension(), native.packed_code(w1.dtype)
    if packed is None:
        packed = pack_adaln_mlp(w1, b1, w2, b2)
    if packed.shape != (2 * extension.packed_linear_size(width, width, code),):
        raise ValueError("packed: it is not what ops.pack_adaln_mlp returns for this block")
    inputs = [native.rows(tensor.float()) for tensor in (x, shift, scale, gate)]
    affine = [native.rows(tensor.float()) for tensor in (ln_weight, ln_bias)]
    group = min(GROUP, rows)
    workspace = native.empty(2, group, -(-width // PANEL) * PANEL + PANEL)
    out = inputs[0].new_empty((rows, width))
    extension.adaln_mlp(
        out.data_ptr(),
        *(tensor.data_ptr() for tensor in (*inputs, *affine)),
        packed.data_ptr(),
        workspace.data_ptr(),
        rows,
        width,
        group,
        *(tensor.stride(0) for tensor in inputs),
        code,
        native.threads(),
        eps,
    )
    return out.to(x.dtype)


def _can_run_cuda(x: Tensor, *args: Any) -> Verdict:
    w1: Tensor = args[5]
    return cuda.can_run({"x": x, "w1": w1}, native.WEIGHTS)


def _run_cuda(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float,
    packed: Tensor | None,
) -> Tensor:
    inputs = [native.rows(tensor.float()) for tensor in (x, shift, scale, gate)]
    affine = [native.rows(tensor.float()) for tensor in (ln_weight, ln_bias)]
    mlp = [tensor.contiguous() for tensor in (w1, b1, w2, b2)]
    out = inputs[0].new_empty(x.shape)
    normed, hidden = (torch.empty(x.shape, dtype=w1.dtype, device=x.device) for _ in range(2))
    cuda.call(
        *("adaln_mlp", x.device),
        *(tensor.data_ptr() for tensor in (out, *inputs, *affine, *mlp, normed, hidden)),
        *x.shape,
        *(tensor.stride(0) for tensor in inputs),
        cuda.code(torch.float32),
        cuda.code(w1.dtype),
        eps,
    )
    return out.to(x.dtype)


_OP = Op(
    "adaln_mlp(Tensor x, Tensor shift, Tensor scale, Tensor gate, Tensor ln_weight, "
    "Tensor ln_bias, Tensor w1, Tensor b1, Tensor w2, Tensor b2, float eps=1e-6, "
    "Tensor? packed=None) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_reference,
    example=_example,
    backends=[
        Backend("cuda", _can_run_cuda, _run_cuda, on_request=True),
        Backend("cpu", _can_run_cpu, _run_cpu),
    ],
)
