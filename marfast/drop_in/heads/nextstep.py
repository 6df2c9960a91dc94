"""NextStep-1 (arXiv 2508.10711): a flow's velocity by MAR's block, C outputs, guidance of text and
of an image. stepfun-ai/NextStep-1 and vLLM-Omni each have a loop of their own."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marfast.drop_in.heads.loop import Asked, FastLoop, drawn, example_rows
from marfast.drop_in.methods import Own
from marfast.model.head_kind import MARS
from marfast.reference.samplers import Table, flow_steps


class _FlowMatchingHead(FastLoop):
    """A FlowMatchingHead's `sample`, whatever its steps."""

    kind = MARS

    def of_steps(
        self,
        module: Any,
        c: Tensor,
        scales: Sequence[float],
        branches: int,
        table: Table,
        noise_repeat: int,
        draws: int,
    ) -> Asked | str:
        """Noise is drawn for `noise_repeat` tokens and repeated; the first `draws` steps draw."""
        tokens, rest = divmod(len(c), branches)
        if rest or noise_repeat < 1 or tokens % noise_repeat or branches > 1 + len(scales):
            return "other numbers of rows"
        device, channels = c.device, module.input_dim
        copies = tokens // noise_repeat

        def draw() -> tuple[Tensor, Tensor]:
            own = drawn(1 + draws, noise_repeat, channels, device).repeat(1, copies, 1)
            last = own.new_zeros(len(table.timesteps) - draws, tokens, channels)
            return own[0], torch.cat([own[1:], last])

        told = table.timesteps.to(c.dtype).float()
        return Asked(
            cond=c,
            table=table._replace(timesteps=told),
            draw=draw,
            result=lambda tokens: tokens.to(c.dtype),
            scales=tuple(scales[: branches - 1]),
        )


class FastNextStepSample(_FlowMatchingHead):
    """stepfun-ai/NextStep-1's: the last step, Euler's, is of a size of its own."""

    def __call__(
        self,
        module: Any,
        own: Own,
        c: Tensor,
        cfg: float = 1.0,
        cfg2: float = 1.0,
        timesteps_shift: float = 1.0,
        num_sampling_steps: int = 20,
        last_step_size: float = 0.04,
        noise_repeat: int = 1,
    ) -> Tensor:
        steps = (timesteps_shift, num_sampling_steps, last_step_size, noise_repeat)
        return self.run(module, own, c, cfg, cfg2, *steps)

    def asked(self, module: Any, *args: Any) -> Asked | str:
        c, cfg, cfg2, shift, steps, last, noise_repeat = args
        if steps < 2:
            return "fewer than 2 steps"
        if cfg2 > 1.0 and not cfg > 1.0:
            return "cfg2 but no cfg"
        branches = 1 + (cfg > 1.0) + (cfg2 > 1.0)
        table = _stepfun_table(steps, shift, last)
        return self.of_steps(module, c, (cfg, cfg2), branches, table, noise_repeat, steps - 1)

    def example(self, asked: Asked, net: Any) -> tuple[Any, ...]:
        cond = example_rows(2 * asked.branches, asked.cond.shape[1], net.cond_embed.weight.device)
        return (
            cond,
            3.0 if asked.scales else 1.0,
            2.0 if asked.branches > 2 else 1.0,
            1.5,
            4,
            0.1,
            1,
        )


class FastOmniNextStepSample(_FlowMatchingHead):
    """vLLM-Omni's: every step draws, the last one to t = 1."""

    def __call__(
        self,
        module: Any,
        own: Own,
        c: Tensor,
        cfg: float = 1.0,
        cfg_img: float = 1.0,
        cfg_mult: int | None = None,
        timesteps_shift: float = 1.0,
        num_sampling_steps: int = 20,
        last_step_size: float = 0.0,
        noise_repeat: int = 1,
    ) -> Tensor:
        steps = (timesteps_shift, num_sampling_steps, last_step_size, noise_repeat)
        return self.run(module, own, c, cfg, cfg_img, cfg_mult, *steps)

    def asked(self, module: Any, *args: Any) -> Asked | str:
        c, cfg, cfg_img, branches, shift, steps, _, noise_repeat = args
        if branches is None:
            branches = 1 + (cfg > 1.0) + (cfg_img > 1.0)
        if steps < 1:
            return "no steps"
        if branches not in (1, 2, 3):
            return f"guidance of {branches} branches"
        table = _omni_table(steps, shift)
        return self.of_steps(module, c, (cfg, cfg_img), branches, table, noise_repeat, steps)

    def example(self, asked: Asked, net: Any) -> tuple[Any, ...]:
        cond = example_rows(2 * asked.branches, asked.cond.shape[1], net.cond_embed.weight.device)
        return cond, 3.0, 2.0, asked.branches, 1.5, 4, 0.0, 1


def _shifted(t: Tensor, shift: float) -> Tensor:
    return t / (shift - (shift - 1) * t)


@functools.lru_cache(maxsize=16)
def _stepfun_table(steps: int, shift: float, last: float) -> Table:
    times = _shifted(torch.linspace(0, 1 - last, steps, device="cpu"), shift)
    t = times.double().numpy()
    dt = np.append((times[1:] - times[:-1]).double().numpy(), last)
    return flow_steps(t, dt, np.arange(steps) < steps - 1, times)


@functools.lru_cache(maxsize=16)
def _omni_table(steps: int, shift: float) -> Table:
    times = _shifted(torch.linspace(0, 1, steps + 1, device="cpu")[:-1], shift)
    t = times.double().numpy()
    return flow_steps(t, np.append(t[1:], 1.0) - t, np.ones(steps, dtype=bool), times)
