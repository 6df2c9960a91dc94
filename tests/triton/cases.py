"""What the Triton kernels are run on: hostile shapes, and shapes whose errors are compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marfast.ops.op import OPS
from tests.ops import (
    test_adaln_mlp,
    test_attention,
    test_ddpm_step,
    test_diffusion_loss,
    test_fused_linear,
    test_group_norm_silu,
    test_layer_norm_modulate,
)
from tests.ops.heads import denoise_inputs, sample_inputs, sampler_inputs, step_inputs

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

Args = tuple[Any, ...]


class Case(NamedTuple):
    """An op at some sizes. dtype is that of the factors of its products, or of all it has."""

    op: str
    sizes: str
    make: Callable[..., Args]

    def args(self, dtype: torch.dtype, seed: int = 0) -> Args:
        """All its arguments."""
        return tuple(OPS[self.op].bind(*self.make(dtype=dtype, seed=seed)))

    def __str__(self) -> str:
        return f"{self.op}: {self.sizes}"


def _case(op: str, inputs: Callable[..., Args], *sizes: int, **options: Any) -> Case:
    named = [f"{name} {value}" for name, value in options.items()]
    label = ", ".join([" x ".join(map(str, sizes)), *named] if sizes else named)
    return Case(op, label, lambda **given: inputs(*sizes, **options, **given))


def _group_norm(images: int, channels: int, height: int, width: int, groups: int, **given: Any):
    dense = given.pop("dense", False)
    x, weight, bias = test_group_norm_silu.inputs(images, channels, height, width, **given)
    return x.contiguous() if dense else x, weight, bias, groups


def _step(tokens: int, channels: int, **given: Any) -> Args:
    return (*test_ddpm_step.inputs(tokens, channels, **given), 0.9, True)


def _attention(**given: Any) -> Args:
    return test_attention.inputs(**given)


def _half_rows(args: Args) -> Args:
    """Every tensor of the MLP's dtype."""
    dtype = args[6].dtype
    return tuple(a.to(dtype) if isinstance(a, Tensor) else a for a in args)


LAYER_NORM = ("layer_norm_modulate", test_layer_norm_modulate.inputs)
LINEAR = ("fused_linear", test_fused_linear.inputs)
ADALN = ("adaln_mlp", test_adaln_mlp.inputs)
DENOISE = ("denoise", denoise_inputs)
SAMPLE = ("ddpm_sample", sample_inputs)
ATTENTION = ("attention", _attention)
NORM = ("group_norm_silu", _group_norm)
STEP = ("ddpm_step", _step)
LOSS = ("diffusion_loss", test_diffusion_loss.inputs)
GRADIENTS = ("diffusion_loss_gradients", test_diffusion_loss.inputs)

