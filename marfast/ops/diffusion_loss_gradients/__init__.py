"""`diffusion_loss_gradients`: the diffusion loss and its gradients, in one go."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.ops import checks
from marfast.ops.flops import Count
from marfast.ops.head import HeadShape
from marfast.ops.op import Args, Draw, op
from marfast.ops.runtime import DTYPES, check_memory
from marfast.reference import diffusion_loss as reference
from marfast.reference.respacing import NUM_TRAIN_TIMESTEPS


@op(backends=("triton", "torch"), differentiable=False, transformed="ops.diffusion_loss")
def diffusion_loss_gradients(
    target: Tensor,
    cond: Tensor,
    t: Tensor,
    noise: Tensor,
    weights: Sequence[Tensor],
    mask: Tensor | None = None,
) -> Tensor:
    """`diffusion_loss`, and its gradients in cond and in the weights: forward and backward of the
    head, chunk by chunk, so that activations of a few rows are kept and of none in the end. It has
    no derivatives of its own, and takes no part in torch.func's transforms: `diffusion_loss` does.

    Args:
        target, cond, t, noise, weights, mask: as of `diffusion_loss`.

    Returns:
        [1 + N D + P], target's dtype: the loss, its gradient in cond, and those in the weights, P
        numbers in all, each flattened, in order.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed, or a timestep outside 0 to 999.

    Source: MAR (arXiv 2406.11838), equation 2; the bound is that of arXiv 2102.09672, section 3.1.
    """


@diffusion_loss_gradients.check
def check(a: Args) -> None:
    """Of both ops' arguments."""
    shape = HeadShape.of(a.weights)
    own, half = (a.target.dtype,), (torch.bfloat16, torch.float16)
    tokens, _ = checks.first("target", a.target, "N, C", (torch.float32, torch.float64))
    channels, x = shape.channels, a.target
    checks.like("target", x, "N, C", (tokens, channels), own, x, "target")
    checks.like("cond", a.cond, "N, D", (tokens, shape.condition), own, x, "target")
    checks.first("t", a.t, "M N", (torch.int64,))
    rows = len(a.t)
    if rows % max(1, tokens) or (tokens == 0) != (rows == 0):
        raise ValueError(
            f"t has {rows} rows; it must have M N, some copies of target's N = {tokens}"
        )
    checks.like("t", a.t, "M N", (rows,), (torch.int64,), x, "target")
    checks.like("noise", a.noise, "M N, C", (rows, channels), own, x, "target")
    first, allowed = a.weights[0], (*own, *half)
    checks.like("weights[0]", first, "outputs, inputs", first.shape, allowed, x, "target")
    if a.mask is not None:
        kinds = (*own, torch.bool, *DTYPES)
        checks.like("mask", a.mask, "N", (tokens,), kinds, x, "target")


@diffusion_loss_gradients.check_values
def check_values(a: Args) -> None:
    """Of both ops' arguments."""
    check_memory(t=a.t)
    if a.t.numel():
        first, last = map(int, a.t.aminmax())
        if first < 0 or last >= NUM_TRAIN_TIMESTEPS:
            raise ArgumentError("t", f"timesteps {first} to {last}", "allowed are 0 to 999")


@diffusion_loss_gradients.fake
def _fake(a: Args) -> Tensor:
    numbers = 1 + a.cond.numel() + sum(weight.numel() for weight in a.weights)
    return torch.empty(numbers, dtype=a.target.dtype, device=a.target.device)


@diffusion_loss_gradients.reference
def _reference(a: Args) -> Tensor:
    return reference.diffusion_loss_gradients(*a)


@diffusion_loss_gradients.flops
def _flops(count: Count, a: Args) -> int:
    """Backward's products are two for each of forward's, but for those whose input is given."""
    shape = HeadShape.of(a.weights)
    given = 2 * len(a.t) * shape.width * (shape.channels + shape.frequencies)
    return 3 * count(reference.diffusion_loss, *a) - given


@diffusion_loss_gradients.shorten
def shortened(a: Args) -> Args:
    """Of both ops' arguments: all copies of up to 16 tokens, whatever the mask."""
    few = slice(min(16, len(a.target)))

    def of_copies(x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, len(a.target)))[:, few].flatten(0, 1) if len(x) else x

    return a._replace(
        target=a.target[few],
        cond=a.cond[few],
        t=of_copies(a.t),
        noise=of_copies(a.noise),
        mask=None,
    )


@diffusion_loss_gradients.example
def example(draw: Draw) -> dict[str, Any]:
    """Both ops': 12 tokens of 16 channels at 2 timesteps each, two of three masked, a head of 2
    blocks 96 wide; dtype is the weights'."""
    tokens, copies = 12, 2
    shape = HeadShape(16, condition=64, width=96, depth=2, frequencies=256, hidden=96)
    places = torch.arange(tokens, device=draw.device)
    return {
        "target": draw.normal(tokens, shape.channels),
        "cond": draw.normal(tokens, shape.condition),
        "t": draw.integers(1000, copies * tokens),
        "noise": draw.normal(copies * tokens, shape.channels),
        "weights": [draw.weight(*sizes).to(draw.dtype) for sizes in shape.expected()],
        "mask": (places % 3 > 0).float(),
    }
