"""`marfast.load`: from a name or a file to a model that generates."""

from pathlib import Path

import torch

from marfast.checkpoints import Architecture, Report, find
from marfast.checkpoints.checkpoint import ModelLike, PresetLike
from marfast.errors import ArgumentError
from marfast.generation.pipeline import Pipeline
from marfast.model.autoencoder import load_tokenizer
from marfast.model.mar import FastMAR, check_dtype
from marfast.model.tokenizer import Tokenizer, check_tokenizer
from marfast.reference.respacing import ends_of

TokenizerLike = str | Path | Tokenizer


def load(
    model: ModelLike,
    preset: PresetLike = None,
    *,
    weights: str | None = None,
    vae: TokenizerLike | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    sampler: str | None = None,
    steps: int | str | None = None,
    eta: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
) -> Pipeline:
    """Load a model that can `generate`; `report` on it tells what was read.

    model: the name of an embedded model ("fashion-mnist"), a folder with config.json and
        model.safetensors, a .safetensors file, a .pth as LTH14/mar saves it, "owner/name" of a
        repository that is in Hugging Face's cache (nothing is downloaded), or any of these as
        `marfast.checkpoints.find` opened it.
    preset: what a file holds, where it does not say so itself: "mar_base", "mar_large", "mar_huge",
        an embedded model's name, a config.json, or such a file's contents. A .pth of LTH14/mar's
        main_mar.py and what `marfast convert` wrote say it.
    weights: the entry of a .pth to take, "model_ema" (the default where it is there) or "model".
    vae: for a model of a tokenizer's latents, the tokenizer, which turns them into images: KL-16's
        file, such as kl16.ckpt, or an object with the names of `marfast.model.Tokenizer`. Without
        it, `generate` returns latents.
    device: where the model lies; ArgumentError for one that isn't here.
    dtype: what products are computed in, torch.bfloat16 or torch.float16, as under torch.autocast;
        None is float32.
    sampler, steps, eta, guidance_interval: as in `Settings`, the defaults of `generate` then; None
        takes the model's.

    Nothing is half-loaded. Raises FileNotFoundError or ValueError (CheckpointError for what is in a
    file), naming file and key; TypeError for a `vae` that is no tokenizer.
    """
    check_dtype(dtype)
    check_device(device)
    checkpoint = find(model, preset, weights)
    found = checkpoint.preset
    tokenizer = None if vae is None else find_tokenizer(vae, found.architecture)
    settings = found.settings.replace(
        found.architecture.seq_len,
        sampler=sampler,
        steps=steps,
        eta=eta,
        guidance_interval=guidance_interval,
    )
    own_steps, _ = ends_of(settings.steps)
    module = found.architecture.build(steps=str(own_steps), clip_denoised=settings.clip_denoised)
    checkpoint.file.fill(module)
    fast = FastMAR(module, dtype)
    report = Report.of(checkpoint)
    return Pipeline(fast, settings, found.classes, report, tokenizer).to(device)


def check_device(device: str | torch.device) -> torch.device:
    """The device itself; ArgumentError unless torch knows it and, of CUDA's, has it here."""
    try:
        named = torch.device(device)
    except (RuntimeError, TypeError):
        raise ArgumentError("device", repr(device), "allowed are cpu, cuda and cuda:N") from None
    if named.type == "cuda":
        count = torch.cuda.device_count()
        if not count:
            raise ArgumentError("device", device, "there is no CUDA device here")
        if (named.index or 0) >= count:
            raise ArgumentError("device", device, f"allowed are cuda:0 to cuda:{count - 1}")
    return named


def find_tokenizer(vae: TokenizerLike, architecture: Architecture) -> Tokenizer:
    """The tokenizer itself, or the one in a file, for models of this architecture; errors as of
    `load`."""
    if architecture.makes_pixels:
        raise ArgumentError("vae", "given for a model of pixels, which needs none")
    tokenizer = load_tokenizer(vae) if isinstance(vae, (str, Path)) else vae
    check_tokenizer(tokenizer, architecture)
    return tokenizer
