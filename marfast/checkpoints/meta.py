"""Modules without storage, which take no time to make."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where torch.nn.init would draw numbers for them.

    On the meta device there is nothing to fill, yet drawing imports torch's compiler: a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        draws = func in (torch.Tensor.normal_, torch.Tensor.uniform_)
        if draws or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def without_storage() -> Iterator[None]:
    """Tensors made inside have a shape and no values."""
    with torch.device("meta"), _Unfilled():
        yield
