"""The head through the ops: its own parameters, `denoise` and `ddpm_sample`."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.model.head_kind import MARS, HeadKind
from marfast.model.own import Verdicts, anyone_watches, is_touched, methods_set_on, parts_of
from marfast.model.packing import Packing
from marfast.model.schedule import Schedule
from marfast.model.trial import same, trial_of, uncompiled
from marfast.ops.head import HeadShape
from marfast.reference.denoise import denoise
from marfast.reference.diffusion import HeadOptions, ddpm_step
from marfast.reference.head_spec import MAR_HEAD, HeadSpec


@dataclass(frozen=True)
class BoundHead:
    """A module `net` and its weights as they were."""

    net: Any
    weights: list[Tensor]
    packed: Tensor | None
    own: str
    """Why the module's own code runs; empty where the ops do."""
    kind: HeadKind = MARS
    spec: HeadSpec = MAR_HEAD

    @property
    def plain(self) -> bool:
        return not self.own

    def denoise(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """`ops.denoise`: x [R, C], t [R], cond [R, D] -> [R, 2C], or as the spec has it."""
        return ops.denoise(x, t, cond.to(x.dtype), self.weights, self.packed, str(self.spec))

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
        coefficients, told = schedule.coefficients.to(dtype), schedule.timesteps
        told = told.to(dtype) if told.is_floating_point() else told
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
                    told[steps],
                    guidance,
                    options._replace(branches=options.branches if guided else 1),
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
                spec=str(self.spec),
                dynamic_threshold=options.dynamic_threshold,
            )
        for of_step, t, noise_t in zip(coefficients, timesteps, step_noise, strict=True):
            now = state[0] if state.dim() == 3 else state
            rows = now.repeat(options.branches, 1)
            output = self.kind.forward(self.net, rows, t.expand(len(cond), *t.shape), cond)
            state = ddpm_step(state, output, noise_t, of_step, guidance, options)
        return state


class FastHead:
    """What is kept of a head from one use to the next: packed weights, and whether it computes what
    its kind does."""

    def __init__(self, kind: HeadKind = MARS) -> None:
        self.kind = kind
        self._packings: dict[HeadSpec, Packing] = {}
        self._verdicts = Verdicts()

    def bind(self, net: Any, tell: Callable[[str], object] = lambda reason: None) -> BoundHead:
        """This module as it is now. Its own code runs where it is built otherwise than heads of
        this kind, where somebody has hooked into it, and where it turns out to compute something
        else, of which `tell` is told once."""

        def find_out() -> str:
            reason = _known_answer(net, self.kind)
            tell(reason)
            return reason

        try:
            found = self.kind.parameters(net)
        except ValueError as error:
            weights = [p for p in net.parameters() if p.is_floating_point()]
            weights = weights or [torch.zeros(1, dtype=torch.float32)]
            return BoundHead(net, weights, None, str(error), self.kind)
        own = is_hooked(net) or self._verdicts.of(net, torch.get_default_dtype(), find_out)
        if own:
            return BoundHead(net, found.flat, None, own, self.kind)
        packed = self._packing(found.spec).of(found.flat, found.joined if found.joins else list)
        return BoundHead(net, *packed, "", self.kind, found.spec)

    def _packing(self, spec: HeadSpec) -> Packing:
        if spec not in self._packings:
            self._packings[spec] = Packing(functools.partial(ops.pack_head, spec=str(spec)))
        return self._packings[spec]

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


def _known_answer(net: nn.Module, kind: HeadKind) -> str:
    """Why not, by three rows of a copy's own code and of the reference's."""
    try:
        trial: Any = trial_of(net)
        found = kind.parameters(trial)
        weights, spec = found.joined(found.flat), found.spec
        shape, device = HeadShape.of(weights, spec), weights[0].device
        generator = torch.Generator("cpu").manual_seed(0)

        def draw(*sizes: int) -> Tensor:
            drawn = torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu")
            return drawn.to(device)

        x, cond = draw(3, shape.channels), draw(3, shape.condition)
        t = kind.example_times(spec).to(device)
        with (
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
            torch.device("cpu"),
            uncompiled(),
        ):
            theirs = kind.forward(trial, x, t, cond).float()
            meant = denoise(x, t, cond, weights, spec).float()
    except Exception as error:
        return f"its own code can't be tried: {type(error).__name__}: {error}"
    return "" if same(meant, theirs) else f"it computes something else than {kind.whose} head"
