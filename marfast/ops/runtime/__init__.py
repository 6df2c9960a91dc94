"""What an op's backends share, a file a backend: whether it is here, loading it, calling it."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What kernels read and write, and the dtypes of weights that products take."""

Verdict = tuple[bool, str]
"""Whether a backend can run, and if not, why."""

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


def takes(given: Mapping[str, Tensor], dtypes: Sequence[torch.dtype] = (torch.float32,)) -> Verdict:
    """Whether kernels of these dtypes take these tensors, by name; if not, why."""
    for name, tensor in given.items():
        if tensor.dtype not in dtypes:
            allowed = " or ".join(map(short_dtype, dtypes))
            return False, f"{name} is {short_dtype(tensor.dtype)}; the kernel takes {allowed}"
    return True, ""


def short_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rows_adjacent(tensor: MaybeTensor) -> MaybeTensor:
    """`tensor` as kernels read it: elements of a row adjacent, rows at any stride."""
    if tensor is None or tensor.is_contiguous() or tensor.stride(-1) == 1:
        return tensor
    return tensor.contiguous()
