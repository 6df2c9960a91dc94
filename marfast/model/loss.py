"""The training loss through the op: a DiffLoss's own parameters, and the random numbers that its
own code draws."""

from typing import Any

import torch
from torch import Tensor

from marfast import ops
from marfast.model.head_kind import MARS
from marfast.model.packing import compute_dtype


def draw(diffloss: Any, target: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """A timestep and noise for each copy of the tokens [N, C] -> [copies · N], [copies · N, C]."""
    many = target.repeat(copies, 1) if copies > 1 else target
    steps = diffloss.train_diffusion.num_timesteps
    return torch.randint(0, steps, (len(many),), device=target.device), torch.randn_like(many)


def loss_of(
    diffloss: Any, target: Tensor, z: Tensor, mask: Tensor | None, copies: int = 1
) -> Tensor:
    """Of the tokens target [N, C] by their conditions z [N, D], weighed by mask [N], each of them
    at `copies` timesteps -> scalar; in the dtype that products are computed in here."""
    t, noise = draw(diffloss, target, copies)
    parameters = MARS.parameters(diffloss.net).flat
    dtype = compute_dtype(parameters[0])
    weights = [parameter.to(dtype) for parameter in parameters]
    return ops.diffusion_loss(target, z.to(target.dtype), t, noise, weights, mask)
