"""MAR's per-token diffusion head as modules: SimpleMLPAdaLN and the diffusion loss round it.

MAR section 3.2 and appendix ("a small MLP"): d residual blocks of width w, conditioned on the
token's vector z and the timestep through adaptive LayerNorm (adaLN, arXiv 2212.09748, section 3.2).
Parameter names are those of LTH14/mar.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from marfast.reference.denoise import layer_norm_modulate, modulate
from marfast.reference.diffusion import Model, create_diffusion, guided_epsilon
from marfast.reference.timesteps import timestep_embedding


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
