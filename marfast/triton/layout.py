"""How tensors lie in memory, as the kernels take it: elements of a row adjacent, rows at any
stride.
"""

from typing import TypeVar

from torch import Tensor

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


def rows_adjacent(tensor: MaybeTensor) -> MaybeTensor:
    """`tensor` with the elements of its last dimension adjacent: copied where they are not."""
    if tensor is None or tensor.stride(-1) == 1:
        return tensor
    return tensor.contiguous()


def row_stride(tensor: Tensor | None) -> int:
    """Elements from a row to the next. A single row's stride is arbitrary, so its width stands for
    it: what is compiled must not depend on it."""
    if tensor is None:
        return 0
    return tensor.stride(0) if tensor.shape[0] > 1 else tensor.shape[-1]
