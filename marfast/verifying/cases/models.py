"""Small models whose sizes are uneven on purpose."""

import functools
from typing import Any

from torch import nn

from marfast.verifying.case import Implementation, fill

TINY: dict[str, Any] = {
    "img_size": 16,
    "vae_stride": 1,
    "patch_size": 4,
    "vae_embed_dim": 1,
    "encoder_embed_dim": 48,
    "encoder_depth": 2,
    "encoder_num_heads": 3,
    "decoder_embed_dim": 48,
    "decoder_depth": 2,
    "decoder_num_heads": 3,
    "class_num": 10,
    "buffer_size": 4,
    "diffloss_d": 2,
    "diffloss_w": 40,
    "num_sampling_steps": "4",
}

UNEQUAL: dict[str, Any] = {
    "encoder_embed_dim": 64,
    "encoder_depth": 1,
    "encoder_num_heads": 4,
    "decoder_embed_dim": 96,
    "decoder_depth": 3,
    "decoder_num_heads": 2,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "4x4 patches": {},
    "norm eps 1e-6": {"norm_layer": functools.partial(nn.LayerNorm, eps=1e-6)},
    "unequal widths": UNEQUAL,
    "head width 80": {"encoder_embed_dim": 160, "encoder_num_heads": 2},
    "16 latent channels": {"img_size": 64, "vae_stride": 16, "patch_size": 1, "vae_embed_dim": 16},
    "3 channels, 2x2 patches": {"img_size": 8, "patch_size": 2, "vae_embed_dim": 3},
    "3 numbers a token": {"img_size": 4, "patch_size": 1, "vae_embed_dim": 3},
    "one buffer token": {"buffer_size": 1, "mlp_ratio": 2.5},
}


def tiny(implementation: Implementation, seed: int = 0, **options: Any) -> Any:
    """TINY with `options`, filled and ready to sample."""
    return fill(implementation.mar(**TINY | options), seed).eval()
