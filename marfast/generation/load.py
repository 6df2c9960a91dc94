"""`marfast.load`: from a name or a file to a model that generates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marfast.model.checkpoint import load_weights, read_weights
from marfast.model.mar import FastMAR
from marfast.model.presets import Architecture, Preset, embedded_models, get_preset, read_config
from marfast.model.tokenizer import Tokenizer, check_tokenizer
from marfast.model.vae import load_tokenizer

from .pipeline import Pipeline

PresetLike = str | Path | Mapping[str, Any] | Preset | None
TokenizerLike = str | Path | Tokenizer


def load(
    model: str | Path,
    preset: PresetLike = None,
    *,
    weights: str | None = None,
    vae: TokenizerLike | None = None,
    device: str = "cpu",
) -> Pipeline:
    """Load a model that can `generate`.

    model: the name of an embedded model ("fashion-mnist"), a folder with config.json and
        model.safetensors, a .safetensors file, or a .pth as LTH14/mar saves it.
    preset: for a file, what it is: "mar_base", "mar_large", "mar_huge", an embedded model's name, a
        config.json, or such a file's contents.
    weights: the entry of a .pth to take, "model_ema" (the default where it is there) or "model".
    vae: for a model of a tokenizer's latents, the tokenizer, which turns them into images: KL-16's
        file, such as kl16.ckpt, or an object with the names of `marfast.model.Tokenizer`. Without
        it, `generate` returns latents.

    Nothing is half-loaded. Raises FileNotFoundError or ValueError (CheckpointError for what is in a
    file), naming file and key; TypeError for a `vae` that is no tokenizer.
    """
    if weights not in (None, "model_ema", "model"):
        raise ValueError(f"weights: {weights!r}; allowed are 'model_ema' and 'model'")
    path, found = find_model(model, preset)
    tokenizer = None if vae is None else find_tokenizer(vae, found.architecture)
    settings = found.settings
    module = found.architecture.build(
        steps=str(settings.steps), clip_denoised=settings.clip_denoised
    )
    load_weights(read_weights(path, weights), module, str(path))
    return Pipeline(FastMAR(module), settings, found.classes, tokenizer).to(device)


def find_model(model: str | Path, preset: PresetLike = None) -> tuple[Path, Preset]:
    """The file that holds a model's weights, and what the model is, as `load` takes them.

    Reads nothing but a config.json, so that a caller can check more before the weights are read.
    """
    embedded = embedded_models()
    path = embedded.get(str(model), Path(model))
    if not path.exists():
        names = ", ".join(embedded)
        raise FileNotFoundError(
            f"model: {str(model)!r} is neither an embedded model ({names}) nor a file or folder"
        )
    if path.is_dir():
        config, path = path / "config.json", path / "model.safetensors"
        if preset is None and not config.is_file():
            raise FileNotFoundError(f"{config}: no such file, and no preset was given")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return path, read_config(config) if preset is None else get_preset(preset)
    if preset is None:
        raise ValueError(
            f"preset: none given, and {path} does not say what model it holds; name one, "
            "such as mar_base"
        )
    return path, get_preset(preset)


def find_tokenizer(vae: TokenizerLike, architecture: Architecture) -> Tokenizer:
    """The tokenizer itself, or the one in a file, for models of this architecture; errors as of
    `load`."""
    if architecture.makes_pixels:
        raise ValueError("vae: given for a model of pixels, which needs none")
    tokenizer = load_tokenizer(vae) if isinstance(vae, (str, Path)) else vae
    check_tokenizer(tokenizer, architecture)
    return tokenizer
