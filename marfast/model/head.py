"""The head through the ops: its own parameters, `denoise` and `ddpm_sample`."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.checkpoints.meta import without_storage
from marfast.model.own import (
    Verdicts,
    anyone_watches,
    is_touched,
    methods_set_on,
    named_parameters_of,
    parts_of,
)
from marfast.model.packing import Packing
from marfast.model.schedule import Schedule
from marfast.model.trial import same, trial_of
from marfast.ops.head import HeadShape
from marfast.reference.denoise import denoise
from marfast.reference.diffusion import HeadOptions, ddpm_step
from marfast.reference.head import SimpleMLPAdaLN


@functools.lru_cache(maxsize=16)
def head_names(depth: int) -> list[str]:
    """The names of a head's parameters, in the order that the ops take them."""
    with without_storage():
        return [name for name, _ in SimpleMLPAdaLN(1, 1, 2, 1, depth).named_parameters()]


def head_parameters(net: Any) -> list[Tensor]:
    """The parameters of a module that is built as MAR's head is, in the ops' order; ValueError says
    why it isn't."""
    found = named_parameters_of(net) if isinstance(net, nn.Module) else {}
    names = head_names(max(0, (len(found) - 12) // 8))
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"it lacks {missing[0]}")
    if extra := [name for name in found if name not in names]:
        raise ValueError(f"it has {extra[0]}, which MAR's head has not")
    parameters: list[Tensor] = [found[name] for name in names]
    if special := [p for p in parameters if type(p) not in (Tensor, nn.Parameter)]:
        raise ValueError(f"its parameters are {type(special[0]).__name__}")
    try:
        HeadShape.of(parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its parameters are not those of MAR's head: {error}") from None
    return parameters


@dataclass(frozen=True)
class BoundHead:
    """A module `net` and its weights as they were."""

    net: Any
    weights: list[Tensor]
    packed: Tensor | None
    own: str
    """Why the module's own code runs; empty where the ops do."""

    @property
    def plain(self) -> bool:
        return not self.own

    def denoise(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x [R, C], t [R], cond [R, D] -> [R, 2C]."""
        return ops.denoise(x, t, cond.to(x.dtype), self.weights, self.packed)

    def sample(
        self,
        noise: Tensor,
        step_noises: Iterable[Tensor],
        cond: Tensor,
        schedule: Schedule,
        guidance: Tensor,
        options: HeadOptions,
    ) -> Tensor:
        """`ops.ddpm_sample`, computed in float32 (float64 where the head is) -> noise's dtype.

        step_noises: [s, N, C], the noise of consecutive steps; as many steps are taken at a time.
        Steps that guidance has not compute the conditional rows alone.
        """
        double = self.weights[0].dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
        options = options._replace(learned_range=schedule.learned_range)
        state, cond, guidance = (a.to(dtype) for a in (noise, cond, guidance))
        coefficients = schedule.coefficients.to(dtype)
        if schedule.multistep:
            state = torch.stack([state, torch.zeros_like(state)])
        first = 0
        for chunk in step_noises:
            for steps, within in schedule.runs(range(first, first + len(chunk))):
                guided = options.guided and within
                state = self._steps(
                    state,
                    chunk[steps.start - first : steps.stop - first].to(dtype),
                    cond if guided else cond[: len(noise)],
                    coefficients[steps],
                    schedule.timesteps[steps],
                    guidance,
                    options._replace(branches=2 if guided else 1),
                )
            first += len(chunk)
        return (state[0] if schedule.multistep else state).to(noise.dtype)

    def _steps(
        self,
        state: Tensor,
        step_noise: Tensor,
        cond: Tensor,
        coefficients: Tensor,
        timesteps: Tensor,
        guidance: Tensor,
        options: HeadOptions,
    ) -> Tensor:
        """Consecutive steps, all of them guided or none."""
        if self.plain:
            return ops.ddpm_sample(
                state,
                step_noise,
                cond,
                self.weights,
                coefficients,
                timesteps,
                guidance,
                temperature=options.temperature,
                clip_denoised=options.clip_denoised,
                packed=self.packed,
                learned_range=options.learned_range,
            )
        for of_step, t, noise_t in zip(coefficients, timesteps, step_noise, strict=True):
            now = state[0] if state.dim() == 3 else state
            rows = now.repeat(options.branches, 1)
            output = self.net.forward(rows, t.expand(len(cond)), cond)
            state = ddpm_step(state, output, noise_t, of_step, guidance, options)
        return state


class FastHead:
    """What is kept of a head from one use to the next: packed weights, and whether it computes what
    MAR's does."""

    def __init__(self) -> None:
        self._packing = Packing(ops.pack_head)
        self._verdicts = Verdicts()

    def bind(self, net: Any, tell: Callable[[str], object] = lambda reason: None) -> BoundHead:
        """This module as it is now. Its own code runs where it is built otherwise than MAR's head,
        where somebody has hooked into it, and where it turns out to compute something else, of
        which `tell` is told once."""

        def find_out() -> str:
            reason = _known_answer(net)
            tell(reason)
            return reason

        try:
            parameters = head_parameters(net)
        except ValueError as error:
            weights = [p for p in net.parameters() if p.is_floating_point()]
            weights = weights or [torch.zeros(1, dtype=torch.float32)]
            return BoundHead(net, weights, None, str(error))
        own = is_hooked(net) or self._verdicts.of(net, torch.get_default_dtype(), find_out)
        if own:
            return BoundHead(net, parameters, None, own)
        return BoundHead(net, *self._packing.of(parameters), "")

    def found(self) -> list[str]:
        """Why a module's own code runs, as uses found out."""
        return self._verdicts.known()


def is_hooked(net: nn.Module) -> str:
    """What its owner added to a head, which has to run; empty if nothing."""
    inside = parts_of(net)[1:]  # the original calls net.forward, which runs no hook of net
    if any(map(is_touched, inside)) or anyone_watches():
        return "somebody has hooked into it"
    if names := methods_set_on(net):
        return f"its {names[0]} was set on the instance"
    return ""


def _known_answer(net: nn.Module) -> str:
    """Why not, by three rows of a copy's own code and of the reference's."""
    try:
        trial: Any = trial_of(net)
        parameters = head_parameters(trial)
        shape, device = HeadShape.of(parameters), parameters[0].device
        generator = torch.Generator("cpu").manual_seed(0)

        def draw(*sizes: int) -> Tensor:
            drawn = torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu")
            return drawn.to(device)

        x, cond = draw(3, shape.channels), draw(3, shape.condition)
        t = torch.tensor([0, 500, 999], dtype=torch.int64, device=device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False), torch.device("cpu"):
            theirs = trial.forward(x, t, cond).float()
            meant = denoise(x, t, cond, parameters).float()
    except Exception as error:
        return f"its own code can't be tried: {type(error).__name__}: {error}"
    return "" if same(meant, theirs) else "it computes something else than MAR's head"


def has_parameters_of_a_head(net: Any) -> str:
    """Why `net` is not built as MAR's head is; empty if it is."""
    try:
        head_parameters(net)
    except ValueError as error:
        return str(error)
    return ""
