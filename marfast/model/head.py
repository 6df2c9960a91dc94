"""The head through the ops: its own parameters, `denoise` and `ddpm_sample`."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.checkpoints.meta import without_storage
from marfast.model.packing import Packing
from marfast.ops.head import HeadShape
from marfast.reference.diffusion import HeadOptions, ddpm_step
from marfast.reference.head import SimpleMLPAdaLN, denoise

SAME, SAME_IN_HALF = 1e-3, 5e-2
"""How far, relative to the largest value, rounding may move what a head computes."""


@functools.lru_cache(maxsize=16)
def head_names(depth: int) -> list[str]:
    """The names of a head's parameters, in the order that the ops take them."""
    with without_storage():
        return [name for name, _ in SimpleMLPAdaLN(1, 1, 2, 1, depth).named_parameters()]


def head_parameters(net: Any) -> list[Tensor]:
    """The parameters of a module that is built as MAR's head is, in the ops' order; ValueError says
    why it isn't."""
    found = dict(net.named_parameters()) if isinstance(net, nn.Module) else {}
    names = head_names(max(0, (len(found) - 12) // 8))
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"it lacks {missing[0]}")
    if extra := [name for name in found if name not in names]:
        raise ValueError(f"it has {extra[0]}, which MAR's head has not")
    parameters: list[Tensor] = [found[name] for name in names]
    try:
        HeadShape.of(parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its parameters are not those of MAR's head: {error}") from None
    return parameters


class FastHead:
    """A module `net` that is built as MAR's head is. Runs the module's own code where somebody has
    hooked into it, or where it turns out to compute something else."""

    def __init__(self) -> None:
        self._packing = Packing(ops.pack_head)
        self._checked: tuple[Any, bool] | None = None

    def update(self, net: Any) -> None:
        """Take this module and its weights as they are now. To be called once in each use."""
        self.net = net
        self.weights, self.packed = self._packing.of(head_parameters(net))
        inside = [m for m in net.modules() if m is not net]  # the original calls net.forward
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in inside)
        self.plain = not hooked and self._computes_what_the_module_does()

    def denoise(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x [R, C], t [R], cond [R, D] -> [R, 2C]."""
        return ops.denoise(x, t, cond.to(x.dtype), self.weights, self.packed)

    def sample(
        self,
        noise: Tensor,
        step_noises: Iterable[Tensor],
        cond: Tensor,
        schedule: Tensor,
        timesteps: Tensor,
        guidance: Tensor,
        options: HeadOptions,
    ) -> Tensor:
        """`ops.ddpm_sample`, computed in float32 (float64 where the head is) -> noise's dtype.

        step_noises: [s, N, C], the noise of consecutive steps; as many steps are taken at a time.
        """
        double = self.weights[0].dtype == torch.float64
        given, dtype = noise.dtype, torch.float64 if double else torch.float32
        x, cond, schedule, guidance = (a.to(dtype) for a in (noise, cond, schedule, guidance))
        first = 0
        for chunk in step_noises:
            now = slice(first, first + len(chunk))
            step_noise, coefficients, times = chunk.to(dtype), schedule[now], timesteps[now]
            if self.plain:
                x = ops.ddpm_sample(
                    x,
                    step_noise,
                    cond,
                    self.weights,
                    coefficients,
                    times,
                    guidance,
                    temperature=options.temperature,
                    clip_denoised=options.clip_denoised,
                    packed=self.packed,
                )
            else:
                for of_step, t, noise_t in zip(coefficients, times, step_noise, strict=True):
                    rows = x.repeat(2, 1) if options.guided else x
                    output = self._forward()(rows, t.expand(len(cond)), cond)
                    x = ddpm_step(x, output, noise_t, of_step, guidance, options)
            first += len(chunk)
        return x.to(given)

    def _forward(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The module's own: what `accelerate` puts in its place keeps it."""
        own: Any = getattr(self.net.__dict__.get("forward"), "own", self.net.forward)
        return own  # type: ignore[no-any-return]

    def _computes_what_the_module_does(self) -> bool:
        """Once for each module: three rows by its own code and by the reference's."""
        if self._checked is None or self._checked[0] is not self.net:
            self._checked = self.net, self._known_answer()
        return self._checked[1]

    def _known_answer(self) -> bool:
        parameters = head_parameters(self.net)
        shape, like = HeadShape.of(parameters), parameters[0]
        generator = torch.Generator("cpu").manual_seed(0)

        def draw(*sizes: int) -> Tensor:
            return torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu").to(
                like
            )

        x, cond = draw(3, shape.channels), draw(3, shape.condition)
        t = torch.tensor([0, 500, 999], dtype=torch.int64, device=like.device)
        with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
            theirs = self._forward()(x, t, cond).float()
            meant = denoise(x, t, cond, parameters).float()
        allowed = SAME if like.dtype in (torch.float32, torch.float64) else SAME_IN_HALF
        return bool((meant - theirs).abs().max() <= allowed * theirs.abs().max())


def has_parameters_of_a_head(net: Any) -> str:
    """Why `net` is not built as MAR's head is; empty if it is."""
    try:
        head_parameters(net)
    except ValueError as error:
        return str(error)
    return ""
