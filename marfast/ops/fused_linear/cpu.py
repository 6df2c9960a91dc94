"""`fused_linear` by csrc/cpu/fused_linear.h."""

from torch import Tensor

from marfast.errors import ArgumentError
from marfast.ops import checks
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, check_memory, cpu, rows_adjacent, takes

SCRATCH = 1 << 19  # floats of rows that a thread has beside it: of a block of k they stay in L2
LEAST_ROWS, MOST_ROWS = 28, 192  # taken at a time


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
    outputs, _ = checks.first("weight", weight, "J, K", DTYPES)
    checks.like("bias", bias, "J", (outputs,), (weight.dtype,), weight, reference="weight")
    check_memory(weight=weight, bias=bias)
    weight, bias = cpu.packable(weight), cpu.packable(bias)
    packed = cpu.empty(packed_size(weight))
    dtype = cpu.packed_dtype(weight.dtype)
    cpu.extension().pack_linear(weight=weight, bias=bias, dtype=dtype, packed=packed)
    return packed


def packed_size(weight: Tensor) -> int:
    """How many floats a layer with such a weight is packed in."""
    outputs, inputs = weight.shape
    dtype = cpu.packed_dtype(weight.dtype)
    size: int = cpu.extension().packed_linear_size(inputs=inputs, outputs=outputs, dtype=dtype)
    return size


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"x": a.x})
    return takes({"weight": a.weight}, DTYPES) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    packed = pack_linear(a.weight, a.bias) if a.packed is None else a.packed
    if packed.shape != (packed_size(a.weight),):
        raise ArgumentError("packed", "it is not what ops.pack_linear returns for this layer")
    stride = cpu.row_stride(a.x.shape[1])
    group = min(MOST_ROWS, max(LEAST_ROWS, SCRATCH // stride), max(1, len(a.x)))
    threads = cpu.threads()
    out: Tensor = a.x.new_empty((len(a.x), len(a.weight)))
    cpu.extension().fused_linear(
        out=out,
        x=rows_adjacent(a.x),
        packed=packed,
        norm_weight=rows_adjacent(a.norm_weight),
        norm_bias=rows_adjacent(a.norm_bias),
        residual=rows_adjacent(a.residual),
        workspace=cpu.empty(threads, group, stride),
        group=group,
        scratch_stride=stride,
        weight_dtype=cpu.packed_dtype(a.weight.dtype),
        threads=threads,
        gelu=a.gelu,
        eps=a.eps,
    )
    return out
