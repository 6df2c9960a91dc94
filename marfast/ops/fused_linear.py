"""`fused_linear`: residual + act(LN(x) Wᵀ + b), the four products of a transformer block."""

import math
from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks, native, triton_backend
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import transformer

PANEL = 32  # outputs of a panel (csrc/cpu/packed_linear.h)
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
        weight, bias: [J, K] and [J], x's dtype, bfloat16 or float16. With bfloat16, what enters the
            product is rounded to it, too; all else stays x's dtype.
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
    """A linear layer's weights as the CPU's kernels read them: opaque, tied to these values.

    Args:
        weight, bias: [J, K] and [J], of one dtype: float32 or bfloat16, or float16, which is packed
            as float32.

    Returns:
        [size] float32, whatever it holds.

    Raises:
        TypeError, ValueError: an argument that is not allowed.
        ImportError: the native extension is missing.
    """
    outputs, inputs = checks.first("weight", weight, "J, K", native.WEIGHTS)
    checks.like("bias", bias, "J", (outputs,), (weight.dtype,), weight, reference="weight")
    weight, bias = weight.detach().contiguous(), bias.detach().contiguous()
    extension = native.extension()
    own, code = native.DTYPE_CODES[weight.dtype], native.packed_code(weight.dtype)
    packed = native.empty(extension.packed_linear_size(inputs, outputs, code))
    places = (weight.data_ptr(), bias.data_ptr(), packed.data_ptr())
    extension.pack_linear(inputs, outputs, code, own, *places)
    return packed


def packed_linear(weight: Tensor, bias: Tensor, packed: Tensor | None) -> Tensor:
    """`packed`, checked to be of this layer's size; packed here where it is None."""
    if packed is None:
        return pack_linear(weight, bias)
    code = native.packed_code(weight.dtype)
    outputs, inputs = weight.shape
    if packed.shape != (native.extension().packed_linear_size(inputs, outputs, code),):
        raise ValueError("packed: it is not what ops.pack_linear returns for this layer")
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
    allowed = (x.dtype, torch.bfloat16, torch.float16)
    checks.like("weight", weight, "J, K", (outputs, inputs), allowed, x)
    checks.like("bias", bias, "J", (outputs,), (weight.dtype,), x)
    if (norm_weight is None) != (norm_bias is None):
        raise ValueError("norm_weight and norm_bias: both or none are needed")
    for name, given in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if given is not None:
            checks.like(name, given, "K", (inputs,), own, x)
    if residual is not None:
        checks.like("residual", residual, "R, J", (rows, outputs), own, x)
    checks.packed(packed, x)


def _fake(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return torch.empty((x.shape[0], weight.shape[0]), dtype=x.dtype, device=x.device)


def _reference(*args: Any) -> Tensor:
    result: Tensor = transformer.fused_linear(*args[:-1])
    return result


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """The first half of MAR-B's MLP (768 -> 3072) for 96 rows, with LayerNorm and GELU; dtype is
    the weight's."""
    rows, inputs, outputs = 96, 768, 3072

    def draw(*sizes: int) -> Tensor:
        drawn = torch.randn(sizes, generator=generator, device=generator.device)
        return (drawn * math.sqrt(1 / sizes[-1])).to(device)

    vectors = (draw(inputs) + 1, draw(inputs))
    linear = (draw(outputs, inputs).to(dtype), draw(outputs).to(dtype))
    return (draw(rows, inputs) * 30, *linear, *vectors, None, True)


def _can_run_cpu(x: Tensor, weight: Tensor, *_: Any) -> Verdict:
    ok, reason = native.can_run({"x": x})
    return native.can_run({"weight": weight}, native.WEIGHTS) if ok else (ok, reason)


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
    packed = packed_linear(weight, bias, packed)
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
        group,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        stride,
        native.packed_code(weight.dtype),
        threads,
        gelu,
        eps,
    )
    return out


def _can_run_triton(x: Tensor, weight: Tensor, *_: Any) -> Verdict:
    return triton_backend.can_run({"x": x, "weight": weight}, width=x.shape[1])


_OP = Op(
    "fused_linear(Tensor x, Tensor weight, Tensor bias, Tensor? norm_weight=None, "
    "Tensor? norm_bias=None, Tensor? residual=None, bool gelu=False, float eps=1e-6, "
    "Tensor? packed=None) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_reference,
    example=_example,
    backends=[
        triton_backend.backend("fused_linear", _can_run_triton),
        Backend("cpu", _can_run_cpu, _run_cpu),
    ],
)
