"""The per-token head as a function of its weights, for any spec, and its whole denoising loop.

MAR section 3.2 and appendix ("a small MLP"): d residual blocks of width w, conditioned on the
token's vector z and the timestep through adaptive LayerNorm (adaLN, arXiv 2212.09748, section 3.2).
marfast/reference/head_spec.py has the formulas; marfast/reference/head.py MAR's own modules.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast.reference.diffusion import HeadOptions, ddpm_step
from marfast.reference.head_spec import MAR_HEAD, HeadSpec
from marfast.reference.head_weights import Affine, BlockWeights, HeadWeights, Layer, TimeWeights
from marfast.reference.timesteps import timestep_embedding


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b, x taken to the weight's dtype (float32 rows, half-precision weights)."""
    return F.linear(x.to(weight.dtype), weight, bias)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def layer_norm_modulate(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """LayerNorm(x)·(1 + scale) + shift; x, shift, scale [R, w]; weight, bias [w] -> [R, w]."""
    return modulate(norm(x, "layer", Affine(weight, bias), eps), shift, scale)


def norm(x: Tensor, kind: str, affine: Affine, eps: float) -> Tensor:
    """x [R, w] normalised as one of `head_spec.NORMS`; weight, bias [w], taken to x's dtype."""
    weight, bias = (None if part is None else part.to(x.dtype) for part in affine)
    if kind == "layer":
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    spread = x.square().mean(-1, keepdim=True) if kind == "rms" else x.var(-1, keepdim=True)
    normed = x * torch.rsqrt(spread + eps)
    return normed if weight is None else normed * weight


def activate(x: Tensor, activation: str) -> Tensor:
    """The activation of a block's MLP; of "swiglu" x is twice as wide as the result."""
    if activation == "gelu":
        return F.gelu(x)
    if activation == "swiglu":
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value
    return F.silu(x)


def adaln_mlp(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float = 1e-6,
) -> Tensor:
    """MAR's block: x + gate·(W₂ SiLU(W₁ modulate(LN(x)) + b₁) + b₂); x, shift, scale, gate [R, w]
    -> [R, w]."""
    layers = (Affine(ln_weight, ln_bias), Layer(w1, b1), Layer(w2, b2))
    parts = {"shift": shift, "scale": scale, "gate": gate}
    return residual_block(x, parts, BlockWeights(*layers, Affine(), None), HeadSpec(eps=eps))


def residual_block(
    x: Tensor, parts: dict[str, Tensor], block: BlockWeights, spec: HeadSpec
) -> Tensor:
    """One block: x and its modulation's shift, scale and gate [R, w] -> [R, w]."""
    h = norm(x, spec.norm, block.norm, spec.eps)
    h = linear(modulate(h, parts["shift"], parts["scale"]), *block.mlp_in)
    h = linear(activate(h, spec.activation), *block.mlp_out)
    if spec.norm_after:
        h = norm(h.to(x.dtype), spec.norm, block.norm_after, spec.eps_after)
    return x + parts["gate"] * h


def embedded_time(t: Tensor, times: Sequence[TimeWeights], spec: HeadSpec) -> Tensor:
    """e [R, w] of t [R], or [R, times]."""
    if spec.time_scale != 1.0:
        t = t * spec.time_scale
    embedded = []
    for now, layers in zip([t] if spec.times == 1 else t.unbind(1), times, strict=True):
        sinusoids = timestep_embedding(now, layers.mlp_in.weight.shape[1])
        e = linear(F.silu(linear(sinusoids, *layers.mlp_in)), *layers.mlp_out)
        if spec.time_norm != "none":
            e = e.to(torch.promote_types(e.dtype, sinusoids.dtype))
            e = norm(e, spec.time_norm, layers.norm, spec.time_eps)
        embedded.append(e)
    return embedded[0] if spec.times == 1 else sum(embedded[1:], embedded[0]) / spec.times


def embedded_condition(z: Tensor, layers: Sequence[Layer]) -> Tensor:
    """c [R, w] of z [R, D]."""
    c = linear(z, *layers[0])
    for layer in layers[1:]:
        c = linear(F.silu(c), *layer)
    return c


def denoise(
    x: Tensor,
    t: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    spec: HeadSpec = MAR_HEAD,
) -> Tensor:
    """The whole head once: x [R, C], t [R] (or [R, times]), cond [R, D], the `weights` of a head of
    this spec in the order of its state_dict -> [R, 2C] (or [R, C]). Weights may be of half
    precision: rows of activations then are too, but for the residual stream and what is
    normalised."""
    return head_output(x, t, cond, HeadWeights.of(weights, spec), spec)


def head_output(x: Tensor, t: Tensor, cond: Tensor, head: HeadWeights, spec: HeadSpec) -> Tensor:
    """`denoise`, by weights that have their names."""
    y = embedded_time(t, head.times, spec) + embedded_condition(cond, head.cond)

    def modulation_of(layer: Layer) -> Tensor:  # each its own SiLU, as MAR's gradients are summed
        return linear(F.silu(y) if spec.modulation_silu else y, *layer)

    x = linear(x, *head.input).to(x.dtype)
    parts: dict[str, Tensor] = {}
    for block in head.blocks:
        if block.modulation is not None:
            modulation = modulation_of(block.modulation).chunk(3, dim=-1)
            parts = dict(zip(spec.parts, modulation, strict=True))
        x = residual_block(x, parts, block, spec)
    modulation = modulation_of(head.final_modulation).chunk(2, dim=-1)
    parts = dict(zip(spec.final_parts, modulation, strict=True))
    x = modulate(norm(x, spec.norm, Affine(), spec.eps), parts["shift"], parts["scale"])
    return linear(x, *head.final)


def ddpm_sample(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    schedule: Tensor,
    timesteps: Tensor,
    guidance: Tensor,
    options: HeadOptions,
    spec: HeadSpec = MAR_HEAD,
) -> Tensor:
    """The whole denoising loop (MAR algorithm 1's inner loop) of N tokens.

    noise [N, C] (or [2, N, C] of a multistep sampler, as `ddpm_step` has it), step_noise [S, N, C],
    cond [R, D] (R = N, or N rows for each of guidance's branches, conditional rows first), schedule
    [S, 8] and timesteps [S] (or [S, times]) of a `samplers.Table`, guidance [1], or [S] of each
    step (of three branches [1, 2] or [S, 2]) -> noise's shape.
    """
    x = noise
    scales = guidance.reshape(-1, max(1, options.branches - 1)).expand(len(schedule), -1)
    for coefficients, t, noise_t, scale in zip(
        schedule, timesteps, step_noise, scales, strict=True
    ):
        now = x[0] if x.dim() == 3 else x
        rows = now.repeat(options.branches, 1)
        output = denoise(rows, t.expand(rows.shape[0], *t.shape), cond, weights, spec)
        x = ddpm_step(x, output, noise_t, coefficients, scale, options)
    return x
