"""A GPU kernel proves itself before it is trusted: one known answer at its first use.

The first time that a backend runs an op with a dtype on a CUDA device, it runs the op's example,
too, and the reference does. If the results differ by more than the dtype allows, it is named in a
warning, once, and the next backend takes over. Nothing is checked while a graph is captured.
MARFAST_SELF_CHECK=0 turns it off.
"""

import os
import warnings

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from marfast.ops.backend import AnyOp, Args, Backend, Example

ALLOWED = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Of the reference's largest value."""

BACKENDS = ("cuda", "triton")

_verdicts: dict[tuple[str, str, torch.dtype, torch.device], str] = {}


def verdict(op: AnyOp, backend: Backend, a: Args) -> str:
    """Why this backend is not to be trusted with such a call; empty if it may run."""
    if backend.name not in BACKENDS or not is_checked(a[0].device):
        return ""
    tensors = [leaf for leaf in tree_leaves(a) if isinstance(leaf, Tensor)]
    dtype = _lowest(tensors)
    key = (op.name, backend.name, dtype, a[0].device)
    if key not in _verdicts:
        _verdicts[key] = ""  # the check itself is a use
        _verdicts[key] = check(op, backend, dtype, a[0].device)
        if reason := _verdicts[key]:
            warnings.warn(f"{reason}; another backend takes over", RuntimeWarning, stacklevel=4)
    return _verdicts[key]


def is_checked(device: torch.device) -> bool:
    """Whether kernels are checked on this device, now."""
    wanted = os.environ.get("MARFAST_SELF_CHECK") != "0"
    return wanted and device.type == "cuda" and not torch.cuda.is_current_stream_capturing()


def _lowest(tensors: list[Tensor]) -> torch.dtype:
    """The dtype that decides how a product is computed: a half-precision one where there is one."""
    found = {tensor.dtype for tensor in tensors}
    for half in (torch.bfloat16, torch.float16):
        if half in found:
            return half
    return torch.float32


@torch.no_grad()
def check(
    op: AnyOp,
    backend: Backend,
    dtype: torch.dtype,
    device: torch.device,
    example: Example | None = None,
) -> str:
    """Runs the op's example, or another, by a backend and by the reference; what is wrong, or
    nothing."""
    a = op.example_args(dtype, device, example=example)
    ok, _ = backend.can_run(a)
    if not ok:
        return ""  # it doesn't take its example in this dtype: there is no known answer
    what = f"backend {backend.name!r} of {op.name} in {str(dtype)[6:]} on {device}"
    try:
        off, largest = _distance(backend.run(a), op.plain(*a))
    except RuntimeError as error:
        raise RuntimeError(
            f"{what} failed at its first use ({error}); if the device is lost with it, start anew "
            f"with another backend: MARFAST_BACKEND=torch"
        ) from error
    if off <= ALLOWED[dtype] * largest:  # NaN is not
        return ""
    return f"{what} is off by {off:.3g} where the largest value is {largest:.3g}"


def _distance(actual: Tensor, expected: Tensor) -> tuple[float, float]:
    difference = (actual.double() - expected.double()).abs().max()
    return float(difference), float(expected.double().abs().max())
