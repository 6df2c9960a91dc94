"""What the backends of ops are, and what they get: arguments bound by name."""

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from marfast.ops.runtime import Verdict, check_memory, cpu, cuda, pytorch, triton

_RUNTIMES: dict[str, Any] = {"cuda": cuda, "triton": triton, "cpu": cpu, "torch": pytorch}
_FILES = {"torch": "pytorch"}  # a module named torch would hide torch itself from its package

Args = Any
"""An op's arguments, bound: a named tuple of the statement's parameters."""


class Draw(NamedTuple):
    """Random numbers for an op's example, the same for every device."""

    dtype: torch.dtype
    """What the example is asked for in, where an op takes several."""
    device: torch.device
    generator: torch.Generator

    def normal(self, *sizes: int) -> Tensor:
        """float32."""
        source = self.generator.device
        drawn = torch.randn(sizes, generator=self.generator, dtype=torch.float32, device=source)
        return drawn.to(self.device)

    def weight(self, *sizes: int) -> Tensor:
        """float32, of variance 1 / the last size: a product with it keeps values near 1."""
        return self.normal(*sizes) / math.sqrt(sizes[-1])

    def integers(self, below: int, *sizes: int) -> Tensor:
        """int64."""
        source = self.generator.device
        drawn = torch.randint(
            0, below, sizes, generator=self.generator, dtype=torch.int64, device=source
        )
        return drawn.to(self.device)


Example = Callable[[Draw], dict[str, Any]]
"""Gives arguments that every backend is meant to take."""


@dataclass(frozen=True)
class Backend:
    """One implementation of an op."""

    name: str
    can_run: Callable[[Args], Verdict]
    run: Callable[..., Tensor]  # of the arguments and, unless it is "", a variant
    on_request: bool = False  # taken only when forced, or measured to be the fastest
    variants: Callable[[Args], Sequence[str]] = lambda a: ("",)
    """The names of the ways in which it can run a call; "" leaves the way to it."""
    variant: str = ""

    @property
    def label(self) -> str:
        """Its name, and its variant's."""
        return f"{self.name}:{self.variant}" if self.variant else self.name

    def as_variant(self, variant: str) -> "Backend":
        """The same that runs calls in this one of its ways."""
        if not variant:
            return self
        return replace(self, variant=variant, run=lambda a: self.run(a, variant))

    @classmethod
    def in_folder(cls, folder: str, name: str) -> "Backend":
        """The backend's file of an op's folder, where its runtime is."""
        runtime = _RUNTIMES[name]

        @functools.cache
        def file() -> Any:
            return importlib.import_module(f"{folder}.{_FILES.get(name, name)}")

        def can_run(a: Args) -> Verdict:
            verdict: Verdict = runtime.reaches(a._fields[0], a[0].device)
            if verdict[0]:
                verdict = runtime.is_built()
            return file().can_run(a) if verdict[0] else verdict

        def run(a: Args, *variant: str) -> Tensor:
            if runtime is not cpu:  # whose bindings ask it of all that they read
                check_memory(**a._asdict())
            with cuda.on(a[0].device):  # launchers ask for the current one
                result: Tensor = file().run(a, *variant)
            return result

        def variants(a: Args) -> Sequence[str]:
            told = getattr(file(), "variants", None)
            return ("",) if told is None else told(a)

        return cls(name, can_run, run, runtime.ON_REQUEST, variants)


class AnyOp(Protocol):
    """An op, to whoever chooses among its backends."""

    name: str
    backends: dict[str, Backend]

    def plain(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the reference gives for these arguments."""

    def shortened(self, a: Args) -> Args:
        """Such a call that takes little time."""

    def example_args(
        self,
        dtype: torch.dtype = ...,
        device: str | torch.device = ...,
        seed: int = ...,
        example: Example | None = ...,
    ) -> Args:
        """Bound arguments that every backend is meant to take."""
