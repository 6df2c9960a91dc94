"""The model of a command that makes images: its file opened and checked before weights are read."""

from collections.abc import Mapping
from typing import Any

import torch

from marfast.checkpoints import find, get_preset
from marfast.checkpoints.checkpoint import Checkpoint
from marfast.cli.errors import bad, reported_as
from marfast.generation import Pipeline
from marfast.generation import load as loading
from marfast.image_files import CHANNELS
from marfast.model.tokenizer import Tokenizer


def open_model(
    model: str,
    preset: str | None,
    weights: str | None,
    vae: str | None,
    settings: Mapping[str, Any],
    *,
    latents: bool = False,
) -> Checkpoint:
    """Errors for one that is not there, that makes no images, or can't use these settings;
    `latents` will do, too."""
    with reported_as("--preset"):
        named = None if preset is None else get_preset(preset)
    with reported_as("--model"):
        checkpoint = find(model, named, weights)
    what = checkpoint.preset.architecture
    if what.sequence:
        said = f"{model} makes sequences of vectors, which are generated in Python alone"
        raise bad("--model", said)
    if vae is None and not what.makes_pixels and not latents:
        raise bad(
            "--model",
            f"{model} makes latents; --vae names the tokenizer that turns them into images, and an "
            ".npz takes them as they are",
        )
    if vae is not None and what.makes_pixels:
        raise bad("--vae", f"{vae}; {model} makes pixels and needs none")
    if what.makes_pixels and what.vae_embed_dim not in CHANNELS and not latents:
        allowed = " or ".join(map(str, CHANNELS))
        raise bad(
            "--model", f"{model}: images of {what.vae_embed_dim} channels; allowed are {allowed}"
        )
    with reported_as("--model"):
        checkpoint.preset.settings.replace(what.seq_len, **settings)
    return checkpoint


def open_tokenizer(vae: str | None, checkpoint: Checkpoint) -> Tokenizer | None:
    """The one in a file, where one is named."""
    with reported_as("--vae"):
        return None if vae is None else loading.find_tokenizer(vae, checkpoint.preset.architecture)


def load_model(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer | None,
    dtype: str | None,
    threads: int | None = None,
    device: str | torch.device = "cpu",
) -> Pipeline:
    """Read the weights; from here on, so many threads."""
    with reported_as("--model"):
        half = None if dtype is None else getattr(torch, dtype)
        pipeline = loading.load(checkpoint, vae=tokenizer, dtype=half, device=device)
    if threads is not None:
        torch.set_num_threads(threads)
    return pipeline
