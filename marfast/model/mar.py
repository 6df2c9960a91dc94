"""The thin model: a MAR module's own parameters, run through the package's ops.

It has no parameters. It works on index tensors (which tokens are known, which to predict) where the
reference works on masks, so that nothing waits for data; the values are the same.
"""

from typing import Any

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.reference.diffusion import create_diffusion

Schedule = tuple[Tensor, Tensor]


def _rows(index: Tensor) -> Tensor:
    return torch.arange(index.shape[0], device=index.device)[:, None]


class FastMAR:
    """The ops bound to a MAR `module`: the reference's, or any with the same parameter names."""

    def __init__(self, module: nn.Module):
        self.module: Any = module

    @property
    def device(self) -> torch.device:
        device: torch.device = self.module.mask_token.device
        return device

    def schedule(self, steps: int | str) -> Schedule:
        """Coefficients [S, 7] and timesteps [S] of the sampler, on the model's device."""
        coefficients, timesteps = create_diffusion(str(steps)).sampling_schedule()
        return coefficients.to(self.device), timesteps.to(self.device)

    def class_embedding(self, labels: Tensor) -> Tensor:
        """labels [B], −1 for no class -> [B, D]."""
        known: Tensor = self.module.class_emb(labels.clamp(min=0))
        return torch.where((labels < 0)[:, None], self.module.fake_latent.to(known.dtype), known)

    def condition(
        self, tokens: Tensor, known: Tensor, predict: Tensor, class_embedding: Tensor
    ) -> Tensor:
        """Condition vectors z of the tokens to predict: encoder, then decoder.

        tokens [R, L, C]; known [R, k] and predict [R, n] positions, each row ascending;
        class_embedding [R, D] -> z [R·n, D].
        """
        m = self.module
        first = torch.arange(m.buffer_size, device=known.device).expand(known.shape[0], -1)
        visible = torch.cat([first, known + m.buffer_size], dim=1)
        rows = _rows(known)

        buffer = class_embedding[:, None].expand(-1, m.buffer_size, -1)
        x = torch.cat([buffer, m.z_proj(tokens)], dim=1) + m.encoder_pos_embed_learned
        x = m.z_proj_ln(x)[rows, visible]
        for block in m.encoder_blocks:
            x = block(x)

        x = m.decoder_embed(m.encoder_norm(x))
        positions = m.decoder_pos_embed_learned.shape[1]
        padded = m.mask_token.repeat(x.shape[0], positions, 1).to(x.dtype)
        padded[rows, visible] = x
        x = padded + m.decoder_pos_embed_learned
        for block in m.decoder_blocks:
            x = block(x)
        x = m.decoder_norm(x[rows, predict + m.buffer_size])
        z: Tensor = (x + m.diffusion_pos_embed_learned[0, predict]).flatten(0, 1)
        return z

    def sample_head(
        self,
        z: Tensor,
        noise: Tensor,
        step_noise: Tensor,
        schedule: Schedule,
        guidance: Tensor,
        temperature: float,
        clip_denoised: bool,
    ) -> Tensor:
        """The head's S denoising steps: z [R, D], noise [N, C], step_noise [S, N, C], guidance [1]
        -> tokens [N, C]. R = 2N under guidance, conditional rows first."""
        net = self.module.diffloss.net
        x = noise
        for t, coefficients, noise_t in zip(schedule[1], schedule[0], step_noise, strict=True):
            rows = x if z.shape[0] == x.shape[0] else torch.cat([x, x])
            output = net(rows, t.expand(rows.shape[0]), z)
            x = ops.ddpm_step(
                x, output, noise_t, coefficients, guidance, temperature, clip_denoised
            )
        return x
