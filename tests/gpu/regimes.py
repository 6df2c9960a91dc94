"""`ddpm_sample`'s cuda backend in one of its regimes, whatever its plan would choose."""

from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from marfast.ops.ddpm_sample import cuda, plan
from marfast.ops.head import HeadShape

REGIMES = ("tall", "persistent")
Run = Callable[[], Tensor]


class Unable(Exception):
    """A case can't be run; the text says why."""


def in_regime(regime: str, run: Run) -> Run:
    """`run`, with the regime forced; it raises Unable where none of its plans fits."""

    def chosen(
        shape: HeadShape,
        dtype: torch.dtype,
        device: torch.device,
        rows: int,
        steps: int,
        variant: str = "",
    ) -> tuple[plan.HeadPlan | None, str]:
        if regime == "tall":
            return None, "asked for"
        profile = plan.profile_of(device)
        found = plan.head_plan(rows, shape, profile, dtype, steps, persistent=True)
        if found.regime != "persistent":
            raise Unable("no persistent plan fits")
        return found, ""

    def forced() -> Tensor:
        with patch.object(cuda, "regime", chosen):
            return run()

    return forced
