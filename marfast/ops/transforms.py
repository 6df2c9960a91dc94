"""Whether a computation is transformed: by torch.func (grad, vmap and the like) or for forward-mode
derivatives. What is written in torch's own operators can be; kernels can't."""

from typing import Any

from torch import Tensor
from torch._C._functorch import peek_interpreter_stack as func_in_force
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves


def anywhere() -> bool:
    """Whether there may be a transform, of these values or of others."""
    return func_in_force() is not None or forward_ad._current_level >= 0


def transforms(values: Any) -> bool:
    """Whether there is one that these values, which may stand in lists, take part in."""
    if func_in_force() is not None:
        return True
    return forward_ad._current_level >= 0 and any(map(_has_tangent, tree_leaves(values)))


def _has_tangent(value: Any) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None
