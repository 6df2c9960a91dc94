"""What `accelerate` puts in the place of a module's methods: each takes the arguments of the
original's method and draws its random numbers. Where it can't, the module's own code runs."""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.drop_in.chosen import OWN, Chosen
from marfast.model.block import FastBlock, is_plain_block, library_attention
from marfast.model.head import FastHead
from marfast.model.head_kind import MARS, HeadKind
from marfast.model.own import Verdicts, methods_set_on, own_class
from marfast.model.packing import autocast
from marfast.ops.choice import BackendName

Own = Callable[..., Any]


class FastMethod(ABC):
    """Stands in for the method `name` of a module. It refers to no module: `__call__` takes the one
    it is called on, and the module's own method."""

    name: ClassVar[str]
    samples: ClassVar[bool] = False
    """Whether it is done by a sampler."""
    in_training: ClassVar[bool] = False
    """Whether it stands in in training mode, and not in eval mode."""

    def __init__(self, backend: BackendName, dtype: torch.dtype | None, chosen: Chosen = OWN):
        self.backend = backend
        self.dtype = dtype
        self.chosen = chosen
        self.verdicts = Verdicts()
        self.told_of_training = False
        self.refresh()

    @abstractmethod
    def refresh(self) -> None:
        """Take all weights anew at the next call."""

    @classmethod
    @abstractmethod
    def lacks(cls, module: Any) -> str:
        """Why a module's own code has to run, told by looking at it; empty where it needn't."""

    def found(self) -> list[str]:
        """Why a module's own code runs, as calls found out."""
        return self.verdicts.known()

    def passed_by(self, module: nn.Module) -> None:
        """The module's own code runs: says so where that takes another sampler than was asked
        for."""
        if self.samples and self.chosen != OWN:
            told(module, self.name, "the sampler asked for is not taken")

    def warn_of_training(self, module: nn.Module) -> None:
        """The module's own code runs, as it is in training mode: says so once, of a sampler."""
        if self.samples and not self.told_of_training:
            self.told_of_training = True
            told(module, self.name, "the module is in training mode (eval() ends that)")

    def backend_in_force(self) -> AbstractContextManager[None]:
        """What `accelerate` was told, for the time of a call."""
        return nullcontext() if self.backend == "auto" else ops.backend(self.backend)

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend, "dtype": self.dtype, "chosen": self.chosen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, **state)

    @classmethod
    def other_arguments(cls, module: Any) -> str:
        """Why a call of the module's own method would not be one of this."""
        own: Any = getattr(own_class(module), cls.name, None)
        if own is None:
            return f"it has no method {cls.name}"
        if isinstance(module, torch.jit.ScriptModule):
            return "it is compiled"
        if cls.name in methods_set_on(module):
            return f"its {cls.name} was set on the instance"
        theirs, ours = arguments_of(own)[1:], arguments_of(cls.__call__)[3:]
        if theirs != ours:
            return f"it takes ({', '.join(theirs)}) where MAR's takes ({', '.join(ours)})"
        return ""

    @classmethod
    def check(cls, module: Any, chosen: Chosen) -> None:
        """Raise ArgumentError where a module can't be sampled as is asked for."""
        chosen.check(module)


def arguments_of(method: Callable[..., Any]) -> list[str]:
    return [*inspect.signature(method).parameters]


def told(module: nn.Module, name: str, reason: str) -> str:
    if reason:
        warnings.warn(
            f"{type(module).__name__}.{name}: {reason}: its own code runs",
            RuntimeWarning,
            stacklevel=2,
        )
    return reason


class FastForward(FastMethod):
    """`forward(x [R, C], t [R], c [R, D]) -> [R, 2C]` of a SimpleMLPAdaLN, where no gradient is
    recorded; -> [R, C] of one without variance."""

    name = "forward"
    kind: ClassVar[HeadKind] = MARS

    def refresh(self) -> None:
        self.head = FastHead(self.kind)

    @classmethod
    def is_owner(cls, module: Any) -> bool:
        """Whether a module is built as a head of this kind."""
        return cls.kind.is_like(module)

    @classmethod
    def lacks(cls, module: Any) -> str:
        return cls.kind.lacks(module) or cls.other_arguments(module)

    def found(self) -> list[str]:
        return self.head.found()

    def __call__(self, module: Any, own: Own, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self.denoise(module, lambda: own(x, t, c), x, t, c)

    def denoise(
        self, module: Any, own: Callable[[], Tensor], x: Tensor, t: Tensor, c: Tensor
    ) -> Tensor:
        """By the op, in the head's dtype; `own` is the module's call."""
        if x.dim() == c.dim() == 2 and not is_recorded(module, x, c):
            with self.backend_in_force(), autocast(x.device, self.dtype):
                head = self.head.bind(module, lambda reason: told(module, self.name, reason))
                if head.plain:
                    return head.denoise(x, t, c).to(head.weights[0].dtype)
        return own()


class FastBlockForward(FastMethod):
    """`forward(x [R, L, D]) -> [R, L, D]` of a MAR's transformer block, where no gradient is
    recorded.

    Attention stays the library's, as in the block's own code: who calls a block is somebody else's
    loop, whose sampler may make much of rounding (DDIM near t = 999 divides by 5e-5)."""

    name = "forward"

    def refresh(self) -> None:
        self.block = FastBlock(library_attention)

    @classmethod
    def lacks(cls, module: Any) -> str:
        return cls.other_arguments(module) or "it is no plain block" * (not is_plain_block(module))

    def found(self) -> list[str]:
        return self.block.found()

    def __call__(self, module: Any, own: Own, x: Tensor) -> Tensor:
        usual = x.dtype == torch.float32 and x.dim() == 3
        if usual and x.numel() and not is_recorded(module, x):
            with self.backend_in_force(), autocast(x.device, self.dtype):
                block = self.block.bind(module)
                if block.by_ops:
                    return block(x)
        output: Tensor = own(x)
        return output


def is_recorded(module: nn.Module, *inputs: Tensor) -> bool:
    """Whether a call is for gradients."""
    tensors = (*inputs, *module.parameters()) if torch.is_grad_enabled() else ()
    return any(tensor.requires_grad for tensor in tensors)
