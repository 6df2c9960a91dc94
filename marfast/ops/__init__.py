"""marfast's ops: each usable alone, each with several backends."""

from marfast.errors import BackendUnavailable
from marfast.ops.adaln_mlp import adaln_mlp
from marfast.ops.adaln_mlp.cpu import pack_adaln_mlp
from marfast.ops.attention import attention
from marfast.ops.choice import backend
from marfast.ops.ddpm_sample import ddpm_sample
from marfast.ops.ddpm_step import ddpm_step
from marfast.ops.denoise import denoise
from marfast.ops.diffusion_loss import diffusion_loss
from marfast.ops.diffusion_loss_gradients import diffusion_loss_gradients
from marfast.ops.fused_linear import fused_linear
from marfast.ops.fused_linear.cpu import pack_linear
from marfast.ops.group_norm_silu import group_norm_silu
from marfast.ops.head.cpu import pack_head
from marfast.ops.layer_norm_modulate import layer_norm_modulate
from marfast.ops.op import backends, which

__all__ = [
    "BackendUnavailable",
    "adaln_mlp",
    "attention",
    "backend",
    "backends",
    "ddpm_sample",
    "ddpm_step",
    "denoise",
    "diffusion_loss",
    "diffusion_loss_gradients",
    "fused_linear",
    "group_norm_silu",
    "layer_norm_modulate",
    "pack_adaln_mlp",
    "pack_head",
    "pack_linear",
    "which",
]
