"""A sampler's table where a model lies, and which of its steps guidance has."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marfast.reference.diffusion import GaussianDiffusion
from marfast.reference.respacing import NUM_TRAIN_TIMESTEPS, sampling_timesteps
from marfast.reference.samplers import Table, table_of


@dataclass(frozen=True)
class Sampling:
    """Which sampler, whatever its number of steps."""

    sampler: str = "ddpm"
    eta: float = 0.0
    """Of DDIM: the share of DDPM's noise."""
    guidance_interval: tuple[float, float] | None = None
    """Guidance has only the steps whose t / 1000 lies in it; None: all."""


DDPM = Sampling()


@dataclass(frozen=True)
class Schedule:
    """What the S steps of a sampler read."""

    coefficients: Tensor  # [S, 8]
    timesteps: Tensor  # [S]
    learned_range: bool
    multistep: bool
    guided: range  # the steps that guidance has

    def __len__(self) -> int:
        return len(self.timesteps)

    @classmethod
    def of(cls, table: Table, sampling: Sampling, device: torch.device) -> "Schedule":
        low, high = sampling.guidance_interval or (0.0, 1.0)
        times = [t / NUM_TRAIN_TIMESTEPS for t in table.timesteps.tolist()]
        first = sum(time > high for time in times)
        guided = range(first, max(first, sum(time >= low for time in times)))
        tensors = (table.coefficients.to(device), table.timesteps.to(device))
        return cls(*tensors, table.learned_range, table.multistep, guided)

    @classmethod
    def whole(cls, table: Table, device: torch.device) -> "Schedule":
        """With guidance, if there is any, in all steps."""
        tensors = (table.coefficients.to(device), table.timesteps.to(device))
        return cls(*tensors, table.learned_range, table.multistep, range(len(table.timesteps)))

    def runs(self, steps: range) -> Iterator[tuple[slice, bool]]:
        """Consecutive steps, cut where guidance begins and ends; and whether it has them."""
        cuts = [steps.start, self.guided.start, self.guided.stop, steps.stop]
        cuts = sorted(min(max(cut, steps.start), steps.stop) for cut in cuts)
        for begin, end in itertools.pairwise(cuts):
            if begin < end:
                yield slice(begin, end), begin in self.guided


def schedule_of(
    own: Any, steps: int | str | None, sampling: Sampling, device: torch.device
) -> Schedule:
    """The sampler over so many steps of MAR's process; None: over those of the module's own."""
    process = own
    if steps is not None:
        process = GaussianDiffusion(sampling_timesteps(steps, sampling.sampler))
    return Schedule.of(table_of(process, sampling.sampler, sampling.eta), sampling, device)