HOSTILE = [
    *(_case(*LAYER_NORM, *s) for s in ((0, 16), (1, 1), (2, 3), (3, 1023), (17, 64), (129, 33))),
    _case(*LAYER_NORM, 3, 40, affine=False),
    # rows: none, one, round the tiles of 16, 32 and 64; widths that no tile divides
    *(_case(*LINEAR, *s) for s in ((0, 16, 8), (1, 1, 1), (2, 3, 5), (3, 257, 17), (17, 33, 40))),
    *(_case(*LINEAR, *s) for s in ((129, 65, 33), (65, 300, 130))),
    _case(*LINEAR, 5, 40, 24, norm=False, residual=False, gelu=False),
    *(_case(*ADALN, *s) for s in ((0, 16), (1, 1), (2, 15), (3, 257), (17, 64), (129, 33))),
    Case("adaln_mlp", "3 x 20 of one dtype", lambda **g: _half_rows(ADALN[1](3, 20, **g))),
    _case(*DENOISE, 0),
    _case(*DENOISE, 1, width=1, channels=1, condition=1, depth=1),
    _case(*DENOISE, 2, depth=0, channels=3),
    _case(*DENOISE, 3, width=67, frequencies=7, depth=1),
    _case(*DENOISE, 17, width=95, condition=33, depth=1),
    _case(*DENOISE, 129, width=17, channels=40, depth=1, frequencies=8),
    _case(*SAMPLE, 0),
    _case(*SAMPLE, 1, guided=False, steps=2, width=33, channels=3),
    _case(*SAMPLE, 3, steps=3, width=40, depth=1),
    _case(*SAMPLE, 20, steps=2, width=17, depth=1),
    # Lq: none, one, round the tiles of queries; L round those of keys; heads of one part and two
    _case(*ATTENTION, head_dim=64, length=65, heads=2),
    _case(*ATTENTION, head_dim=80, length=33, wanted=17, heads=2),
    _case(*ATTENTION, head_dim=80, length=70, heads=1, causal=True),
    _case(*ATTENTION, head_dim=7, length=129, wanted=3, causal=True),
    _case(*ATTENTION, head_dim=128, length=16, wanted=0),
    _case(*ATTENTION, head_dim=128, length=40, wanted=1, heads=1),
    _case(*ATTENTION, head_dim=1, length=1, batch=1, heads=1),
    _case(*ATTENTION, head_dim=100, length=2, batch=3, heads=1, causal=True),
    *(_case(*NORM, *s) for s in ((0, 4, 3, 3, 2), (2, 3, 1, 1, 3), (1, 33, 9, 7, 11))),
    _case(*NORM, 2, 96, 13, 5, 32),
    _case(*NORM, 1, 4, 1025, 1, 2),
    _case(*NORM, 2, 6, 33, 33, 3, dense=True),
    *(_case(*STEP, *s) for s in ((0, 16), (1, 1), (2, 3), (3, 16), (17, 64), (129, 16), (2, 0))),
    _case(*STEP, 5, 17, guided=False),
    *(_case("ddpm_step", step_inputs, *s) for s in ((0, 16), (3, 17), (129, 16))),
    _case(*GRADIENTS, 1, copies=1, channels=1, width=1, condition=1, depth=0, masked=False),
    _case(*GRADIENTS, 17, channels=3, width=17, depth=1, first=True, scale=0.3),
    _case(*GRADIENTS, 43, copies=3, channels=40, width=33, condition=5, depth=1, frequencies=7),
    _case("ddpm_sample", sampler_inputs, sampler="dpm++2m-sde", steps=3, width=17, depth=1),
    _case("ddpm_sample", sampler_inputs, sampler="ddim", steps=2, width=17, depth=1),
]
"""No rows, one, and as many as end inside a tile; odd widths; every layout that is taken."""

ACCURACY = [
    _case(*LAYER_NORM, 9, 1024),
    _case(*LINEAR, 9, 768, 48),
    _case(*LINEAR, 70, 300, 24, residual=False, gelu=False),
    _case(*ADALN, 9, 100),
    _case(*ADALN, 66, 64),
    _case(*DENOISE, 9, width=64, depth=1),
    _case(*SAMPLE, 3, width=32, depth=1, steps=3, frequencies=16),
    _case(*ATTENTION, head_dim=64, length=40, heads=2),
    _case(*ATTENTION, head_dim=80, length=40, wanted=6, heads=2, causal=True),
    _case(*NORM, 1, 32, 24, 24, 8),
    _case(*LOSS, 12, copies=3, width=32, depth=1),
    _case(*GRADIENTS, 12, copies=3, width=32, depth=1, first=True, scale=0.3),
]
"""What errors are compared on: each case over 8 seeds."""

WIDE = [
    _case(*LINEAR, 4, 1024, 1024),
    _case(*ADALN, 4, 1024),
    _case(*DENOISE, 2, width=1024, depth=2, condition=768),
    _case(*ATTENTION, head_dim=64, length=320, heads=12, batch=1),
    _case(*ATTENTION, head_dim=80, length=320, heads=16, batch=1, wanted=4),
    _case(*NORM, 1, 128, 64, 64, 32),
]
"""MAR's own sizes, for tables.py: minutes under the interpreter."""
