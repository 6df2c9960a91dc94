"""marfast's ops: each usable alone, each with several backends (`registry`)."""

from marfast.ops.adaln_mlp import adaln_mlp, pack_adaln_mlp
from marfast.ops.attention import attention
from marfast.ops.ddpm_sample import ddpm_sample
from marfast.ops.ddpm_step import ddpm_step
from marfast.ops.denoise import denoise
from marfast.ops.fused_linear import fused_linear, pack_linear
from marfast.ops.group_norm_silu import group_norm_silu
from marfast.ops.head import pack_head
from marfast.ops.layer_norm_modulate import layer_norm_modulate
from marfast.ops.registry import BackendUnavailable, backend, backends, which

__all__ = [
    "BackendUnavailable",
    "adaln_mlp",
    "attention",
    "backend",
    "backends",
    "ddpm_sample",
    "ddpm_step",
    "denoise",
    "fused_linear",
    "group_norm_silu",
    "layer_norm_modulate",
    "pack_adaln_mlp",
    "pack_head",
    "pack_linear",
    "which",
]
