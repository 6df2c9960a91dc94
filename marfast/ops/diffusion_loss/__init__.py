"""`diffusion_loss`: the training loss of a head, for the masked tokens alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from marfast.ops import diffusion_loss_gradients as of_gradients
from marfast.ops.diffusion_loss_gradients import diffusion_loss_gradients
from marfast.ops.op import Args, op
from marfast.reference import diffusion_loss as reference


@op(backends=("triton", "torch"))
def diffusion_loss(
    target: Tensor,
    cond: Tensor,
    t: Tensor,
    noise: Tensor,
    weights: Sequence[Tensor],
    mask: Tensor | None = None,
    recompute: bool = False,
) -> Tensor:
    """Mean squared error of ε plus the variational bound at detached ε, averaged over the tokens
    that the mask weighs; the others cost nothing. Activations of a few rows are kept at a time, and
    of none between forward and backward.

    Args:
        target: [N, C] float32 (float64: plain PyTorch only), the clean tokens.
        cond: [N, D], target's dtype, the condition vectors z.
        t: [M N] int64, each row's timestep, of the 1000 that the head is trained with: M copies of
            the N tokens, copy after copy.
        noise: [M N, C], target's dtype.
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order; target's dtype, bfloat16
            or float16, which what enters a product is rounded to, too.
        mask: [N], floating point or bool, each token's weight in the mean; None: all alike. Tokens
            of weight 0 are left out.
        recompute: compute gradients when backward asks for them, and forward once more, instead of
            together with the loss. Keeps nothing in between (else it is as much memory as cond and
            the weights), and takes a third longer.

    Returns:
        The loss, a scalar of target's dtype. Gradients flow to cond and weights; where others are
        asked for, they are the reference's, which keeps all activations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed, or a timestep outside 0 to 999.

    Source: MAR (arXiv 2406.11838), equation 2; the bound is that of arXiv 2102.09672, section 3.1.
    """


diffusion_loss.check(of_gradients.check)
diffusion_loss.check_values(of_gradients.check_values)
diffusion_loss.shorten(of_gradients.shortened)
diffusion_loss.example(of_gradients.example)


@diffusion_loss.fake
def _fake(a: Args) -> Tensor:
    return torch.empty((), dtype=a.target.dtype, device=a.target.device)


@diffusion_loss.reference
def _reference(a: Args) -> Tensor:
    return reference.diffusion_loss(*a[:-1])


@diffusion_loss.recorded
def _recorded(a: Args) -> Tensor | None:
    others = [value for value in (a.target, a.noise, a.mask) if value is not None]
    if any(value.requires_grad for value in others):
        return None
    result: Tensor = _Recorded.apply(  # type: ignore[no-untyped-call]
        a.recompute, a.target, a.t, a.noise, a.mask, a.cond, *a.weights
    )
    return result


class _Recorded(torch.autograd.Function):
    """The op with its gradients in cond and weights."""

    @staticmethod
    def forward(
        ctx: Any,
        recompute: bool,
        target: Tensor,
        t: Tensor,
        noise: Tensor,
        mask: Tensor | None,
        cond: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        ctx.kinds = [(value.shape, value.dtype) for value in (cond, *weights)]
        if recompute:
            ctx.save_for_backward(target, t, noise, mask, cond, *weights)
            return diffusion_loss(target, cond, t, noise, weights, mask)
        flat = diffusion_loss_gradients(target, cond, t, noise, weights, mask)
        ctx.save_for_backward(flat)
        return flat[0].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if len(ctx.saved_tensors) == 1:
            (flat,) = ctx.saved_tensors
        else:
            target, t, noise, mask, cond, *weights = ctx.saved_tensors
            flat = diffusion_loss_gradients(target, cond, t, noise, weights, mask)
        gradients, first = [], 1
        for (shape, dtype), needed in zip(ctx.kinds, ctx.needs_input_grad[5:], strict=True):
            part = flat[first : first + shape.numel()].view(shape)
            gradients.append((part * grad).to(dtype) if needed else None)
            first += shape.numel()
        return (None,) * 5 + tuple(gradients)
