"""The diffusion loss as a function of its random numbers and of a head's tensors."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from marfast.reference.denoise import denoise
from marfast.reference.diffusion import create_diffusion

training_process = functools.lru_cache(maxsize=1)(create_diffusion)
"""The process that MAR is trained on, of 1000 timesteps."""


def diffusion_loss(
    target: Tensor,
    cond: Tensor,
    t: Tensor,
    noise: Tensor,
    weights: Sequence[Tensor],
    mask: Tensor | None = None,
) -> Tensor:
    """Mean loss (MAR equation 2) of N tokens, each at M timesteps -> scalar.

    target [N, C], cond [N, D]; t [M N] and noise [M N, C], copy after copy; the `weights` of a
    `SimpleMLPAdaLN` in the order of its state_dict; mask [N] weighs the tokens in the mean.
    """
    copies = len(t) // max(1, len(target))
    losses = training_process().training_losses(
        lambda x, t, c: denoise(x, t, c, weights),
        target.repeat(copies, 1),
        t,
        {"c": cond.repeat(copies, 1)},
        noise,
    )["loss"]
    if mask is not None:
        mask = mask.repeat(copies)
        losses = (losses * mask).sum() / mask.sum()
    return losses.mean()


def diffusion_loss_gradients(
    target: Tensor,
    cond: Tensor,
    t: Tensor,
    noise: Tensor,
    weights: Sequence[Tensor],
    mask: Tensor | None = None,
) -> Tensor:
    """The loss, then its gradients in cond and in each of the weights, flat, in target's dtype ->
    [1 + N D + P]."""

    def loss(cond: Tensor, *weights: Tensor) -> Tensor:
        return diffusion_loss(target, cond, t, noise, weights, mask)

    places = tuple(range(1 + len(weights)))
    gradients, value = torch.func.grad_and_value(loss, places)(cond, *weights)
    return torch.cat([part.flatten().to(target.dtype) for part in (value, *gradients)])
