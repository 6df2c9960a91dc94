"""Sheets of images that a run's model generates while it is trained."""

from pathlib import Path

import torch

from marfast.checkpoints import Preset
from marfast.generation import Pipeline
from marfast.image_files import make_grid, write_image
from marfast.model.mar import FastMAR
from marfast.model.tokenizer import Tokenizer
from marfast.pixels import to_pixels
from marfast.reference.respacing import ends_of
from marfast.training.saved import SHEETS
from marfast.training.trainer import Trainer

CLASSES, EACH = 10, 8
"""Rows at most, and images in a row."""


def can_draw(preset: Preset, tokenizer: Tokenizer | None) -> bool:
    """Whether there are images to be seen."""
    what = preset.architecture
    return (what.makes_pixels and what.vae_embed_dim in (1, 3)) or tokenizer is not None


def draw(trainer: Trainer, tokenizer: Tokenizer | None, folder: Path) -> Path:
    """A row for each of the first classes, by the weights that `marfast.load` would take, from the
    same seeds each time; the global generators stay as they are."""
    preset = trainer.plan.preset
    steps, _ = ends_of(preset.settings.steps)
    module = preset.architecture.build(
        steps=str(steps), clip_denoised=preset.settings.clip_denoised
    )
    named = trainer.module.named_parameters()
    weights = (
        trainer.averages[0].weights
        if trainer.averages
        else {name: parameter.detach() for name, parameter in named}
    )
    module.load_state_dict(weights, assign=True)
    module.requires_grad_(False)
    pipeline = Pipeline(FastMAR(module), preset.settings, tokenizer=tokenizer)
    labels = [c for c in range(min(CLASSES, module.num_classes)) for _ in range(EACH)]
    with torch.no_grad():
        images = pipeline.generate(labels, seed=[*range(len(labels))])
    sheet = make_grid([*to_pixels(images)], EACH)
    path = folder / SHEETS / f"{trainer.counts.step:09}.png"
    write_image(sheet, path, force=True)
    return path
