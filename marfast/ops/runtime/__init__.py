"""What an op's backends share, a file a backend: whether it is here, loading it, calling it."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from marfast.errors import ArgumentError

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


def check_memory(**given: object) -> None:
    """Raises ArgumentError unless tensors, by name, alone or in lists, still have their memory:
    a storage can be resized under them. C++ asks that of what it reads (csrc/bindings/view.h);
    torch's own operators don't everywhere."""
    for name, value in given.items():
        for tensor in value if isinstance(value, list) else (value,):
            if isinstance(tensor, Tensor) and not _is_backed(tensor):
                reason = "it has lost its memory: its storage was freed or made smaller"
                raise ArgumentError(name, reason)


def _is_backed(tensor: Tensor) -> bool:
    if tensor.device.type not in ("cpu", "cuda") or tensor.numel() == 0:
        return True
    reach = tensor.numel()
    if not tensor.is_contiguous():
        strides = zip(tensor.shape, tensor.stride(), strict=True)
        reach = 1 + sum((size - 1) * stride for size, stride in strides)
    end = (tensor.storage_offset() + reach) * tensor.element_size()
    return end <= tensor.untyped_storage().nbytes()


def short_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rows_adjacent(tensor: MaybeTensor) -> MaybeTensor:
    """`tensor` as kernels read it: elements of a row adjacent, rows at any stride. One that has
    lost its memory is left to C++, which names it."""
    if tensor is None or tensor.is_contiguous() or tensor.stride(-1) == 1:
        return tensor
    return tensor.contiguous() if _is_backed(tensor) else tensor
