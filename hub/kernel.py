"""MAR's per-token diffusion head and transformer blocks: ops, and layers for `kernelize`."""

from hub import layers
from marfast.ops import (
    adaln_mlp,
    attention,
    backend,
    backends,
    ddpm_sample,
    ddpm_step,
    denoise,
    fused_linear,
    layer_norm_modulate,
    pack_adaln_mlp,
    pack_head,
    pack_linear,
    which,
)
from marfast.reference import HeadSpec, create_diffusion

__all__ = [
    "HeadSpec",
    "adaln_mlp",
    "attention",
    "backend",
    "backends",
    "create_diffusion",
    "ddpm_sample",
    "ddpm_step",
    "denoise",
    "fused_linear",
    "layer_norm_modulate",
    "layers",
    "pack_adaln_mlp",
    "pack_head",
    "pack_linear",
    "which",
]
