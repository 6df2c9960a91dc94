"""A model's own sampling loop over its head, as one op: what each such model tells of itself."""

from abc import abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from marfast.drop_in.chosen import OWN, Chosen
from marfast.drop_in.methods import FastMethod, Own, arguments_of, is_recorded, told
from marfast.drop_in.trust import differs, tried
from marfast.errors import ArgumentError
from marfast.model.head import BoundHead, FastHead, is_hooked
from marfast.model.head_kind import HeadKind
from marfast.model.own import methods_set_on, own_class
from marfast.model.packing import autocast, in_float32
from marfast.model.schedule import Schedule
from marfast.model.trial import trial_of
from marfast.reference.diffusion import HeadOptions
from marfast.reference.samplers import Table


@dataclass(frozen=True)
class Asked:
    """What a call of a loop asks for, before any number is drawn."""

    cond: Tensor
    """[R, D], R = N rows for each of guidance's branches, as `ops.ddpm_sample` has them."""
    table: Table
    draw: Callable[[], tuple[Tensor, Tensor]]
    """Initial noise [N, C] and step noise [S, N, C], float32, drawn as the loop draws them."""
    result: Callable[[Tensor], Tensor]
    """What the loop returns, of tokens [N, C] float32."""
    scales: tuple[float | Tensor, ...] = ()
    """One for each branch of guidance but the first: of c − u, or of c − u₁ and u₁ − u₂."""
    mode: Hashable = ()
    """What else than the branches has the loop go another way: each is tried once."""

    @property
    def branches(self) -> int:
        return 1 + len(self.scales)


class FastLoop(FastMethod):
    """A loop of `net`, the head in a module, of one kind."""

    name = "sample"
    samples = True
    kind: ClassVar[HeadKind]

    def refresh(self) -> None:
        self.head = FastHead(self.kind)
        self.other_ways: dict[str, None] = {}

    def found(self) -> list[str]:
        ways = [f"calls with {way} run its own code" for way in self.other_ways]
        return [*super().found(), *self.head.found(), *ways]

    @classmethod
    def is_owner(cls, module: Any) -> bool:
        """Whether a module has such a loop, told by its arguments, and such a head."""
        own = getattr(own_class(module), cls.name, None)
        if not callable(own) or not cls.kind.is_like(cls.net(module)):
            return False
        return arguments_of(own)[1:] == arguments_of(cls.__call__)[3:]

    @classmethod
    def check(cls, module: Any, chosen: Chosen) -> None:
        if chosen != OWN:
            given = f"{chosen.settings()} for {type(module).__name__}.{cls.name}"
            raise ArgumentError("sampler", given, "allowed is None, its own sampler and steps")

    @classmethod
    def net(cls, module: Any) -> Any:
        """The head in a module; None where there is none."""
        return getattr(module, "net", None)

    @classmethod
    def view(cls, module: Any) -> Any:
        """The module with nothing in it but what its loop uses: as it is, or a copy."""
        return module

    @classmethod
    def trial(cls, module: Any) -> Any:
        """A copy to try its loop on."""
        return trial_of(cls.view(module))

    @abstractmethod
    def asked(self, module: Any, *args: Any) -> Asked | str:
        """Or, where a call goes a way that the ops haven't, which. Draws nothing."""

    @abstractmethod
    def example(self, asked: Asked, net: Any) -> tuple[Any, ...]:
        """Arguments of a small call of the same mode and branches, on the head's device."""

    @classmethod
    def lacks(cls, module: Any) -> str:
        if reason := cls.other_arguments(module):
            return reason
        if names := [name for name in methods_set_on(module) if name != "forward"]:
            return f"its {names[0]} was set on the instance"
        return cls.kind.lacks(cls.net(module))

    def run(self, module: Any, own: Own, *args: Any) -> Tensor:
        """A call with all its arguments, by the ops or by the module's own code."""
        asked = self.asked(module, *args) if self._is_usual(module, args) else ""
        if isinstance(asked, Asked):
            if not self.why_not(module, asked):
                with self.backend_in_force(), autocast(asked.cond.device, self.dtype):
                    head = self.head.bind(self.net(module))
                    if head.plain:
                        return self.sample(head, asked)
        elif asked:
            self.other_ways[asked] = None
        self.passed_by(module)
        sampled: Tensor = own(*args)
        return sampled

    def _is_usual(self, module: Any, args: tuple[Any, ...]) -> bool:
        tensors = [a for a in args if isinstance(a, Tensor)]
        rest = [a for a in args if not isinstance(a, Tensor)]
        usual = all(a.dim() == 2 and a.device.type in ("cpu", "cuda") for a in tensors)
        if not usual or not all(a is None or isinstance(a, (Real, str)) for a in rest):
            return False
        recorded = is_recorded(self.net(module), *tensors)
        return not (recorded or self.lacks(module) or is_hooked(self.net(module)))

    @torch.no_grad()
    def sample(self, head: BoundHead, asked: Asked) -> Tensor:
        """By the ops."""
        noise, step_noise = asked.draw()
        device = asked.cond.device
        scales = [torch.as_tensor(s, dtype=torch.float32, device=device) for s in asked.scales]
        guidance = torch.stack([s.reshape(()) for s in scales]) if scales else noise.new_ones(1)
        sampled = head.sample(
            noise,
            [step_noise],
            asked.cond,
            Schedule.whole(asked.table, device),
            guidance.reshape(1, -1) if len(scales) > 1 else guidance,
            HeadOptions(asked.branches),
        )
        return asked.result(sampled)

    def why_not(self, module: Any, asked: Asked) -> str:
        """Why the module's own code has to run, found out by a trial with this head."""
        mode = asked.branches, asked.mode, torch.get_default_dtype()

        def find_out() -> str:
            return told(module, self.name, tried(partial(self._try, module, asked)))

        return self.verdicts.of(self.view(module), mode, find_out)

    def _try(self, module: Any, asked: Asked) -> str:
        fast = type(self)(self.backend, torch.float32)
        if in_float32(next(self.net(module).parameters()), self.dtype):
            fast.head = self.head
        trial = self.trial(module)
        args = self.example(asked, self.net(trial))
        device = next(self.net(trial).parameters()).device
        again = fast.asked(trial, *args)
        if isinstance(again, str):
            return "it has no example of such a call"

        with fast.backend_in_force(), autocast(device, torch.float32):
            head = fast.head.bind(self.net(trial))
        if not head.plain:
            return head.own

        def ours() -> Tensor:
            with fast.backend_in_force():
                return fast.sample(head, again)

        return differs(device, lambda: getattr(trial, self.name)(*args), ours)


def drawn(steps: int, tokens: int, channels: int, device: torch.device) -> Tensor:
    """So many draws of [N, C] float32 from the device's generator."""
    shape = (tokens, channels)
    return torch.stack(
        [torch.randn(shape, dtype=torch.float32, device=device) for _ in range(steps)]
    )


def example_rows(rows: int, width: int, device: torch.device) -> Tensor:
    """Condition vectors of a trial."""
    generator = torch.Generator("cpu").manual_seed(0)
    z = torch.randn((rows, width), generator=generator, dtype=torch.float32, device="cpu")
    return z.to(device)
