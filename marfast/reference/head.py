"""The per-token diffusion head: SimpleMLPAdaLN and the diffusion loss round it.

MAR section 3.2 and appendix ("a small MLP"): d residual blocks of width w, conditioned on the
token's vector z and the timestep through adaptive LayerNorm (adaLN, arXiv 2212.09748, section 3.2).
Parameter names are those of LTH14/mar.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from marfast.reference.diffusion import (
    HeadOptions,
    Model,
    create_diffusion,
    ddpm_step,
    guided_epsilon,
)
from marfast.reference.head_weights import HeadWeights, Layer
from marfast.reference.timesteps import timestep_embedding


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
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
    return modulate(F.layer_norm(x, (x.shape[-1],), weight, bias, eps), shift, scale)


def activate(x: Tensor, options: HeadOptions) -> Tensor:
    """The activation of a block's MLP."""
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
    options: HeadOptions = HeadOptions(),  # noqa: B008 (it can't change)
) -> Tensor:
    """x + gate·(W₂ act(W₁ modulate(LN(x)) + b₁) + b₂); x, shift, scale, gate [R, w] -> [R, w]."""
    h = layer_norm_modulate(x, shift, scale, ln_weight, ln_bias, eps)
    h = linear(activate(linear(h, w1, b1), options), w2, b2)
    return x + gate * h


def denoise(
    x: Tensor,
    t: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    options: HeadOptions = HeadOptions(),  # noqa: B008
) -> Tensor:
    """The whole head once: x [R, C], t [R], cond [R, D], the `weights` of a `SimpleMLPAdaLN` in the
    order of its state_dict -> [R, 2C]. Weights may be of half precision: rows of activations then
    are too, but for the residual stream and what is normalised."""
    head = HeadWeights.of(weights)
    embedding = timestep_embedding(t, head.time_in.weight.shape[1])
    time = linear(F.silu(linear(embedding, *head.time_in)), *head.time_out)
    y = time + linear(cond, *head.cond)
    x = linear(x, *head.input).to(x.dtype)
    for block in head.blocks:
        shift, scale, gate = linear(F.silu(y), *block.modulation).chunk(3, dim=-1)
        norm = Layer(*(tensor.to(x.dtype) for tensor in block.norm))
        mlp = (*block.mlp_in, *block.mlp_out)
        x = adaln_mlp(x, shift, scale, gate, *norm, *mlp, options=options)
    shift, scale = linear(F.silu(y), *head.final_modulation).chunk(2, dim=-1)
    return linear(layer_norm_modulate(x, shift, scale), *head.final)


def ddpm_sample(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    schedule: Tensor,
    timesteps: Tensor,
    guidance: Tensor,
    options: HeadOptions,
) -> Tensor:
    """The whole denoising loop (MAR algorithm 1's inner loop) of N tokens.

    noise [N, C] (or [2, N, C] of a multistep sampler, as `ddpm_step` has it), step_noise [S, N, C],
    cond [R, D] (R = N, or 2N if guided, conditional rows first), schedule [S, 8] and timesteps [S]
    of a `samplers.Table`, guidance [1], or [S] of each step -> noise's shape.
    """
    x = noise
    scales = guidance.expand(len(schedule))[:, None]
    for coefficients, t, noise_t, scale in zip(
        schedule, timesteps, step_noise, scales, strict=True
    ):
        now = x[0] if x.dim() == 3 else x
        rows = now.repeat(2, 1) if options.guided else now
        output = denoise(rows, t.expand(rows.shape[0]), cond, weights, options)
        x = ddpm_step(x, output, noise_t, coefficients, scale, options)
    return x


def _mlp(in_features: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_features, width), nn.SiLU(), nn.Linear(width, width))


def _adaln_modulation(width: int, chunks: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, chunks * width))


class TimestepEmbedder(nn.Module):
    """Timesteps [N] -> [N, w]."""

    def __init__(self, hidden_size: int, frequency_embedding_size: int = 256):
        super().__init__()
        self.mlp = _mlp(frequency_embedding_size, hidden_size)
        self.frequency_embedding_size = frequency_embedding_size

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.mlp(timestep_embedding(t, self.frequency_embedding_size))
        return out


class ResBlock(nn.Module):
    """One residual block of the head: x, y [R, w] -> [R, w]."""

    def __init__(self, channels: int):
        super().__init__()
        self.in_ln = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = _mlp(channels, channels)
        self.adaLN_modulation = _adaln_modulation(channels, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, dim=-1)
        out: Tensor = x + gate * self.mlp(modulate(self.in_ln(x), shift, scale))
        return out


