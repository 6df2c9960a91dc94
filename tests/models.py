"""Small models with non-trivial weights, for tests."""

import argparse
import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from marfast.checkpoints import Architecture, Settings
from marfast.generation import Pipeline
from marfast.model import FastMAR
from marfast.reference import AutoencoderKL
from marfast.verifying.case import fill

TINY = Architecture(
    img_size=16,
    vae_stride=1,
    patch_size=4,
    vae_embed_dim=1,
    encoder_embed_dim=32,
    encoder_depth=2,
    encoder_num_heads=2,
    decoder_embed_dim=48,
    decoder_depth=2,
    decoder_num_heads=3,
    class_num=10,
    buffer_size=3,
    diffloss_d=2,
    diffloss_w=24,
)
"""16 tokens of 16 numbers, unequal encoder and decoder, no width a multiple of 64."""


def tiny_weights(architecture: Architecture = TINY, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights drawn anew for every parameter: as they are initialised, half of the head is zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in architecture.build().state_dict().items()}
    return {k: torch.randn(shape, generator=generator) * 0.2 for k, shape in shapes.items()}


def tiny_pipeline(steps: int = 4, clip_denoised: bool = True, num_iter: int = 5) -> Pipeline:
    module = TINY.build(steps=str(steps), clip_denoised=clip_denoised)
    module.load_state_dict(tiny_weights(), assign=True)
    module.requires_grad_(False)
    settings = Settings(num_iter=num_iter, steps=steps, clip_denoised=clip_denoised)
    return Pipeline(FastMAR(module), settings, tuple("abcdefghij"))


def training_checkpoint(
    model: Mapping[str, Tensor], ema: Mapping[str, Tensor], /, **options: Any
) -> dict[str, Any]:
    """What LTH14/mar's main_mar.py hands to torch.save: state_dicts, one with parameters in it."""
    entries = [OrderedDict(model), OrderedDict((k, nn.Parameter(v)) for k, v in ema.items())]
    for entry in entries:
        entry._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 1)}]}
    rest = {"optimizer": optimizer, "epoch": 3, "scaler": {"scale": 65536.0}}
    args = argparse.Namespace(epochs=400, lr=None, blr=1e-4, output_dir="out", **options)
    return {"model": entries[0], "model_ema": entries[1], **rest, "args": args}


LATENT = dataclasses.replace(TINY, img_size=8, vae_stride=2, patch_size=1, vae_embed_dim=4)
"""16 tokens, each the 4 numbers of a latent of `tiny_autoencoder`."""

SEQUENCE = dataclasses.replace(
    TINY, img_size=9, patch_size=1, vae_embed_dim=3, class_num=4, sequence=True
)
"""Up to 9 vectors of 3 numbers."""


def tiny_autoencoder(embed_dim: int = 4, ch_mult: Sequence[int] = (1, 2)) -> AutoencoderKL:
    """By default of stride 2, 4 channels, levels 32 and 64 wide."""
    module: AutoencoderKL = fill(AutoencoderKL(embed_dim, ch_mult, ch=32), gain=1.0)
    return module.eval().requires_grad_(False)
