"""`fused_linear`: residual + act(LN(x) Wᵀ + b), the four products of a transformer block."""

import math
from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks, native
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import transformer

PANEL = 32  # outputs of a panel (csrc/cpu/linear.h)
SCRATCH = 1 << 17  # floats of rows that a thread keeps in its cache
MOST_ROWS = 56  # taken at a time


def fused_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    residual: Tensor | None = None,
    gelu: bool = False,
    eps: float = 1e-6,
    packed: Tensor | None = None,
) -> Tensor:
    """A linear layer with what stands round it in a transformer block.

    Args:
        x: [R, K] float32 (float64, bfloat16, float16: plain PyTorch only).
        weight, bias: [J, K] and [J], x's dtype.
        norm_weight, norm_bias: [K], of a LayerNorm over x's rows; both or none.
        residual: [R, J], added last.
        gelu: GELU (arXiv 1606.08415, not its tanh approximation) after the bias.
        eps: of the LayerNorm.
        packed: `pack_linear(weight, bias)`, to save packing them in each call.

    Returns:
        [R, J], x's dtype. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.
    """
    return _OP(x, weight, bias, norm_weight, norm_bias, residual, gelu, eps, packed)


def pack_linear(weight: Tensor, bias: Tensor) -> Tensor:
    """weight [J, K] and bias [J], float32, as the CPU's `fused_linear` reads them: one float32
    tensor, panels [ceil(J / 32), K, 32] and the bias, zeros beyond J."""
    outputs, inputs = checks.first("weight", weight, "J, K", (torch.float32,))
    checks.like("bias", bias, "J", (outputs,), (torch.float32,), weight, reference="weight")
    panels = -(-outputs // PANEL)
    packed = native.empty(panels * PANEL * (inputs + 1)).zero_()
    padded = native.empty(panels * PANEL, inputs).zero_()
    padded[:outputs] = weight.detach()
    body = packed[: panels * PANEL * inputs].view(panels, inputs, PANEL)
    body.copy_(padded.view(panels, PANEL, inputs).transpose(1, 2))
    packed[body.numel() : body.numel() + outputs] = bias.detach()
    return packed


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    residual: Tensor | None,
    gelu: bool,
    eps: float,
    packed: Tensor | None,
) -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    rows, inputs = checks.first("x", x, "R, K", dtypes)
    outputs = weight.shape[0] if weight.dim() else 0
    own = (x.dtype,)
    if inputs == 0 or outputs == 0:
        raise ValueError(f"weight has shape {list(weight.shape)}; sizes from 1 are allowed")
    checks.like("weight", weight, "J, K", (outputs, inputs), own, x)
    checks.like("bias", bias, "J", (outputs,), own, x)
    if (norm_weight is None) != (norm_bias is None):
        raise ValueError("norm_weight and norm_bias: both or none are needed")
    for name, given in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if given is not None:
            checks.like(name, given, "K", (inputs,), own, x)
    if residual is not None:
        checks.like("residual", residual, "R, J", (rows, outputs), own, x)
    if packed is not None:
        size = -(-outputs // PANEL) * PANEL * (inputs + 1)
        checks.like("packed", packed, "size", (size,), (torch.float32,), x)
        checks.packed(packed, x)


def _fake(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return torch.empty((x.shape[0], weight.shape[0]), dtype=x.dtype, device=x.device)


def _reference(*args: Any) -> Tensor:
    result: Tensor = transformer.fused_linear(*args[:-1])
    return result


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """The first half of MAR-B's MLP (768 -> 3072) for 96 rows, with LayerNorm and GELU."""
    rows, inputs, outputs = 96, 768, 3072

    def draw(*sizes: int) -> Tensor:
        drawn = torch.randn(sizes, generator=generator, device=generator.device)
        return (drawn * math.sqrt(1 / sizes[-1])).to(device, dtype)

    vectors = (draw(inputs) + 1, draw(inputs))
    return (draw(rows, inputs) * 30, draw(outputs, inputs), draw(outputs), *vectors, None, True)


def _can_run_cpu(x: Tensor, *_: Any) -> Verdict:
    return native.can_run({"x": x})


def _run_cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    residual: Tensor | None,
    gelu: bool,
    eps: float,
    packed: Tensor | None,
) -> Tensor:
    rows, inputs = x.shape
    outputs = weight.shape[0]
    packed = pack_linear(weight, bias) if packed is None else packed
    x = native.rows(x)
    residual = None if residual is None else native.rows(residual)
    norm = [None if t is None else native.rows(t) for t in (norm_weight, norm_bias)]
    stride = -(-inputs // PANEL) * PANEL + PANEL
    group = min(MOST_ROWS, max(14, SCRATCH // stride))
    threads = native.threads()
    workspace = native.empty(threads * group * stride)
    out = x.new_empty((rows, outputs))
    native.extension().fused_linear(
        out.data_ptr(),
        x.data_ptr(),
        packed.data_ptr(),
        *(0 if t is None else t.data_ptr() for t in (*norm, residual)),
        workspace.data_ptr(),
        rows,
        inputs,
        outputs,
        -(-outputs // PANEL),
        group,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        stride,
        threads,
        gelu,
        eps,
    )
    return out


_OP = Op(
    "fused_linear(Tensor x, Tensor weight, Tensor bias, Tensor? norm_weight=None, "
    "Tensor? norm_bias=None, Tensor? residual=None, bool gelu=False, float eps=1e-6, "
    "Tensor? packed=None) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_reference,
    example=_example,
    backends=[Backend("cpu", _can_run_cpu, _run_cpu)],
)