class FinalLayer(nn.Module):
    """x, y [R, w] -> [R, out_channels]."""

    def __init__(self, model_channels: int, out_channels: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(model_channels, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(model_channels, out_channels)
        self.adaLN_modulation = _adaln_modulation(model_channels, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(y).chunk(2, dim=-1)
        out: Tensor = self.linear(layer_norm_modulate(x, shift, scale, eps=self.norm_final.eps))
        return out


class SimpleMLPAdaLN(nn.Module):
    """The head. `forward(x [R, C], t [R], c [R, D]) -> [R, out_channels]`."""

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        z_channels: int,
        num_res_blocks: int,
        grad_checkpointing: bool = False,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.out_channels = out_channels
        self.num_res_blocks = num_res_blocks
        self.grad_checkpointing = grad_checkpointing
        self.time_embed = TimestepEmbedder(model_channels)
        self.cond_embed = nn.Linear(z_channels, model_channels)
        self.input_proj = nn.Linear(in_channels, model_channels)
        self.res_blocks = nn.ModuleList(ResBlock(model_channels) for _ in range(num_res_blocks))
        self.final_layer = FinalLayer(model_channels, out_channels)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if name.startswith("time_embed"):
                    nn.init.normal_(module.weight, std=0.02)
                if "adaLN_modulation" in name or name == "final_layer.linear":
                    nn.init.zeros_(module.weight)

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        x = self.input_proj(x)
        y = self.time_embed(t) + self.cond_embed(c)
        for block in self.res_blocks:
            x = (
                checkpoint(block, x, y, use_reentrant=False)
                if self.grad_checkpointing
                else block(x, y)
            )
        out: Tensor = self.final_layer(x, y)
        return out

    def forward_with_cfg(
        self, x: Tensor, t: Tensor, c: Tensor, cfg_scale: float | Tensor
    ) -> Tensor:
        """The head under guidance: x [2N, C], of which the first half is used; both halves of the
        result have the guided ε, each its own variance fraction."""
        half = x[: len(x) // 2]
        output = self.forward(torch.cat([half, half]), t, c)
        eps, rest = output[:, : self.in_channels], output[:, self.in_channels :]
        guided = guided_epsilon(eps, cfg_scale)
        return torch.cat([torch.cat([guided, guided]), rest], dim=1)


class DiffLoss(nn.Module):
    """The diffusion loss (MAR equation 2) and the sampler of the same head (MAR algorithm 1).

    `clip_denoised` clips x_0 to [−1, 1] in sampling: for models whose tokens lie there.
    """

    def __init__(
        self,
        target_channels: int,
        z_channels: int,
        depth: int,
        width: int,
        num_sampling_steps: str,
        grad_checkpointing: bool = False,
        clip_denoised: bool = False,
    ):
        super().__init__()
        self.in_channels = target_channels
        self.clip_denoised = clip_denoised
        self.net = SimpleMLPAdaLN(
            in_channels=target_channels,
            model_channels=width,
            out_channels=target_channels * 2,
            z_channels=z_channels,
            num_res_blocks=depth,
            grad_checkpointing=grad_checkpointing,
        )
        self.train_diffusion = create_diffusion()
        self.gen_diffusion = create_diffusion(num_sampling_steps)

    def forward(self, target: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean loss of target [N, C] given z [N, D] over the tokens where mask [N] is 1."""
        steps = self.train_diffusion.num_timesteps
        t = torch.randint(0, steps, (target.shape[0],), device=target.device)
        loss = self.train_diffusion.training_losses(self.net, target, t, {"c": z})["loss"]
        if mask is not None:
            loss = (loss * mask).sum() / mask.sum()
        return loss.mean()

    def sample(self, z: Tensor, temperature: float = 1.0, cfg: float | Tensor = 1.0) -> Tensor:
        """Tokens [R, C] given z [R, D]; with cfg ≠ 1, R = 2N, conditional rows first, and only the
        first N rows of the result count."""
        kwargs: dict[str, Any] = {"c": z}
        model: Model = self.net.forward
        rows = z.shape[0]
        # drawn by the CPU's generator on every device, as the original does
        if cfg == 1.0:
            noise = torch.randn(rows, self.in_channels)
        else:
            noise = torch.randn(rows // 2, self.in_channels).repeat(2, 1)
            kwargs["cfg_scale"] = cfg
            model = self.net.forward_with_cfg
        return self.gen_diffusion.p_sample_loop(
            model,
            (rows, self.in_channels),
            noise.to(z.device),
            clip_denoised=self.clip_denoised,
            model_kwargs=kwargs,
            temperature=temperature,
        )
