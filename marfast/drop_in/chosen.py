"""The sampler that `accelerate` was told, in the place of the modules' own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from marfast.checkpoints import Settings
from marfast.errors import ArgumentError
from marfast.generation.schedules import sampling_of
from marfast.model.schedule import DDPM, Sampling, Schedule, schedule_of
from marfast.reference import create_diffusion
from marfast.reference.respacing import ends_of


@dataclass(frozen=True)
class Chosen:
    """Which sampler, over how many steps; None: over those of a module's own process."""

    sampling: Sampling = DDPM
    steps: int | str | None = None

    @classmethod
    def of(cls, **settings: Any) -> "Chosen":
        """From `sampler`, `steps`, `eta`, `guidance_interval`, those that are None as by default;
        ArgumentError for what can't be."""
        checked = Settings(num_iter=1).replace(1, **settings)
        return cls(sampling_of(checked), settings.get("steps"))

    def check(self, diffloss: Any) -> None:
        """Raise ArgumentError for a module whose process isn't MAR's, which steps are chosen of."""
        process: Any = getattr(diffloss, "gen_diffusion", None)
        if self.steps is None or not hasattr(process, "timestep_map"):
            return
        kept = process.timestep_map
        mars = create_diffusion("").alphas_cumprod
        if max(kept) >= len(mars) or not np.allclose(process.alphas_cumprod, mars[kept], rtol=1e-6):
            given = f"{self.steps!r} for a diffusion process that isn't MAR's"
            raise ArgumentError("steps", given, "allowed is None, its own steps")

    def schedule(self, diffloss: Any, device: torch.device) -> Schedule:
        """Of a DiffLoss by itself, which knows of no iteration: of "50-5" it takes the 50."""
        steps = None if self.steps is None else ends_of(self.steps)[0]
        return schedule_of(diffloss.gen_diffusion, steps, self.sampling, device)

    def settings(self) -> dict[str, Any]:
        """The same, as `Settings` have them."""
        steps = {} if self.steps is None else {"steps": self.steps}
        return vars(self.sampling) | steps


OWN = Chosen()
